"""The fast driver: a whole network of production cores on ticks of virtual time.

Coordinator, nodes and clients' job machines are the classes that production runs; this delivers
what they send, keeps what they save and lets their machines take time. Phases:

    warm-up   everybody joins           safety   jobs arrive, nodes come and go, faults happen
    heal      no more of that, until all that was begun has ended            audit   of the whole
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

from assay_coordinator.core.coordinator import Listed
from assay_coordinator.core.events import Received
from assay_coordinator.core.records import JobRow
from assay_node.core.parameters import Parameters, Served
from assay_node.core.sealing import NaclSealing, Sealing
from assay_protocol.codec import remembering
from assay_protocol.messages import CloseEpoch, Grant
from assay_protocol.signing import ED25519, Identity, Signer, Verifier
from assay_simnet import traces
from assay_simnet.arrivals import Turns, sessions
from assay_simnet.cheats import BEHAVIOURS
from assay_simnet.churn import Always, Churn, Random, Traced, read_trace
from assay_simnet.drivers.buckets import Buckets
from assay_simnet.drivers.fast_client import BREAK_US, FastClient, JobStream
from assay_simnet.drivers.fast_coordinator import FastCoordinator
from assay_simnet.drivers.fast_faults import Faults
from assay_simnet.drivers.fast_node import FastNode
from assay_simnet.drivers.fast_wash import WashClient
from assay_simnet.evidence import CLASSES, VOCABULARY, Answers, Engine
from assay_simnet.history import History
from assay_simnet.invariants import Checks, Violated
from assay_simnet.keyed import KeyedIdentity, KeyedSealing, KeyedVerifier
from assay_simnet.links import Links
from assay_simnet.population import speed
from assay_simnet.record import Record
from assay_simnet.scenario import INVARIANTS, Adversary, Scenario, number_of
from assay_simnet.schema import ScenarioError, read_file
from assay_simnet.seeds import Shares, Stream, Streams
from assay_simnet.seen import Driver
from assay_simnet.setting import GRANT, START
from assay_simnet.summary import summary, write_tables

MODEL: Final = bytes([7]) * 32
_STEP_US: Final = 1_000_000  # of virtual time between two looks at whether to go on
RAISED: Final = "raised"  # what stands for an id where a core raised
_QUIET_US: Final = 5_000_000
_EVENTS_PER_NODE_MAX: Final = 10_000_000
REMEMBERED: Final = 32_768  # messages on their way, to be known again when they arrive
_COLLECTED: Final = (200_000, 20, 100)  # thresholds of collections: cycles are rare here


class Fast:
    """One run. `run` lets it happen; then its parts tell what did."""

    def __init__(self, scenario: Scenario, seed: int, folder: Path | None = None) -> None:
        self.scenario, self.seed = scenario, seed
        self.streams = Streams(seed)
        self.buckets = Buckets(START, scenario.tick)
        self.history, self.record, self.answers = History(), Record(folder), Answers()
        keyed = scenario.signatures == "keyed"
        self.verifier: Verifier = KeyedVerifier() if keyed else ED25519
        self.sealing: Sealing = KeyedSealing() if keyed else NaclSealing()
        network = scenario.network
        self.links = Links(
            self.streams.stream("network"), network.latency, network.jitter, network.loss
        )
        model = scenario.model
        self.speeds = {
            name: speed(one, model.parameters, model.size)
            for name, one in scenario.profiles.items()
        }
        self.engines = {kind: Engine(self.answers, kind) for kind in CLASSES}
        self.parameters = Parameters(queue_max=scenario.population.queue)
        self._served: dict[tuple[str, str], tuple[Served]] = {}
        self.by_key: dict[bytes, FastNode] = {}
        self.clients_by_key: dict[bytes, FastClient] = {}
        self.nodes: list[FastNode] = []
        self.clients: list[FastClient] = []
        self._numbers = count(1)
        self._leaving: dict[int, Churn] = {}
        self._whose = self.streams.stream("whose")
        self.checks = Checks(self)
        self.listed = _listed(scenario)
        self.coordinator = FastCoordinator(self, scenario.policy, self.listed)
        self.faults = Faults(self)
        self.arrivals_end = START + scenario.warm_up + scenario.duration
        self.ends_at = self.arrivals_end + scenario.heal
        self.phase = "warm-up"
        self._populate()

    # ---- what parties need ----

    @property
    def now(self) -> int:
        return self.buckets.now

    @property
    def events(self) -> int:
        return self.buckets.done

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

    def number(self) -> int:
        """A number nobody had before."""
        return next(self._numbers)

    def identity(self, name: str) -> Signer:
        seed = self.streams.secret(f"key {name}")
        return KeyedIdentity(seed) if self.scenario.signatures == "keyed" else Identity(seed)

    def served(self, kind: str, profile: str) -> tuple[Served]:
        """What nodes of one arithmetic and machine serve: one object for all of them."""
        known = self._served.get((kind, profile))
        if known is None:
            pace = self.speeds[profile]
            one = Served(
                model=self.listed.model,
                class_id=f"{kind}/F",
                slots=pace.slots,
                context=self.scenario.model.context,
                n_vocab=VOCABULARY,
                eog=frozenset(),
                prefill_rate=round(1e9 / pace.prefill_us),
                decode_rate=round(1e9 / pace.decode_us),
            )
            known = self._served[kind, profile] = (one,)
        return known

    def secret(self) -> bytes:
        """The chain's."""
        return self.streams.secret("chain")

    def broken(self, stream: JobStream) -> None:
        """A frame will never come: both ends learn it by waiting."""
        self.buckets.after(BREAK_US, stream.client.closed, stream)
        self.buckets.after(BREAK_US, stream.node.lost, stream)

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

    def drained(self, node: FastNode) -> None:
        """It left in order; it is back when its churn says so."""
        node.stop()

    # ---- who is there ----

    def _populate(self) -> None:
        scenario = self.scenario
        population = scenario.population
        cheats = [
            one
            for one in scenario.adversaries
            for _ in range(number_of(one, population.nodes))
            if not BEHAVIOURS[one.behaviour].of_clients
        ]
        draw = self.streams.stream("population")
        order = list(range(population.nodes))
        for place in range(len(cheats)):  # who of them cheats is drawn, too
            other = place + draw.below(len(order) - place)
            order[place], order[other] = order[other], order[place]
        by_place = dict(zip(order, cheats, strict=False))
        for place in range(population.nodes):
            self._add_node(place, draw, by_place.get(place))
        self._add_clients()
        self.coordinator.relearn()
        for client in self.clients:
            grant = Grant(account=client.key, amount=GRANT)
            self.coordinator.handle(Received(self.coordinator.operator, 0, grant))

    def _add_node(self, place: int, draw: Stream, adversary: Adversary | None) -> None:
        population = self.scenario.population
        region = Shares(population.regions).draw(draw)
        profile = Shares(population.profiles).draw(draw)
        kind = Shares(population.classes).draw(draw)
        established = draw.chance(population.established)
        verified = population.verified if established else 0
        owner, owners = f"owner {place}", population.operators
        if owners:
            owner = f"owner {place % owners}"
        if adversary is not None:
            verified = adversary.verified
            owner = f"{adversary.behaviour} {place}"
            if adversary.operators:
                owner = f"{adversary.behaviour} {place % adversary.operators}"
        node = FastNode(
            self,
            self.number(),
            region=region,
            operator=self.identity(owner).public_key,
            kind=kind,
            profile=profile,
            speed=self.speeds[profile],
            behaviour=adversary.behaviour if adversary else "",
            cheat=BEHAVIOURS[adversary.behaviour] if adversary else None,
        )
        if adversary is not None:
            node.cheat_share, node.cheat_after = adversary.cheat, adversary.after
        self.nodes.append(node)
        self.by_key[node.key] = node
        if verified:
            self.coordinator.remember(node.key, node.operator, verified)

    def _add_clients(self) -> None:
        work = self.scenario.workload
        draw = self.streams.stream("clients")
        riders = [
            one.behaviour
            for one in self.scenario.adversaries
            if BEHAVIOURS[one.behaviour].of_clients
            for _ in range(number_of(one, work.clients))
        ]
        for place in range(work.clients):
            region = Shares(self.scenario.population.regions).draw(draw)
            behaviour = riders[place] if place < len(riders) else ""
            self._add_client(FastClient(self, self.number(), region, behaviour))
        for node in self.nodes:
            if node.cheat is not None and node.cheat.buys:
                buyer = WashClient(self, self.number(), node)
                node.buyer = buyer
                self._add_client(buyer)

    def _add_client(self, client: FastClient) -> None:
        self.clients.append(client)
        self.clients_by_key[client.key] = client

    def _churn(self, node: FastNode, rows: list[tuple[int, int]]) -> Churn:
        given = self.scenario.churn
        stream = self.streams.stream(f"churn:{node.number}")
        if given.model == "none":
            return Always()
        if given.model == "trace":
            return Traced(rows, stream.below(len(rows)))
        return Random(
            given.model, stream, given.session_mean, given.away_mean, given.shape, node.region
        )

    # ---- running ----

    def run(self, watch: Callable[[Driver], None] | None = None) -> None:
        """All phases. Raises Violated; `watch` is called once for each second of virtual time."""
        known = 0 if self.scenario.checks.bytes else REMEMBERED
        try:
            with remembering(known), _few_collections():
                self._phases(watch or (lambda _: None))
        except (Violated, ScenarioError):
            raise
        except Exception as error:  # of a core: whatever it is handed, it is not to raise
            raise Violated(_ident(error), _where(error)) from error

    def _phases(self, watch: Callable[[Driver], None]) -> None:
        scenario = self.scenario
        begins = START + scenario.warm_up
        given = scenario.churn
        rows = read_trace(read_file(Path(given.trace))) if given.model == "trace" else []
        for node in self.nodes:
            node.start()
            churn = self._leaving[node.number] = self._churn(node, rows)
            stays = churn.stays_us(self.now)
            if stays is not None:
                self.buckets.at(begins + stays, self._leave, node)
        self.buckets.after(scenario.checks.every, self._look)
        self._upto(begins, watch)
        self.phase = "safety"
        self._arrive(sessions(scenario.workload, self.streams.stream("workload"), self._trace()))
        self.faults.schedule(begins, self.arrivals_end)
        self._upto(self.arrivals_end, watch)
        self.phase = "heal"
        self.faults.over()
        for node in self.nodes:
            if node.core is None:
                node.start()
        while self.now < self.ends_at and not self._quiet():
            self._upto(self.now + _QUIET_US, watch)
            for node in self.nodes:  # drained meanwhile, with receipts that nobody took
                if node.core is None and node.owes:
                    node.start()
        self.coordinator.handle(Received(self.coordinator.operator, 0, CloseEpoch()))
        self._upto(self.now + _QUIET_US, watch)
        self.phase = "audit"
        self.checks.end()

    def _upto(self, until_us: int, watch: Callable[[Driver], None]) -> None:
        most = _EVENTS_PER_NODE_MAX * (len(self.nodes) + len(self.clients))
        while self.now < until_us:
            self.buckets.run(min(until_us, self.now + _STEP_US))
            assert self.buckets.done < most, "events never end"
            watch(self)

    def _quiet(self) -> bool:
        """Whether nothing that was begun is still open."""
        if any(client.running for client in self.clients) or any(n.owes for n in self.nodes):
            return False
        waiting = ("issued", "pending", "drawn")
        return not any(row.state in waiting for row in self.coordinator.tables.rows(JobRow))

    def _look(self) -> None:
        if not self.coordinator.down:
            self.checks.look()
        self.buckets.after(self.scenario.checks.every, self._look)

    def _trace(self) -> list[traces.Ask]:
        work = self.scenario.workload
        if work.arrivals != "trace":
            return []
        return traces.load(work.trace, None if work.trace_file == "-" else Path(work.trace_file))

    def _arrive(self, coming: Iterator[Turns]) -> None:
        """The next session, at its time; then the one after it."""
        turns = next(coming, None)
        if turns is None:
            return
        at = START + self.scenario.warm_up + turns.at_us
        if at < self.arrivals_end:
            self.buckets.at(at, self._session, turns, coming)

    def _session(self, turns: Turns, coming: Iterator[Turns]) -> None:
        if turns.asks[0].session:  # a trace's own: one client each
            place = sum(turns.asks[0].session.encode()) % self.scenario.workload.clients
        else:
            place = self._whose.below(self.scenario.workload.clients)
        self.clients[place].begin(turns)
        self._arrive(coming)

    def _leave(self, node: FastNode) -> None:
        """One node's stay is over; it comes back, until the heal phase."""
        if self.now >= self.arrivals_end:
            return
        churn = self._leaving[node.number]
        stream = self.streams.stream(f"leaves:{node.number}:{self.now}")
        if node.core is not None:
            if stream.chance(self.scenario.churn.clean):
                node.drain()
            else:
                node.stop()
        self.buckets.after(churn.away_us(self.now), self._return, node)

    def _return(self, node: FastNode) -> None:
        if node.core is not None and node.core.draining:
            node.stop()
        if node.core is None:
            node.start()
        stays = self._leaving[node.number].stays_us(self.now)
        if stays is not None:
            self.buckets.after(stays, self._leave, node)


@contextmanager
def _few_collections() -> Iterator[None]:
    """Spare the collector a walk over all parties every few thousand events."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_COLLECTED)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _listed(scenario: Scenario) -> Listed:
    model = scenario.model
    return Listed(
        name="simulated",
        model=MODEL,
        card=bytes(32),
        context=model.context,
        price_in=model.price_in,
        price_out=model.price_out,
    )


def _ident(error: Exception) -> str:
    """The id that a core's own assertion names, if it does."""
    head = str(error).split(":", 1)[0]
    return head if head in INVARIANTS else RAISED


def _where(error: Exception) -> str:
    """What was raised, and by which line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} in {place}: {error}"
