"""Checks rounds of the audit lottery against the chain, trusting nobody who drew them.

Link back to the anchor, entries up to the root, the block that came after it, each rate, each draw:
every arrow is a named step. What a document alone cannot show is a receipt that is missing from it:
its node and its client hold it and can look. Runs in the base install.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from assay_contracts.credit.readers import BlockReader, MinedNote
from assay_contracts.credit.verify import Step
from assay_protocol.codec import decode_as
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.lottery import (
    AnchorNote,
    RoundNote,
    audit_rate,
    is_drawn,
    link_before,
    round_seed,
    round_tree,
)
from assay_protocol.messages import DrawEntry, RoundDraws

CASE_US_MAX: Final = 3_600_000_000  # an audit that lasts longer was not made
SCAN_BLOCKS_MAX: Final = 10_000  # looked at for a second root of the same round
LINKS_MAX: Final = 1 << 20  # of one anchor
UNDRAWN: Final = frozenset({"undrawn", "inquiry"})
AUDITED: Final = frozenset(
    {"open", "passed", "failed", "unequal", "withheld", "unproven", "unaudited"}
)
_FIXED: Final = {"now": (1, 1), "none": (0, 1)}  # rates that the client's wish decides
_RECORD: Final = ("sample", "quorum")  # ... and those that the node's record does
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One round's steps, and how many of its receipts were drawn, found no auditor, were not to be
    audited by their clients' wish, or were audited in an inquiry."""

    number: int
    ok: bool
    steps: tuple[Step, ...]
    receipts: int
    drawn: int
    unaudited: int
    waived: int
    inquiries: int


class RoundChecks:
    """Checks rounds one after the other, in ascending order.

    From round 1 on without a gap it also holds each node's rate against its passed audits.
    `poster`: the address the operator published, whenever it is known; else that of the first
    round's root is taken for all.
    """

    def __init__(self, chain: BlockReader, now_us: int, poster: bytes = b"") -> None:
        self._chain, self._now, self._poster = chain, now_us, poster
        self._passed: Counter[bytes] = Counter()
        self._next = 1  # the round up to which the records are whole
        self._looked_at = 0  # blocks up to here were searched for roots
        self._roots: Counter[int] = Counter()

    def check(self, document: RoundDraws) -> RoundReport:
        """Every step, whatever fails before it. Raises AssayError if the chain cannot be asked."""
        steps: list[Step] = []
        seed = round_seed(document.link, document.block_hash)
        anchor, anchored = self._note(document.anchored, AnchorNote.decode)
        note, posted = self._note(document.posted, RoundNote.decode)
        steps.append(_poster(self._from_poster(posted), self._from_poster(anchored)))
        steps.append(_links(document, anchor))
        steps.append(_root(document, note))
        steps.append(self._order(document, anchor, anchored, posted))
        steps.append(self._once(document, anchored, posted))
        steps.append(self._rates(document, note))
        hits = [
            is_drawn(seed, one.receipt, one.numerator, one.denominator) for one in document.entries
        ]
        steps.append(_draws(document, hits))
        steps.append(self._in_time(document))
        outcomes = Counter(one.outcome for one in document.entries)
        return RoundReport(
            number=document.number,
            ok=all(step.ok for step in steps),
            steps=tuple(steps),
            receipts=len(document.entries),
            drawn=sum(hits),
            unaudited=outcomes["unaudited"],
            waived=sum(one.asked == "none" for one in document.entries),
            inquiries=outcomes["inquiry"],
        )

    # ---- on the chain ----

    def _note(
        self, name: bytes, decode: Callable[[bytes], _T]
    ) -> tuple[_T | None, MinedNote | None]:
        mined = self._chain.transaction(name)
        if mined is None:
            return None, None
        try:
            return decode(mined.data), mined
        except ProtocolError:
            return None, mined

    def _from_poster(self, mined: MinedNote | None) -> bool:
        """Sent by the operator to itself: nobody else's note counts."""
        if mined is None:
            return False
        self._poster = self._poster or mined.sender
        return mined.sender == mined.to == self._poster

    def _order(
        self,
        document: RoundDraws,
        anchor: AnchorNote | None,
        anchored: MinedNote | None,
        posted: MinedNote | None,
    ) -> Step:
        """The links were fixed first, then the root, and the block that decided came as late as
        the anchor says."""
        if anchor is None or anchored is None or posted is None:
            return Step("block", False, "not checked: a note is missing")
        number = posted.block + anchor.lag
        found = self._chain.block_hash(number)
        ok = anchored.block < posted.block and (number, found) == (
            document.block,
            document.block_hash,
        )
        return Step("block", ok, f"root in block {posted.block}, drawn by block {number}")

    def _once(
        self, document: RoundDraws, anchored: MinedNote | None, posted: MinedNote | None
    ) -> Step:
        """A second root of one round would let its maker choose between two draws."""
        if anchored is None or posted is None:
            return Step("posted once", False, "not checked: a note is missing")
        start = max(self._looked_at, anchored.block, posted.block - SCAN_BLOCKS_MAX)
        for number in range(start + 1, posted.block + 1):
            for mined in self._chain.notes(number):
                if mined.sender == self._poster:
                    self._count(mined)
        self._looked_at = max(self._looked_at, posted.block)
        count = self._roots[document.number]
        detail = f"{count} roots of the round in blocks {start + 1} to {posted.block}"
        return Step("posted once", count == 1, detail)

    def _count(self, mined: MinedNote) -> None:
        try:
            self._roots[RoundNote.decode(mined.data).number] += 1
        except ProtocolError:
            return  # an epoch, or an anchor

    # ---- the rates ----

    def _rates(self, document: RoundDraws, note: RoundNote | None) -> Step:
        if note is None:
            return Step("rates", False, "not checked: the root is not on the chain")
        whole = document.number == self._next
        if whole:
            self._next += 1
            for one in document.entries:
                self._passed[one.node] += one.outcome == "passed"
        for one in document.entries:
            if not _rate_known(one, note):
                rate = f"{one.numerator}/{one.denominator}"
                return Step("rates", False, f"{_name(one)}: {rate} is no rate of the policy")
            least = audit_rate(self._passed[one.node], note.probation_audits, note.audit_bps_min)
            if whole and one.asked in _RECORD and not _at_least(one, least):
                detail = f"{_name(one)}: its node had {self._passed[one.node]} passed audits"
                rate = f"{one.numerator}/{one.denominator}"
                return Step("rates", False, f"{detail}, too few for {rate}")
        held = "and the nodes' records" if whole else "(the records: only from round 1 on)"
        return Step("rates", True, f"as the policy says {held}")

    def _in_time(self, document: RoundDraws) -> Step:
        late = [
            one
            for one in document.entries
            if one.outcome == "open" and document.drawn_at + CASE_US_MAX < self._now
        ]
        detail = f"{_name(late[0])} was never audited" if late else "no audit is overdue"
        return Step("in time", not late, detail)


def open_round(data: bytes, number: int) -> RoundDraws:
    """The document of round `number` in `data`. Raises ProtocolError if it is none."""
    document = decode_as(RoundDraws, data)
    if document.number != number:
        raise ProtocolError("malformed", f"asked for round {number}, got {document.number}")
    if len({one.receipt for one in document.entries}) != len(document.entries):
        raise ProtocolError("malformed", "a receipt is listed twice")
    return document


def _poster(posted: bool, anchored: bool) -> Step:
    ok = posted and anchored
    return Step("poster", ok, "both notes are the operator's" if ok else "a note is not")


def _links(document: RoundDraws, anchor: AnchorNote | None) -> Step:
    if anchor is None:
        return Step("links", False, "the anchor is not on the chain")
    away = anchor.position(document.number)
    if anchor.chain != document.chain or not 0 < away <= LINKS_MAX:
        return Step("links", False, "the anchor is of other rounds")
    link = document.link
    for _ in range(away):
        link = link_before(link)
    return Step("links", link == anchor.anchor, f"{away} links from the anchor")


def _root(document: RoundDraws, note: RoundNote | None) -> Step:
    if note is None:
        return Step("root", False, "the root is not on the chain")
    try:
        tree = round_tree(document.entries)
    except AssayError as error:
        return Step("root", False, str(error))
    ok = (note.number, note.root, note.count) == (document.number, tree.root, tree.total)
    return Step("root", ok, f"{tree.total} receipts, root {tree.root.hex()[:16]}")


def _draws(document: RoundDraws, hits: list[bool]) -> Step:
    """Who was drawn was audited, and nobody else was."""
    for one, hit in zip(document.entries, hits, strict=True):
        if hit and one.outcome in UNDRAWN:
            return Step("draws", False, f"{_name(one)} was drawn and is called {one.outcome}")
        if not hit and one.outcome in AUDITED:
            return Step("draws", False, f"{_name(one)} was audited without being drawn")
    return Step("draws", True, f"{sum(hits)} of {len(hits)} drawn, all as the seed says")


def _rate_known(one: DrawEntry, note: RoundNote) -> bool:
    """Whether a node with some record, or the client's wish, has this rate."""
    rate = (one.numerator, one.denominator)
    if one.asked in _FIXED:
        return rate == _FIXED[one.asked]
    if one.asked not in _RECORD:
        return False
    if rate == (1, 1):
        return True
    if one.denominator == 10_000:  # by what it has at stake, or the least there is
        return note.audit_bps_min <= one.numerator <= 10_000
    record = one.denominator  # V0 in v
    return rate == audit_rate(record, note.probation_audits, note.audit_bps_min)


def _at_least(one: DrawEntry, least: tuple[int, int]) -> bool:
    return one.numerator * least[1] >= least[0] * one.denominator


def _name(one: DrawEntry) -> str:
    return f"receipt {one.receipt.hex()[:16]} of node {one.node.hex()[:16]}"
