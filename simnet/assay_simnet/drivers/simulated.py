"""What one simulated run is made of, whether its cores run bare (fast.py) or in their runtimes
(live.py): chance, keys, links, machines, who watches, and how the whole is seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from assay_coordinator.core.coordinator import Listed
from assay_coordinator.core.records import JobRow
from assay_node.core.parameters import Parameters
from assay_node.core.sealing import Sealing
from assay_protocol.signing import ED25519, Identity, Signer, Verifier
from assay_simnet.drivers.fast_faults import Faults
from assay_simnet.history import History
from assay_simnet.invariants import Checks
from assay_simnet.keyed import KeyedIdentity, KeyedSealing, KeyedVerifier
from assay_simnet.links import Links
from assay_simnet.machines import Machines
from assay_simnet.record import Record
from assay_simnet.scenario import Scenario
from assay_simnet.seeded_sealing import SeededSealing
from assay_simnet.seeds import Streams
from assay_simnet.seen import SeenClient, SeenCoordinator, SeenNode
from assay_simnet.setting import START
from assay_simnet.summary import summary, write_tables

STEP_US: Final = 1_000_000  # of virtual time between two looks at whether to go on
QUIET_US: Final = 5_000_000
_OPEN: Final = ("issued", "pending", "drawn")  # states of a ticket that still waits


class DrivenNode(SeenNode, Protocol):
    """A node as its driver knows it."""

    @property
    def owes(self) -> int: ...  # receipts not booked yet


class Simulated(ABC):
    """A driver adds the clock, the parties, and `run`."""

    coordinator: SeenCoordinator
    nodes: Sequence[DrivenNode]
    clients: Sequence[SeenClient]
    by_key: Mapping[bytes, SeenNode]
    checks: Checks
    faults: Faults

    def __init__(self, scenario: Scenario, seed: int, folder: Path | None) -> None:
        self.scenario, self.seed = scenario, seed
        self.streams = Streams(seed)
        self.history, self.record = History(), Record(folder)
        self._keyed = scenario.signatures == "keyed"
        real = SeededSealing(self.streams.secret("sealing"))
        self.verifier: Verifier = KeyedVerifier() if self._keyed else ED25519
        self.sealing: Sealing = KeyedSealing() if self._keyed else real
        network = scenario.network
        self.links = Links(
            self.streams.stream("network"), network.latency, network.jitter, network.loss
        )
        self.machines = Machines(scenario)
        self.parameters = Parameters(queue_max=scenario.population.queue)
        self.arrivals_end = START + scenario.warm_up + scenario.duration
        self.ends_at = self.arrivals_end + scenario.heal
        self.phase = "warm-up"

    @property
    @abstractmethod
    def now(self) -> int:
        """Microseconds since the epoch."""

    @property
    @abstractmethod
    def events(self) -> int:
        """Handled so far."""

    # ---- what parties need ----

    @property
    def listed(self) -> Listed:
        return self.machines.listed

    def identity(self, name: str) -> Signer:
        """The key of that name."""
        seed = self.streams.secret(f"key {name}")
        return KeyedIdentity(seed) if self._keyed else Identity(seed)

    def secret(self) -> bytes:
        """The chain's."""
        return self.streams.secret("chain")

    # ---- what is seen ----

    @property
    def frauds(self) -> Mapping[str, int]:
        return self.checks.frauds

    @property
    def faults_happened(self) -> int:
        return self.faults.happened

    def summary(self) -> dict[str, Any]:
        return summary(self)

    def write_tables(self, folder: Path) -> None:
        write_tables(self, folder)

    def quiet(self) -> bool:
        """Whether nothing that was begun is still open."""
        if any(client.running for client in self.clients) or any(n.owes for n in self.nodes):
            return False
        return not any(row.state in _OPEN for row in self.coordinator.tables.rows(JobRow))
