"""A round of the lottery as it is published: who could be audited, who was, and why."""

from __future__ import annotations

from typing import Annotated

from assay_protocol import limits
from assay_protocol.codec import Size, message, struct
from assay_protocol.messages.parts import Count, Digest, Key, Name, TicketId, Time


@struct
class DrawEntry:
    """One booked receipt: its chance, fixed when it was booked, and what became of it.

    `asked` is the client's level of verification: "now" has the rate 1, "none" the rate 0, others
    that of the node's record. `outcome`: "undrawn"; "open" while its audit lasts; then the verdict;
    or "inquiry" if it was audited, undrawn, because others of its node had failed.
    """

    ticket: TicketId
    receipt: Digest
    node: Key
    numerator: Count
    denominator: Count
    asked: Name
    outcome: Name


@message(88)
class RoundDraws:
    """Part "draws": everything that recomputes one round's draw (lottery.py).

    The note of the round is the transaction `posted`, that of its links `anchored`; the block that
    decided is `block`, of hash `block_hash`.
    """

    number: Count
    chain: Count
    link: Digest
    anchored: Digest
    posted: Digest
    block: Count
    block_hash: Digest
    closed_at: Time
    drawn_at: Time
    entries: Annotated[tuple[DrawEntry, ...], Size(1, limits.ROUND_RECEIPTS_MAX)]
