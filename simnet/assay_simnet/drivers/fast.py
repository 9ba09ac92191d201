"""The fast driver: a whole network of production cores on ticks of virtual time.

Coordinator, nodes and clients' job machines are the classes that production runs; this delivers
what they send, keeps what they save and lets their machines take time. Phases:

    warm-up   everybody joins           safety   jobs arrive, nodes come and go, faults happen
    heal      no more of that, until all that was begun has ended            audit   of the whole
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final

from assay_coordinator.core.events import Received
from assay_protocol.codec import remembering
from assay_protocol.messages import CloseEpoch, Grant
from assay_simnet.collecting import few_collections
from assay_simnet.drivers.buckets import Buckets
from assay_simnet.drivers.fast_client import FastClient
from assay_simnet.drivers.fast_coordinator import FastCoordinator
from assay_simnet.drivers.fast_faults import Faults
from assay_simnet.drivers.fast_node import FastNode
from assay_simnet.drivers.fast_wash import WashClient
from assay_simnet.drivers.simulated import QUIET_US, STEP_US, Simulated
from assay_simnet.drivers.traffic import Traffic
from assay_simnet.invariants import Checks, Violated
from assay_simnet.raised import violated_by
from assay_simnet.roster import planned
from assay_simnet.scenario import Scenario
from assay_simnet.schema import ScenarioError
from assay_simnet.seen import Driver
from assay_simnet.setting import GRANT, START

_EVENTS_PER_NODE_MAX: Final = 10_000_000
REMEMBERED: Final = 32_768  # messages on their way, to be known again when they arrive


class Fast(Simulated):
    """One run. `run` lets it happen; then its parts tell what did."""

    def __init__(self, scenario: Scenario, seed: int, folder: Path | None = None) -> None:
        super().__init__(scenario, seed, folder)
        self.buckets = Buckets(START, scenario.tick)
        self.by_key: dict[bytes, FastNode] = {}
        self.clients_by_key: dict[bytes, FastClient] = {}
        self.nodes: list[FastNode] = []
        self.clients: list[FastClient] = []
        self.checks = Checks(self)
        self.coordinator: FastCoordinator = FastCoordinator(self, scenario.policy, self.listed)
        self.faults = Faults(self)
        self.traffic = Traffic(scenario, self.streams, self.buckets, self.nodes, self.clients)
        self._populate()

    # ---- what parties need ----

    @property
    def now(self) -> int:
        return self.buckets.now

    @property
    def events(self) -> int:
        return self.buckets.done

    def number(self) -> int:
        """A number nobody had before."""
        return next(self._numbers)

    def cut_off(self) -> None:
        """A partition began or ended: sessions across it break, and are made again."""
        home = self.coordinator.region
        for node in self.nodes:
            reaches = self.links.reaches(node.region, home) and self.links.reaches(
                home, node.region
            )
            if node.connected and not reaches:
                node.session_lost()
                self.coordinator.lost(node.key)
                node.reconnect_soon()

    def _populate(self) -> None:
        roster = planned(self.scenario, self.streams)
        self._numbers = count(roster.next_number)
        for plan in roster.nodes:
            node = FastNode(self, plan)
            self.nodes.append(node)
            self.by_key[node.key] = node
            if plan.verified:
                self.coordinator.remember(node.key, node.operator, plan.verified)
        sellers = {node.number: node for node in self.nodes}
        for each in roster.clients:
            client = FastClient(self, each)
            if each.buys_from:
                seller = sellers[each.buys_from]
                client = buyer = WashClient(self, each, seller)
                seller.sells_to(buyer)
            self.clients.append(client)
            self.clients_by_key[client.key] = client
        self.coordinator.relearn()
        for client in self.clients:
            grant = Grant(account=client.key, amount=GRANT)
            self.coordinator.handle(Received(self.coordinator.operator, 0, grant))

    # ---- running ----

    def run(self, watch: Callable[[Driver], None] | None = None) -> None:
        """All phases. Raises Violated; `watch` is called once for each second of virtual time."""
        known = 0 if self.scenario.checks.bytes else REMEMBERED
        try:
            with remembering(known), few_collections():
                self._phases(watch or (lambda _: None))
        except (Violated, ScenarioError):
            raise
        except Exception as error:  # of a core: whatever it is handed, it is not to raise
            raise violated_by(error) from error

    def _phases(self, watch: Callable[[Driver], None]) -> None:
        scenario = self.scenario
        begins = START + scenario.warm_up
        for node in self.nodes:
            node.start()
        self.traffic.come_and_go()
        self.buckets.after(scenario.checks.every, self._look)
        self._upto(begins, watch)
        self.phase = "safety"
        self.traffic.ask()
        self.faults.schedule(begins, self.arrivals_end)
        self._upto(self.arrivals_end, watch)
        self.phase = "heal"
        self.faults.over()
        for node in self.nodes:
            if node.core is None:
                node.start()
        while self.now < self.ends_at and not self.quiet():
            self._upto(self.now + QUIET_US, watch)
            for node in self.nodes:  # drained meanwhile, with receipts that nobody took
                if node.core is None and node.owes:
                    node.start()
        self.coordinator.handle(Received(self.coordinator.operator, 0, CloseEpoch()))
        self._upto(self.now + QUIET_US, watch)
        self.phase = "audit"
        self.coordinator.settle()
        self.checks.end()
        self.checks.chain(self.coordinator.posts.wrong())

    def _upto(self, until_us: int, watch: Callable[[Driver], None]) -> None:
        most = _EVENTS_PER_NODE_MAX * (len(self.nodes) + len(self.clients))
        while self.now < until_us:
            self.buckets.run(min(until_us, self.now + STEP_US))
            assert self.buckets.done < most, "events never end"
            watch(self)

    def _look(self) -> None:
        if not self.coordinator.down:
            self.checks.look()
        self.buckets.after(self.scenario.checks.every, self._look)
