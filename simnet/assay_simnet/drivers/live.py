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
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import trio

from assay_node.coordinator import Coordinator
from assay_protocol.messages import CloseEpoch, Grant
from assay_simnet.collecting import few_collections
from assay_simnet.determinism import halting, run_virtual
from assay_simnet.drivers.agenda import Agenda
from assay_simnet.drivers.fast_faults import Faults
from assay_simnet.drivers.live_client import LiveClient
from assay_simnet.drivers.live_coordinator import LiveCoordinator
from assay_simnet.drivers.live_ground import NUMBER
from assay_simnet.drivers.live_node import LiveNode
from assay_simnet.drivers.live_wires import Wires
from assay_simnet.drivers.simulated import QUIET_US, STEP_US, Simulated
from assay_simnet.drivers.traffic import Traffic
from assay_simnet.invariants import Checks, Violated
from assay_simnet.posts import PASS_US, SETTLE_PASSES_MAX
from assay_simnet.raised import violated_by
from assay_simnet.roster import planned, remembered
from assay_simnet.scenario import Scenario
from assay_simnet.schema import ScenarioError
from assay_simnet.seen import Driver
from assay_simnet.setting import GRANT, SECOND, START

_SETTLE_US: Final = 1_000  # until rows that are being committed are


class Live(Simulated):
    """One run. `run` lets it happen; then its parts tell what did."""

    def __init__(self, scenario: Scenario, seed: int, folder: Path | None = None) -> None:
        super().__init__(scenario, seed, folder)
        self.agenda = Agenda()
        self.wires = Wires(self.links, seed)
        self._now: int | None = START  # while it does not run
        self._nursery: trio.Nursery | None = None
        self.checks = Checks(self)
        self.coordinator: LiveCoordinator = LiveCoordinator(self, scenario.policy)
        address = self.wires.known_as(self.coordinator.key, self.coordinator.address)
        self.home = Coordinator(self.coordinator.key, (address,))
        roster = planned(scenario, self.streams)
        self.nodes: list[LiveNode] = [LiveNode(self, plan) for plan in roster.nodes]
        self.clients: list[LiveClient] = [LiveClient(self, plan) for plan in roster.clients]
        self.by_key: dict[bytes, LiveNode] = {node.key: node for node in self.nodes}
        self._numbers = {self.coordinator.key: NUMBER}
        self._numbers |= {node.key: node.number for node in self.nodes}
        self._numbers |= {client.key: client.number for client in self.clients}
        self.faults = Faults(self)
        self.traffic = Traffic(scenario, self.streams, self.agenda, self.nodes, self.clients)

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
        home, policy = self.coordinator, self.scenario.policy
        since = START - home.scheme.age_us
        home.remember(
            [
                remembered(node.key, node.operator, node.verified, policy, START, since)
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
        while self.now < self.ends_at and not self.quiet():
            await self._upto(self.now + QUIET_US, watch)
            for node in self.nodes:  # drained meanwhile, with receipts that nobody took
                if not node.up and node.owes:
                    node.start()
        self.coordinator.order(CloseEpoch())
        await self._upto(self.now + QUIET_US, watch)
        for _ in range(SETTLE_PASSES_MAX):
            if not self.coordinator.chain.posts.open:
                break
            await trio.sleep(PASS_US / SECOND)
        while not self.coordinator.settled:
            await trio.sleep(_SETTLE_US / SECOND)
        self.phase = "audit"
        with halting():
            self.checks.end()
            self.checks.chain(self.coordinator.chain.posts.wrong())

    async def _upto(self, until_us: int, watch: Callable[[Driver], None]) -> None:
        while self.now < until_us:
            await trio.sleep_until((min(until_us, self.now + STEP_US) - START) / SECOND)
            watch(self)

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
