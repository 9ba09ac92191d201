"""All nodes at one moment, seen without stopping the loop that serves them.

There may be a hundred thousand. They are looked at a few hundred at a time, with the loop's other
work in between; each look keeps what the core itself never changes in place (a node's row, its
offers), so a slice is cheap and later changes are not half seen. Sorting and counting is done in a
thread. At most one census every FRESH_SECONDS, however many ask, and none if nobody does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from assay_coordinator.core.ledger import Ledger
from assay_coordinator.core.records import NodeRow
from assay_coordinator.core.registry import Node
from assay_coordinator.core.standing import CLOSED
from assay_coordinator.dashboard.subject import Subject
from assay_protocol.messages import Offer

SLICE: Final = 256  # nodes between two turns of the loop
FRESH_SECONDS: Final = 2.0
AWAY: Final = "away"
STATES: Final = ("active", "probation", AWAY, *sorted(CLOSED))


@dataclass(frozen=True, slots=True)
class SeenNode:
    """One node; credit in micro-credits. `state`: of standing.py, or away without a lease."""

    row: NodeRow
    state: str
    present: bool
    offers: Mapping[bytes, Offer]
    slots: int
    free_slots: int
    running: int
    waiting: int
    draining: bool
    device: str
    software: str
    earned: int
    escrow: int

    @property
    def rank(self) -> tuple[int, int, bytes]:
        """Where it stands in lists: who is here first, then by work done."""
        return (0 if self.present else 1, -self.row.jobs, self.row.node)


@dataclass(frozen=True, slots=True)
class Supply:
    """What the present nodes offer of one model; rates as offered, tokens per 1000 s."""

    nodes: int
    slots: int
    free_slots: int
    decode_rates: tuple[int, ...]  # of each node, ascending


@dataclass(frozen=True, slots=True)
class Census:
    """`nodes` in the order of their rank."""

    nodes: tuple[SeenNode, ...]
    states: Mapping[str, int]
    supply: Mapping[bytes, Supply]
    slots: int
    free_slots: int
    running: int
    waiting: int

    @property
    def present(self) -> int:
        return sum(node.present for node in self.nodes)


class CensusTaker:
    """Takes a census when it is asked for and the last one is too old."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._last: Census | None = None
        self._taken_at = -math.inf
        self._taking = trio.Lock()

    async def census(self) -> Census:
        """One that is FRESH_SECONDS old at most."""
        async with self._taking:
            if self._last is None or trio.current_time() - self._taken_at >= FRESH_SECONDS:
                self._last = await self._take()
                self._taken_at = trio.current_time()
            return self._last

    async def _take(self) -> Census:
        core, now = self._subject.core(), self._subject.clock()
        nodes, seen = list(core.registry.nodes.values()), []
        for first in range(0, len(nodes), SLICE):
            seen += [look(node, core.ledger, now) for node in nodes[first : first + SLICE]]
            await trio.lowlevel.checkpoint()
        return await trio.to_thread.run_sync(summed, seen)


def look(node: Node, ledger: Ledger, now: int) -> SeenNode:
    """What is to be seen of `node` at `now`."""
    row, present = node.row, node.present(now)
    return SeenNode(
        row=row,
        state=row.state if present or row.state in CLOSED else AWAY,
        present=present,
        offers=node.offers,
        slots=node.slots,
        free_slots=node.free_slots,
        running=node.running,
        waiting=node.waiting,
        draining=node.draining,
        device=node.device,
        software=node.software,
        earned=ledger.balance("earned", row.node),
        escrow=ledger.balance("escrow", row.node),
    )


def summed(seen: Sequence[SeenNode]) -> Census:
    """The census of these nodes. Takes time: O(n log n)."""
    here = [node for node in seen if node.present and node.state not in CLOSED]
    states = Counter(dict.fromkeys(STATES, 0))
    states.update(node.state for node in seen)
    by_model: dict[bytes, list[tuple[SeenNode, Offer]]] = {}
    for node in here:
        for model, offer in node.offers.items():
            by_model.setdefault(model, []).append((node, offer))
    return Census(
        nodes=tuple(sorted(seen, key=lambda node: node.rank)),
        states=states,
        supply={model: _supply(pairs) for model, pairs in by_model.items()},
        slots=sum(node.slots for node in here),
        free_slots=sum(node.free_slots for node in here),
        running=sum(node.running for node in here),
        waiting=sum(node.waiting for node in here),
    )


def _supply(pairs: Sequence[tuple[SeenNode, Offer]]) -> Supply:
    return Supply(
        nodes=len(pairs),
        slots=sum(offer.slots for _, offer in pairs),
        free_slots=sum(node.free_slots for node, _ in pairs),
        decode_rates=tuple(sorted(offer.decode_rate for _, offer in pairs)),
    )
