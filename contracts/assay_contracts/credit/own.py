"""What an account kept itself: its receipts, and what each of them must have earned.

Checks of a bundle against them, which no maker of bundles can pass by leaving something out or by
changing an amount. The signed messages are read here by field number, as protocol/spec says, so
that a check of a thousand receipts does not first wait for all message classes; a test holds the
numbers to the classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgpack
from nacl.bindings.crypto_sign import crypto_sign_open
from nacl.exceptions import BadSignatureError

from assay_protocol.credit_tree import CreditLine
from assay_protocol.errors import ProtocolError
from assay_protocol.limits import UNACKED_TOKENS_MAX

SIGNATURE_BYTES: Final = 64
RECEIPT_DOMAIN: Final = b"assay/1/Receipt\0"
ACK, TICKET, RECEIPT, PRICING = 96, 110, 112, 46  # message types
_WHOLE_BPS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Kept:
    """A row of a node's receipt store; `ack` and `ticket_blob` may be absent."""

    ticket: bytes
    receipt: bytes
    ack: bytes | None = None
    ticket_blob: bytes | None = None


class Found(NamedTuple):
    """A check's outcome, before it has a name."""

    ok: bool
    detail: str


def receipt_digest(blob: bytes) -> bytes:
    """The digest under which a signed receipt stands in a line: BLAKE2b of 32 bytes."""
    return blake2b(blob, digest_size=32).digest()


def signed_by(kept: Sequence[Kept], account: bytes) -> Found:
    """Whether the account signed each of these receipts, and each is of its ticket."""
    bad = [one.ticket for one in kept if not _is_signed(one, account)]
    detail = f"{len(kept)} receipts of one's own, {len(bad)} not signed by {account.hex()[:16]}"
    return Found(not bad, f"{detail}: {bad[0].hex()}" if bad else detail)


def in_lines(kept: Sequence[Kept], lines: Sequence[CreditLine], *, whole: bool) -> Found:
    """Whether each line of a job that one has a receipt of stands for that very receipt. Receipts
    without a line are of other epochs, or were not paid: with `whole` there may be none."""
    booked = {line.id: line.digest for line in lines if line.kind == "job"}
    mine = [one for one in kept if one.ticket in booked]
    other = [one for one in mine if booked[one.ticket] != receipt_digest(one.receipt)]
    absent = len(kept) - len(mine)
    detail = f"{len(mine)} in this epoch, {len(other)} of another receipt, {absent} not in it"
    return Found(not other and not (whole and absent), detail)


def amounts(kept: Sequence[Kept], lines: Sequence[CreditLine], pricing: bytes) -> Found:
    """Whether each line's amount is what its receipt, its ticket and the epoch's rules make of it.

    The client's word on what it got may have come with the receipt or later, so a job has two
    prices at most. A receipt without its ticket is left out, and counted.
    """
    try:
        shares = _Rules.read(pricing)
        by_ticket = {one.ticket: one for one in kept if one.ticket_blob is not None}
        jobs = [line for line in lines if line.kind == "job"]
        priced = [line for line in jobs if line.id in by_ticket]
        wrong = [line for line in priced if line.amount not in shares.pays(by_ticket[line.id])]
    except ProtocolError as error:
        return Found(False, str(error))
    detail = f"{len(priced)} of {len(jobs)} jobs priced again, {len(wrong)} differ"
    return Found(not wrong, f"{detail}: {wrong[0].id.hex()}" if wrong else detail)


@dataclass(frozen=True, slots=True)
class _Rules:
    """An epoch's Pricing, as far as nodes' pay goes."""

    fee_bps: int
    shared_bps: Mapping[bytes, int]  # by model

    @classmethod
    def read(cls, pricing: bytes) -> _Rules:
        raw = _fields(pricing, PRICING)
        try:
            shared = {one[2]: sum(share[6] for share in one[4]) for one in raw[4]}
            return cls(int(raw[2]), shared)
        except (KeyError, TypeError, IndexError):
            raise ProtocolError("malformed", "the rules are no Pricing") from None

    def pays(self, kept: Kept) -> tuple[int, ...]:
        """What the node may have got for the job."""
        assert kept.ticket_blob is not None
        ticket = _fields(kept.ticket_blob[SIGNATURE_BYTES:], TICKET)
        receipt = _fields(kept.receipt[SIGNATURE_BYTES:], RECEIPT)
        ack = _fields(kept.ack[SIGNATURE_BYTES:], ACK) if kept.ack else {}
        try:
            n_in, n_out, acked = ticket[12], receipt[12], ack.get(4, 0)
            counts = {n_out, min(n_out, acked + UNACKED_TOKENS_MAX)}
            prices = [-(-(n_in * ticket[24] + n * ticket[26]) // 1000) for n in counts]
            kept_bps = _WHOLE_BPS - self.shared_bps.get(ticket[8], 0)
        except (KeyError, TypeError):
            raise ProtocolError("malformed", "a kept ticket or receipt is damaged") from None
        rests = [price - price * self.fee_bps // _WHOLE_BPS for price in prices]
        return tuple(rest * kept_bps // _WHOLE_BPS for rest in rests)


def _is_signed(kept: Kept, account: bytes) -> bool:
    signature, body = kept.receipt[:SIGNATURE_BYTES], kept.receipt[SIGNATURE_BYTES:]
    try:
        crypto_sign_open(signature + RECEIPT_DOMAIN + body, account)
        return bool(_fields(body, RECEIPT).get(2) == kept.ticket)
    except (BadSignatureError, ValueError, TypeError, ProtocolError):
        return False


def _fields(body: bytes, number: int) -> dict[int, Any]:
    """A message's fields by number; raises ProtocolError("malformed") if it is another message."""
    try:
        raw = msgpack.unpackb(body, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError("malformed", f"not msgpack: {type(error).__name__}") from None
    if not isinstance(raw, dict) or raw.get(0) != number:
        raise ProtocolError("malformed", f"not a message of type {number}")
    return raw
