"""Which receipts are audited: rounds of booked receipts, drawn by a block nobody could choose.

A round is closed a while after its first receipt; its root goes on the chain, and the hash of a
block that exists only then draws it, together with the round's link (protocol lottery.py). Rounds
are drawn in their order, and a link is told only when its round is drawn: the root is on chain by
then. Without a chain draws wait and nothing is lost; how far they may fall behind is bounded, as
no new tickets are given then (B1). Invariant V1: a draw is the function of link, block and receipt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from assay_coordinator.core.events import Effect, PostRound, RoundMined, Save
from assay_coordinator.core.links import Links
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import JobRow, RoundRow
from assay_protocol.limits import ROUND_RECEIPTS_MAX
from assay_protocol.lottery import RoundNote, is_drawn, round_seed, round_tree
from assay_protocol.messages import DrawEntry
from assay_protocol.signing import digest

UNDRAWN = "undrawn"


@dataclass(frozen=True, slots=True)
class Draw:
    """What the lottery says of one receipt; `seed` chooses its auditors."""

    ticket: bytes
    hit: bool
    seed: bytes


class Lottery:
    """The running round, and those closed that wait for their block."""

    def __init__(self, policy: Policy, links: Links) -> None:
        self._policy, self._links = policy, links
        self.running = 1
        self._opened_at = 0
        self._entries: list[DrawEntry] = []
        self._closed: dict[int, tuple[RoundRow, list[DrawEntry]]] = {}

    def restore(
        self, now: int, last: int, undrawn: Iterable[RoundRow], jobs: Iterable[JobRow]
    ) -> None:
        """`last` is the newest round closed; `jobs` are the entries of all that is not drawn. The
        running round stays as old as it was: whoever restarts often would never close it."""
        self.running, self._opened_at, self._entries = last + 1, now, []
        self._closed = {row.number: (row, []) for row in undrawn}
        for job in jobs:
            entry = entry_of(job, UNDRAWN)
            if job.round == self.running:
                self._opened_at = min(self._opened_at, job.booked_at)
                self._entries.append(entry)
            else:
                self._closed[job.round][1].append(entry)
        assert all(len(entries) == row.count for row, entries in self._closed.values())

    @property
    def behind(self) -> bool:
        """Whether as many rounds wait for the chain as may."""
        return len(self._closed) >= self._policy.rounds_waiting_max

    def enter(self, now: int, entry: DrawEntry) -> int:
        """Put a receipt into the running round; returns the round's number."""
        if not self._entries:
            self._opened_at = now
        self._entries.append(entry)
        return self.running

    def close_due(self, now: int) -> list[Effect]:
        """Close the running round if it is old or full. A round of nothing stays open."""
        full = min(max(1, self._policy.round_receipts), ROUND_RECEIPTS_MAX)
        old = now - self._opened_at >= self._policy.round_us
        if not self._entries or not (old or len(self._entries) >= full):
            return []
        row = RoundRow(
            number=self.running,
            state="closed",
            closed_at=now,
            root=round_tree(self._entries).root,
            count=len(self._entries),
            probation_audits=self._policy.probation_audits,
            audit_bps_min=self._policy.audit_bps_min,
            chain=self._links.chain_of(self.running),
        )
        self._closed[row.number] = (row, self._entries)
        self.running, self._entries = self.running + 1, []
        return [Save(row), self._post(row)]

    def unposted(self) -> list[Effect]:
        """After a restart: what may not be on the chain yet. It takes each once."""
        return [self._post(row) for row, _ in self._closed.values()]

    def draw(self, now: int, mined: RoundMined) -> tuple[list[Effect], list[Draw]]:
        """The block is there: draw the round. Told twice is told once."""
        if mined.number not in self._closed:
            return [], []
        row, entries = self._closed.pop(mined.number)
        link = self._links.of_round(row.number)
        seed = round_seed(link, mined.block_hash)
        row = replace(
            row,
            state="drawn",
            link=link,
            anchored=mined.anchored,
            posted=mined.posted,
            block=mined.block,
            block_hash=mined.block_hash,
            drawn_at=now,
        )
        draws = [
            Draw(one.ticket, is_drawn(seed, one.receipt, one.numerator, one.denominator), seed)
            for one in entries
        ]
        return [Save(row)], draws

    def _post(self, row: RoundRow) -> PostRound:
        note = RoundNote(row.number, row.root, row.count, row.probation_audits, row.audit_bps_min)
        anchor = self._links.anchor(row.chain)
        return PostRound(row.number, note.encode(), row.chain, self._links.length, anchor)


def entry_of(job: JobRow, outcome: str) -> DrawEntry:
    """A booked job as its round lists it."""
    return DrawEntry(
        ticket=job.ticket,
        receipt=digest(job.receipt_blob),
        node=job.node,
        numerator=job.numerator,
        denominator=job.denominator,
        asked=job.verify,
        outcome=outcome,
    )
