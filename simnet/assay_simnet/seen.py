"""A simulated network as it is seen from outside, whichever driver lets it happen.

Checks, summaries, tables and listeners read these and nothing else of a driver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol

from assay_coordinator.core.coordinator import Coordinator
from assay_simnet.cheats import Cheat
from assay_simnet.history import History
from assay_simnet.record import Record
from assay_simnet.scenario import Scenario


class SeenMeter(Protocol):
    """What a node's owner would want to know. Microseconds are of one slot."""

    served_us: float
    replayed_us: float
    jobs: int
    audits: int
    cheated: int
    first_cheat_us: int


class SeenNode(Protocol):
    """A node, with or without a process."""

    number: int
    behaviour: str  # empty: honest
    region: str
    profile: str
    kind: str  # of its arithmetic

    @property
    def key(self) -> bytes: ...
    @property
    def cheat(self) -> Cheat | None: ...
    @property
    def meter(self) -> SeenMeter: ...
    @property
    def slots(self) -> int: ...
    @property
    def saved(self) -> Sized: ...  # receipts on its disk that nobody has booked yet


class SeenClient(Protocol):
    """A client and all its jobs."""

    number: int
    behaviour: str  # empty: honest; a node's, if its owner is its client, too

    @property
    def key(self) -> bytes: ...
    @property
    def running(self) -> int: ...  # jobs not over, and receipts not handed in


class SeenTables(Protocol):
    """What the coordinator has saved."""

    def rows(self, kind: type[Any]) -> Sequence[Any]: ...


class SeenCoordinator(Protocol):
    """The coordinator, which may have been started more than once."""

    @property
    def core(self) -> Coordinator: ...
    @property
    def tables(self) -> SeenTables: ...
    @property
    def starts(self) -> int: ...


class Seen(Protocol):
    """A network of production cores under a virtual clock."""

    @property
    def scenario(self) -> Scenario: ...
    @property
    def now(self) -> int: ...
    @property
    def coordinator(self) -> SeenCoordinator: ...
    @property
    def nodes(self) -> Sequence[SeenNode]: ...
    @property
    def clients(self) -> Sequence[SeenClient]: ...
    @property
    def by_key(self) -> Mapping[bytes, SeenNode]: ...
    @property
    def record(self) -> Record: ...
    @property
    def phase(self) -> str: ...
    @property
    def events(self) -> int: ...  # handled so far
    @property
    def frauds(self) -> Mapping[str, int]: ...  # cheated answers by what became of them
    @property
    def faults_happened(self) -> int: ...


class Driver(Protocol):
    """One run of a scenario at one level. `run` lets it happen; then its figures tell what did."""

    @property
    def scenario(self) -> Scenario: ...
    @property
    def seed(self) -> int: ...
    @property
    def phase(self) -> str: ...  # warm-up, safety, heal, audit
    @property
    def now(self) -> int: ...  # microseconds since the epoch
    @property
    def record(self) -> Record: ...
    @property
    def history(self) -> History: ...
    @property
    def events(self) -> int: ...  # handled so far
    @property
    def nodes(self) -> Sequence[SeenNode]: ...  # none where a level knows only sums

    def run(self, watch: Callable[[Driver], None] | None = None) -> None:
        """All phases. Raises Violated; `watch` is called now and then."""

    def summary(self) -> dict[str, Any]:
        """summary.json: the same for the same scenario, seed and commit."""

    def write_tables(self, folder: Path) -> None:
        """Its tables, closed. The record's lines of jobs are written as they come."""
