"""What a forger would try first: a receipt with one bit changed."""

from __future__ import annotations

from assay_protocol.messages import SubmitReceipt
from assay_protocol.signing import SIGNATURE_BYTES


def forged_receipt(message: SubmitReceipt, asked: int, share: int) -> SubmitReceipt:
    """Of the `asked`-th hand-in, where one in `share` is tried: half of them in the signature."""
    place = 8 * (asked % len(message.receipt)) + asked % 8
    if asked % (2 * share):
        place %= 8 * SIGNATURE_BYTES
    damaged = bytearray(message.receipt)
    damaged[place // 8] ^= 1 << place % 8
    return SubmitReceipt(receipt=bytes(damaged), ack=message.ack)
