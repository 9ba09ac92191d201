"""The lottery's arithmetic: who is audited, so that anybody can draw again and compare.

A coordinator fixes a chain of links in advance, each the hash of the next, and puts its start (the
anchor) on a chain of blocks. Receipts are booked into rounds. When round k closes, the root over
its entries goes on chain, and only then a block exists whose hash, with link k, makes the round's
seed. The node cannot know the link, the coordinator cannot know the block: neither steers the draw
(docs/verification.md 5 says what a coordinator that makes its own blocks could do).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from assay_protocol.credit_tree import SumTree
from assay_protocol.errors import ProtocolError
from assay_protocol.messages import DrawEntry

_LINK: Final = b"assay link"
_ROUND: Final = b"assay round"
_DRAW: Final = b"assay draw"
_ENTRY: Final = b"assay entry"
_ANCHOR_NOTE: Final = b"assay anchor 1"
_ROUND_NOTE: Final = b"assay round 1"
_ANCHOR_FIELDS: Final = struct.Struct(">IIB32s")
_ROUND_FIELDS: Final = struct.Struct(">Q32sIIH")


def is_drawn(seed: bytes, receipt: bytes, numerator: int, denominator: int) -> bool:
    """Whether the receipt of digest `receipt` is audited, at the rate numerator / denominator."""
    value = hashlib.blake2b(receipt, key=seed, person=_DRAW, digest_size=32).digest()
    return int.from_bytes(value, "big") * denominator < numerator << 256


def round_seed(link: bytes, block_hash: bytes) -> bytes:
    """The seed of a round, from its link and the hash of the block that came after its root."""
    return hashlib.blake2b(block_hash, key=link, person=_ROUND, digest_size=32).digest()


def link_before(link: bytes) -> bytes:
    """The link one round earlier; before the first round's it is the anchor."""
    return hashlib.blake2b(link, person=_LINK, digest_size=32).digest()


def audit_rate(verified: int, probation_audits: int, audit_bps_min: int) -> tuple[int, int]:
    """The rate after `verified` passed audits, as (numerator, denominator): all of the first
    `probation_audits`, then that many in `verified`, never below `audit_bps_min` in 10,000."""
    if verified < probation_audits:
        return 1, 1
    if probation_audits * 10_000 > verified * audit_bps_min:
        return probation_audits, verified
    return audit_bps_min, 10_000


def round_tree(entries: Iterable[DrawEntry]) -> SumTree:
    """The tree over a round's entries, by receipt digest: no order is left to choose. Each counts
    one, so the tree's total is how many there are, and a node can be shown that it is among them.
    """
    ordered = sorted(entries, key=lambda entry: entry.receipt)
    return SumTree.build([(_leaf(entry), 1) for entry in ordered])


@dataclass(frozen=True, slots=True)
class AnchorNote:
    """What is put on chain before the first round of a chain of links.

    The block that decides round k is `lag` blocks after the one that holds its root.
    """

    chain: int
    links: int
    lag: int
    anchor: bytes

    def encode(self) -> bytes:
        return _ANCHOR_NOTE + _ANCHOR_FIELDS.pack(self.chain, self.links, self.lag, self.anchor)

    @classmethod
    def decode(cls, data: bytes) -> AnchorNote:
        """Raises ProtocolError("malformed") if `data` is no such note."""
        return cls(*_unpack(_ANCHOR_NOTE, _ANCHOR_FIELDS, data))

    def position(self, number: int) -> int:
        """How many links round `number` is after the anchor, from 1; 0 if another chain's."""
        first = (self.chain - 1) * self.links
        return number - first if first < number <= first + self.links else 0


@dataclass(frozen=True, slots=True)
class RoundNote:
    """What is put on chain when a round closes: its entries, and the rates they must follow."""

    number: int
    root: bytes
    count: int
    probation_audits: int
    audit_bps_min: int

    def encode(self) -> bytes:
        return _ROUND_NOTE + _ROUND_FIELDS.pack(
            self.number, self.root, self.count, self.probation_audits, self.audit_bps_min
        )

    @classmethod
    def decode(cls, data: bytes) -> RoundNote:
        """Raises ProtocolError("malformed") if `data` is no such note."""
        return cls(*_unpack(_ROUND_NOTE, _ROUND_FIELDS, data))


def _leaf(entry: DrawEntry) -> bytes:
    """Of what was fixed when the receipt was booked; the outcome comes later."""
    state = hashlib.blake2b(entry.receipt, person=_ENTRY, digest_size=32)
    state.update(entry.ticket + entry.node)
    state.update(entry.numerator.to_bytes(8, "big") + entry.denominator.to_bytes(8, "big"))
    state.update(entry.asked.encode())
    return state.digest()


def _unpack(head: bytes, form: struct.Struct, data: bytes) -> tuple[Any, ...]:
    if not data.startswith(head) or len(data) != len(head) + form.size:
        raise ProtocolError("malformed", "the transaction carries no such note")
    return form.unpack(data[len(head) :])
