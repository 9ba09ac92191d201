"""All nodes at one moment, seen without stopping the loop that serves them.

There may be a hundred thousand. They are looked at a few hundred at a time, with the loop's other
work in between, and what is kept of each is one number: its place in lists. Numbers are nothing
to the garbage collector, which would stop the loop to look at a hundred thousand new objects; and
they are sorted in a thread by bytecode that lets the loop in, not by one long call. At most one
census every FRESH_SECONDS, however many ask, and none if nobody does.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from assay_coordinator.core.coordinator import Coordinator
from assay_coordinator.core.ledger import Ledger
from assay_coordinator.core.records import NodeRow
from assay_coordinator.core.registry import Node
from assay_coordinator.core.standing import CLOSED
from assay_coordinator.dashboard.subject import Subject
from assay_protocol.messages import Offer

SLICE: Final = 256  # nodes between two turns of the loop
FRESH_SECONDS: Final = 2.0
CLOSED_TOLD: Final = 8  # of the nodes that lost their standing, the latest
AWAY: Final = "away"
STATES: Final = ("active", "probation", AWAY, *sorted(CLOSED))
_KEY_BITS: Final = 256
_KEY_MASK: Final = (1 << _KEY_BITS) - 1
_JOBS_MAX: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class SeenNode:
    """One node; credit in micro-credits. `state`: of standing.py, or away without a lease."""

    row: NodeRow
    state: str
    offers: Mapping[bytes, Offer]
    slots: int
    free_slots: int
    running: int
    waiting: int
    draining: bool
    device: str
    region: str | None
    software: str
    earned: int
    escrow: int


@dataclass(slots=True)
class Supply:
    """What the present nodes offer of one model; rates as offered, thousandths of tokens/s."""

    nodes: int = 0
    slots: int = 0
    free_slots: int = 0
    decode_rate_sum: int = 0
    decode_rate_min: int = 0
    decode_rate_max: int = 0

    def add(self, node: Node, offer: Offer) -> None:
        self.nodes += 1
        self.slots += offer.slots
        self.free_slots += node.free_slots
        rate = offer.decode_rate
        self.decode_rate_sum += rate
        self.decode_rate_min = min(rate, self.decode_rate_min) if self.nodes > 1 else rate
        self.decode_rate_max = max(rate, self.decode_rate_max)


@dataclass(slots=True)
class Census:
    """`ranks`: of all nodes, ascending (`rank_of`); `closed`: keys of those that lost their
    standing, the latest first."""

    states: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(STATES, 0)))
    supply: dict[bytes, Supply] = field(default_factory=dict)
    present: int = 0
    slots: int = 0
    free_slots: int = 0
    running: int = 0
    waiting: int = 0
    ranks: list[int] = field(default_factory=list)
    closed: list[bytes] = field(default_factory=list)

    def add(self, node: Node, now: int) -> None:
        """Count one node."""
        state = state_of(node, now)
        self.states[state] += 1
        if not node.present(now):
            return
        self.present += 1
        if state in CLOSED:
            return
        self.slots += node.slots
        self.free_slots += node.free_slots
        self.running += node.running
        self.waiting += node.waiting
        for model, offer in node.offers.items():
            self.supply.setdefault(model, Supply()).add(node, offer)


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
        census, slices, closed = Census(), [], []
        for some in _sliced(list(core.registry.nodes.values())):
            for node in some:
                census.add(node, now)
            slices.append(sorted(rank_of(node, now) for node in some))
            closed += [_since(node.row) for node in some if node.row.state in CLOSED]
            await trio.lowlevel.checkpoint()
        census.ranks = await trio.to_thread.run_sync(_merged, slices)
        census.closed = [_key(since) for since in heapq.nlargest(CLOSED_TOLD, closed)]
        return census


async def found(
    core: Coordinator, ranks: Sequence[int], first: int, wanted: Callable[[Node], bool], most: int
) -> list[Node]:
    """The first `most` of the nodes of `ranks`, from the index `first` on, that are wanted; with
    turns of the loop between."""
    nodes: list[Node] = []
    for begin in range(first, len(ranks), SLICE):
        for place in ranks[begin : begin + SLICE]:
            node = core.registry.get(_key(place))
            if node is None or not wanted(node):  # a failed commit can take a new one back
                continue
            nodes.append(node)
            if len(nodes) == most:
                return nodes
        await trio.lowlevel.checkpoint()
    return nodes


def rank_of(node: Node, now: int) -> int:
    """Where it stands in lists: who is here first, then by jobs done, then by key."""
    return rank(not node.present(now), node.row.jobs, node.key)


def rank(away: bool, jobs: int, key: bytes) -> int:
    """The rank of a node of which this is so."""
    return ((away << 63 | (_JOBS_MAX - jobs)) << _KEY_BITS) | int.from_bytes(key)


def state_of(node: Node, now: int) -> str:
    """Its standing, or that it is away."""
    return node.row.state if node.present(now) or node.row.state in CLOSED else AWAY


def look(node: Node, ledger: Ledger, now: int) -> SeenNode:
    """What is to be seen of `node` at `now`."""
    key = node.key
    return SeenNode(
        row=node.row,
        state=state_of(node, now),
        offers=node.offers,
        slots=node.slots,
        free_slots=node.free_slots,
        running=node.running,
        waiting=node.waiting,
        draining=node.draining,
        device=node.device,
        region=node.region,
        software=node.software,
        earned=ledger.balance("earned", key),
        escrow=ledger.balance("escrow", key),
    )


def _sliced(nodes: Sequence[Node]) -> Iterable[Sequence[Node]]:
    return (nodes[begin : begin + SLICE] for begin in range(0, len(nodes), SLICE))


def _merged(slices: Sequence[Sequence[int]]) -> list[int]:
    """All of them sorted. `sort` would hold the interpreter's lock until it is done."""
    return list(heapq.merge(*slices))


def _since(row: NodeRow) -> int:
    return row.since << _KEY_BITS | int.from_bytes(row.node)


def _key(number: int) -> bytes:
    return (number & _KEY_MASK).to_bytes(_KEY_BITS // 8)
