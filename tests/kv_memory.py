"""What llama.cpp would hold, cell by cell: refuses any plan it could not carry out.

As in the library, a copy changes at once which cells a sequence has, but moves their contents only
when the next decode begins, while states are read and written at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from assay_node.engine.batcher import Batcher
from assay_node.engine.plans import Copy, Drop, Feed, Plan, Restore, Save, Trim

Cell = tuple[int, bytes, bool]  # token, whose it is, whether everybody may know


@dataclass
class KvMemory:
    """`slots` streams of `context` cells, and states of `tokens_max` tokens in all."""

    slots: int
    context: int
    tokens_max: int = 0
    saved: dict[int, list[Cell]] = field(default_factory=dict)
    moved: list[str] = field(default_factory=list)  # names of the moves made, in their order

    def __post_init__(self) -> None:
        self.lengths = [0] * self.slots
        self.cells: list[list[Cell]] = [[] for _ in range(self.slots)]
        self._pending: list[tuple[int, int]] = []

    def make(self, plan: Plan) -> list[int]:
        """Make the moves; the jobs whose states were kept. Then call `decode`."""
        assert plan.feeds or not plan.moves
        kept = []
        for move in plan.moves:
            self.moved.append(type(move).__name__)
            match move:
                case Save(job, slot):
                    assert slot not in {target for _, target in self._pending}, (
                        "saved before the copy"
                    )
                    assert job not in self.saved
                    room = self.tokens_max - sum(map(len, self.saved.values()))
                    if self.lengths[slot] <= room:
                        self.saved[job] = self.cells[slot][: self.lengths[slot]]
                        kept.append(job)
                case Restore(job, slot):
                    assert all(slot not in pair for pair in self._pending), (
                        "a pending copy is spoilt"
                    )
                    self.cells[slot] = self.saved.pop(job)
                    self.lengths[slot] = len(self.cells[slot])
                case Drop(job):
                    del self.saved[job]
                case Copy(source, slot):
                    assert source != slot
                    self._pending.append((source, slot))
                    self.lengths[slot] = self.lengths[source]
                case Trim(slot, length):
                    assert length <= self.lengths[slot], "trimmed to more than there is"
                    self.lengths[slot] = length
        return kept

    def decode(self, feeds: tuple[Feed, ...], owners: dict[int, tuple[bytes, int]]) -> None:
        """Append every feed's tokens; `owners` of taken slots: a tenant and its shared tokens."""
        for source, slot in self._pending:
            self.cells[slot] = list(self.cells[source])
        self._pending.clear()
        for slot, (tenant, shared) in owners.items():
            cells = self.cells[slot] = self.cells[slot][: self.lengths[slot]]
            assert len(cells) == self.lengths[slot], "cells nobody wrote"
            assert all(mine == tenant or public for _, mine, public in cells)
            # A tenant that sent the same tokens may reuse them as its own from now on.
            cells[:] = [(cell[0], tenant, i < shared) for i, cell in enumerate(cells)]
        assert len({feed.slot for feed in feeds}) == len(feeds)
        for feed in feeds:
            cells, (tenant, shared) = self.cells[feed.slot], owners[feed.slot]
            assert len(cells) == feed.position, "a hole or an overlap in the sequence"
            cells += [
                (token, tenant, i < shared) for i, token in enumerate(feed.tokens, feed.position)
            ]
            self.lengths[feed.slot] = len(cells)
            assert 0 < len(cells) <= self.context

    def tokens(self, slot: int) -> list[int]:
        return [cell[0] for cell in self.cells[slot][: self.lengths[slot]]]


def owners_of(batcher: Batcher) -> dict[int, tuple[bytes, int]]:
    """For KvMemory.decode, after a plan was made."""
    return {job.slot: (job.tenant, job.shared) for job in batcher._running.values()}
