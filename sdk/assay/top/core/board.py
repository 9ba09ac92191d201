"""Everything that is watched, from look to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from assay.top.core.network_view import (
    NetworkLook,
    NetworkView,
    listed_nodes,
    network_totals,
    network_view,
)
from assay.top.core.node_view import Look, NodeView, joined, node_view, totals_of
from assay.top.core.pace import Pace

NODES_MAX: Final = 16  # that can be named
SORTS: Final = ("state", "tokens", "jobs", "earned", "node")


@dataclass(frozen=True, slots=True)
class Picture:
    """What is shown at one moment. `at`: microseconds since the epoch."""

    at: int
    nodes: tuple[NodeView, ...]
    network: NetworkView | None = None

    def told(self) -> dict[str, Any]:
        """As `assay top --json` prints it."""
        return asdict(self)


class Board:
    """Keeps what rates are made of: some steps of each node that was named, and of the network."""

    def __init__(self, nodes: Sequence[str], coordinator: str | None = None) -> None:
        assert len(nodes) <= NODES_MAX
        self._nodes, self._coordinator = tuple(nodes), coordinator
        self._paces = {source: Pace() for source in self._nodes}
        self._network = Pace()

    def handle(
        self, wall_us: int, looks: Sequence[Look], network: NetworkLook | None = None
    ) -> Picture:
        """One look at each node, in the order they were named, and at the coordinator."""
        rows = []
        for source, look in zip(self._nodes, looks, strict=True):
            totals = None if look.fault else totals_of(look)
            if totals is not None:
                self._paces[source].feed(totals)
            rows.append(node_view(source, look, self._paces[source], wall_us))
        if network is None or self._coordinator is None:
            return Picture(wall_us, tuple(rows))
        if (booked := network_totals(network)) is not None:
            self._network.feed(booked)
        listed = {row.node: row for row in listed_nodes(network)}
        known = [joined(row, listed.pop(row.node)) if row.node in listed else row for row in rows]
        shown = network_view(self._coordinator, network, self._network)
        return Picture(wall_us, (*known, *listed.values()), shown)


def sorted_nodes(nodes: Sequence[NodeView], by: str) -> list[NodeView]:
    """Rows by one of SORTS: most first, what needs a look first, or by key; equal ones as given."""
    keys = {
        "state": lambda row: (_CONCERN.get(row.standing, 2), _CONCERN.get(row.state, 2)),
        "tokens": lambda row: -(row.tokens_out_per_second or 0),
        "jobs": lambda row: -(row.jobs_done or 0),
        "earned": lambda row: -(row.earned or 0),
        "node": lambda row: row.node,
    }
    return sorted(nodes, key=keys[by])


_CONCERN: Final = {
    **dict.fromkeys(("inquiry", "suspended"), 0),
    **dict.fromkeys(("gone", "paused", "draining", "connecting", "probation"), 1),
    **dict.fromkeys(("away", "drained", "convicted"), 3),
}
