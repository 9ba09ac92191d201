"""The live driver: production's runtimes over libp2p hosts in memory, in virtual time.

Coordinator, nodes and clients are the runtimes that production runs, with their sessions, job
streams, muxers, databases and timers; simulated are the wires between them, what engines compute,
and the chain. Phases are those of fast.py:

    warm-up   everybody joins           safety   jobs arrive, nodes come and go, faults happen
    heal      no more of that, until all that was begun has ended            audit   of the whole

Trio runs it as a function of the seed (determinism.py).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import trio

from assay_coordinator.core.records import JobRow
from assay_node.coordinator import Coordinator
from assay_node.core.parameters import Parameters
from assay_node.core.sealing import Sealing
from assay_protocol.messages import CloseEpoch, Grant
from assay_protocol.signing import ED25519, Identity, Signer, Verifier
from assay_simnet.collecting import few_collections
from assay_simnet.determinism import halting, run_virtual
from assay_simnet.drivers.agenda import Agenda
from assay_simnet.drivers.fast_faults import Faults
from assay_simnet.drivers.live_client import LiveClient
from assay_simnet.drivers.live_coordinator import LiveCoordinator
from assay_simnet.drivers.live_ground import NUMBER
from assay_simnet.drivers.live_node import LiveNode
from assay_simnet.drivers.live_wires import Wires
from assay_simnet.drivers.traffic import Traffic
from assay_simnet.history import History
from assay_simnet.invariants import Checks, Violated
from assay_simnet.keyed import KeyedIdentity, KeyedSealing, KeyedVerifier
from assay_simnet.links import Links
from assay_simnet.machines import Machines
from assay_simnet.raised import violated_by
from assay_simnet.record import Record
from assay_simnet.roster import planned, remembered
from assay_simnet.scenario import Scenario
from assay_simnet.schema import ScenarioError
from assay_simnet.seeded_sealing import SeededSealing
from assay_simnet.seeds import Streams
from assay_simnet.seen import Driver
from assay_simnet.setting import GRANT, SECOND, START
from assay_simnet.summary import summary, write_tables

_STEP_US: Final = 1_000_000  # of virtual time between two looks at whether to go on
_QUIET_US: Final = 5_000_000
_SETTLE_US: Final = 1_000  # until rows that are being committed are


class Live:
    """One run. `run` lets it happen; then its parts tell what did."""

    def __init__(self, scenario: Scenario, seed: int, folder: Path | None = None) -> None:
        self.scenario, self.seed = scenario, seed
        self.streams, self.agenda = Streams(seed), Agenda()
        self.history, self.record = History(), Record(folder)
        keyed = scenario.signatures == "keyed"
        self.verifier: Verifier = KeyedVerifier() if keyed else ED25519
        self.sealing: Sealing = (
            KeyedSealing() if keyed else SeededSealing(self.streams.secret("sealing"))
        )
        network = scenario.network
        self.links = Links(
            self.streams.stream("network"), network.latency, network.jitter, network.loss
        )
        self.wires = Wires(self.links, seed)
        self.machines = Machines(scenario)
        self.parameters = Parameters(queue_max=scenario.population.queue)
        self._now: int | None = START  # while it does not run
        self._nursery: trio.Nursery | None = None
        self.checks = Checks(self)
        self.coordinator = LiveCoordinator(self, scenario.policy)
        address = self.wires.known_as(self.coordinator.key, self.coordinator.address)
        self.home = Coordinator(self.coordinator.key, (address,))
        roster = planned(scenario, self.streams)
        self.nodes = [LiveNode(self, plan) for plan in roster.nodes]
        self.clients = [LiveClient(self, plan) for plan in roster.clients]
        self.by_key = {node.key: node for node in self.nodes}
        self._numbers = {self.coordinator.key: NUMBER}
        self._numbers |= {node.key: node.number for node in self.nodes}
        self._numbers |= {client.key: client.number for client in self.clients}
        self.faults = Faults(self)
        self.traffic = Traffic(scenario, self.streams, self.agenda, self.nodes, self.clients)
        self.arrivals_end = self.traffic.ends
        self.ends_at = self.arrivals_end + scenario.heal
        self.phase = "warm-up"

    # ---- what parties need, and what is seen ----

    @property
    def now(self) -> int:
        return self.agenda.now if self._now is None else self._now

    @property
    def buckets(self) -> Agenda:
        """As the faults call it."""
        return self.agenda

    @property
    def events(self) -> int:
        return self.history.events

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

    def identity(self, name: str) -> Signer:
        seed = self.streams.secret(f"key {name}")
        return KeyedIdentity(seed) if self.scenario.signatures == "keyed" else Identity(seed)

    def secret(self) -> bytes:
        """The chain's."""
        return self.streams.secret("chain")

    def number_of(self, key: bytes) -> int:
        """Whose key it is."""
        return self._numbers[key]

    def spawn(self, task: Callable[..., Awaitable[None]], *args: Any) -> None:
        """A task for as long as the run."""
        assert self._nursery is not None, "it runs"
        self._nursery.start_soon(task, *args)

    def cut_off(self) -> None:
        """A partition began or ended."""
        self.wires.changed()

    # ---- running ----

    def run(self, watch: Callable[[Driver], None] | None = None) -> None:
        """All phases. Raises Violated; `watch` is called once for each second of virtual time."""
        try:
            with _silent_logs(), few_collections():
                run_virtual(self._whole, watch or (lambda _: None), seed=self.seed, start_us=START)
        except (Violated, ScenarioError):
            raise
        except Exception as error:  # whatever production's code is handed, it is not to raise
            raise violated_by(error) from error
        finally:
            self.coordinator.close()
            for node in self.nodes:
                node.close()

    async def _whole(self, watch: Callable[[Driver], None]) -> None:
        self._now = None
        try:
            async with trio.open_nursery() as self._nursery:
                self.spawn(self.agenda.run)
                await self._open()
                await self._phases(watch)
                self._nursery.cancel_scope.cancel()
        finally:
            self._now = self.agenda.now

    async def _open(self) -> None:
        """The coordinator, with all it remembers and is told before anybody joins."""
        home, policy = self.coordinator, self.coordinator.policy
        home.remember(
            [
                remembered(node.key, node.operator, node.verified, policy, START)
                for node in self.nodes
                if node.verified
            ]
        )
        home.start()
        await home.ready.wait()
        for client in self.clients:
            home.order(Grant(account=client.key, amount=GRANT))
            self.spawn(client.live)

    async def _phases(self, watch: Callable[[Driver], None]) -> None:
        scenario = self.scenario
        begins = START + scenario.warm_up
        for node in self.nodes:
            node.start_soon()
        self.traffic.come_and_go()
        self.agenda.after(scenario.checks.every, self._look)
        await self._upto(begins, watch)
        self.phase = "safety"
        self.traffic.ask()
        self.faults.schedule(begins, self.arrivals_end)
        await self._upto(self.arrivals_end, watch)
        self.phase = "heal"
        self.faults.over()
        for node in self.nodes:
            if not node.up:
                node.start()
        while self.now < self.ends_at and not self._quiet():
            await self._upto(self.now + _QUIET_US, watch)
            for node in self.nodes:  # drained meanwhile, with receipts that nobody took
                if not node.up and node.owes:
                    node.start()
        self.coordinator.order(CloseEpoch())
        await self._upto(self.now + _QUIET_US, watch)
        while not self.coordinator.settled:
            await trio.sleep(_SETTLE_US / SECOND)
        self.phase = "audit"
        with halting():
            self.checks.end()

    async def _upto(self, until_us: int, watch: Callable[[Driver], None]) -> None:
        while self.now < until_us:
            await trio.sleep_until((min(until_us, self.now + _STEP_US) - START) / SECOND)
            watch(self)

    def _quiet(self) -> bool:
        """Whether nothing that was begun is still open."""
        if any(client.running for client in self.clients) or any(n.owes for n in self.nodes):
            return False
        waiting = ("issued", "pending", "drawn")
        return not any(row.state in waiting for row in self.coordinator.tables.rows(JobRow))

    def _look(self) -> None:
        home = self.coordinator
        if home.ready.is_set() and not home.down and not home.settled:
            self.agenda.after(_SETTLE_US, self._look)
            return
        if home.ready.is_set() and not home.down:
            with halting():
                self.checks.look()
        self.agenda.after(self.scenario.checks.every, self._look)


@contextmanager
def _silent_logs() -> Iterator[None]:
    """A scenario's faults are no news: what production warns of is expected here."""
    logger = logging.getLogger("assay")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
