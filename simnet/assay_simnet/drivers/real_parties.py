"""Who takes part in a real run, as checks and tables see them: nodes, clients, the coordinator.

The coordinator's core is made again from its database once its process has ended, as a restart
would make it: what was not saved is not there.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, select

from assay_coordinator.adapters.store import Store, open_engine
from assay_coordinator.adapters.tables import TABLES
from assay_coordinator.core.coordinator import Coordinator
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import EpochRow, JobRow, NodeRow
from assay_protocol.signing import Identity
from assay_simnet.cheats import BEHAVIOURS, Cheat
from assay_simnet.drivers.meter import Meter
from assay_simnet.roster import PlannedClient, PlannedNode

WAITING: Final = ("issued", "pending", "drawn")  # states of jobs that something still happens to
_TICKS_PER_SECOND: Final = 100  # USER_HZ: the same on every Linux


class RealNode:
    """One node's process, by name."""

    kind = "llama.cpp"  # of its arithmetic: the engine's, none that was recorded

    def __init__(self, plan: PlannedNode, seed: bytes, operator: bytes, slots: int) -> None:
        self.plan, self.seed, self.operator, self.slots = plan, seed, operator, slots
        self.number, self.behaviour = plan.number, plan.behaviour
        self.region, self.profile = plan.region, plan.profile
        self.name = f"node-{plan.number}"
        self.key = Identity(seed).public_key
        self.meter = Meter()  # `served_us`: processor time, audits included
        self.saved: tuple[bytes, ...] = ()  # its disk is its own, and not looked into

    @property
    def cheat(self) -> Cheat | None:
        return BEHAVIOURS[self.behaviour] if self.behaviour else None


class RealClient:
    """One account; its jobs run in this process."""

    def __init__(self, plan: PlannedClient, seed: bytes) -> None:
        self.plan, self.seed, self.number = plan, seed, plan.number
        self.key = Identity(seed).public_key
        self.behaviour = plan.behaviour
        self.running = 0  # jobs


class SavedTables:
    """The coordinator's database, read whenever it is asked for."""

    def __init__(self, url: str) -> None:
        self._url = url

    def rows(self, kind: type[Any]) -> Sequence[Any]:
        with closing(Store(self._url)) as store:
            return store.rows(kind)


@dataclass(slots=True)
class RealCoordinator:
    """What its database says. `starts` counts as the virtual drivers do: 2 without a crash."""

    core: Coordinator
    tables: SavedTables
    starts: int = 2


def read_back(url: str, seed: bytes, policy: Policy) -> RealCoordinator:
    """The coordinator that a start over this database would be. Raises AssayError."""
    core = Coordinator(policy, {}, Identity(seed), secrets.token_bytes(32))
    now = time.time_ns() // 1000
    with closing(Store(url)) as store:
        core.restore(now, store.load(now))
    return RealCoordinator(core, SavedTables(url))


def remember(url: str, rows: Sequence[NodeRow]) -> None:
    """Nodes that were here before, saved before the coordinator first starts."""
    with closing(Store(url)) as store:
        store.commit(rows)


def undecided(url: str) -> int:
    """Jobs that wait for a receipt, a draw or a verdict, in the database of a running process."""
    return _count(url, JobRow, TABLES[JobRow].c.state.in_(WAITING))


def unposted(url: str) -> int:
    """Epochs whose root is not on the chain yet."""
    return _count(url, EpochRow, TABLES[EpochRow].c.state != "posted")


def _count(url: str, kind: type[Any], where: Any) -> int:
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            counted = select(func.count()).select_from(TABLES[kind]).where(where)
            return int(connection.execute(counted).scalar_one())
    finally:
        engine.dispose()


def processor_us(pid: int) -> int:
    """Processor time of a process and those it started, in microseconds (Linux; else 0)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        threads = [thread / "children" for thread in Path(f"/proc/{pid}/task").iterdir()]
        started = " ".join(listed.read_text() for listed in threads).split()
    except OSError:
        return 0
    own = (int(fields[11]) + int(fields[12])) * (1_000_000 // _TICKS_PER_SECOND)
    return own + sum(processor_us(int(one)) for one in started)
