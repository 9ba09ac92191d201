"""Level real: separate OS processes on loopback, a model that runs, and wall time.

Coordinator and nodes are the commands an operator types; clients are the SDK in this process. The
same streams of chance as at the virtual levels say who is there, who asks what when, and what
breaks. What the machine decides (speeds, latencies, what an auditor finds) is the machine's: no two
runs are alike to the microsecond. Times are microseconds of the run, as if the first job could come
at the end of the scenario's warm-up.
"""

from __future__ import annotations

import atexit
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Any, Final

import trio

from assay import AsyncClient
from assay_coordinator.adapters.check import check_books
from assay_coordinator.core.events import Log
from assay_coordinator.core.policy import Policy
from assay_coordinator.operator import ask
from assay_protocol.errors import AssayError
from assay_protocol.keyfile import format_key
from assay_protocol.messages import Account, CloseEpoch, EpochClosed, Grant
from assay_protocol.signing import Identity
from assay_simnet import traces
from assay_simnet.arrivals import Turns, sessions
from assay_simnet.drivers.real import POLL_SECONDS, RealNetwork, real_network
from assay_simnet.drivers.real_client import Asker
from assay_simnet.drivers.real_faults import COORDINATOR, Faults
from assay_simnet.drivers.real_model import THREADS, RealModel, cheaper, prepare
from assay_simnet.drivers.real_parties import (
    RealClient,
    RealCoordinator,
    RealNode,
    processor_us,
    read_back,
    remember,
    undecided,
    unposted,
)
from assay_simnet.history import History
from assay_simnet.invariants import RAISED, Violated
from assay_simnet.record import Record
from assay_simnet.roster import planned, remembered
from assay_simnet.scenario import Scenario
from assay_simnet.seeds import Streams
from assay_simnet.seen import Driver
from assay_simnet.setting import GRANT, START
from assay_simnet.summary import summary, write_tables

PROCESSES: Final = "processes"  # in the run's folder: logs, keys and databases
POST_SECONDS_MAX: Final = 30.0  # for the last epoch's root to be on the chain
WATCH_SECONDS: Final = 0.5
_NOT_IN_FILES: Final = frozenset({"operators", "links", "treasury"})


class Real:
    """One run. `run` lets it happen; then its parts tell what did."""

    def __init__(self, scenario: Scenario, seed: int, folder: Path | None = None) -> None:
        self.scenario, self.seed = scenario, seed
        self.streams = Streams(seed)
        self.history, self.record = History(), Record(folder)
        self.phase = "warm-up"
        self.frauds: Mapping[str, int] = {}  # who cheated on what, no process tells
        roster = planned(scenario, self.streams)
        secret = self.streams.secret
        self.nodes: list[RealNode] = [
            RealNode(
                plan,
                secret(f"key {plan.key_name}"),
                Identity(secret(f"key {plan.owner}")).public_key,
                scenario.profiles[plan.profile].slots,
            )
            for plan in roster.nodes
        ]
        self.clients = [RealClient(plan, secret(f"key {plan.key_name}")) for plan in roster.clients]
        self.by_key = {node.key: node for node in self.nodes}
        self._by_name = {node.name: node for node in self.nodes}
        self._folder = folder
        self._home = Path()  # of the processes: logs, keys, databases
        self._late = False
        self._coordinator_seed = secret("key coordinator")
        self._operator_seed = secret("key operator")
        self.policy = scenario.policy
        self.coordinator: RealCoordinator
        self._starts = 0
        self._begins_s: float | None = None  # of trio's clock: the safety phase
        self._ended_us = 0
        self._faults = Faults(scenario, self.streams, _Hands(self))
        self.network: RealNetwork
        self._model: RealModel
        self._askers: dict[int, Asker] = {}
        self._wall_offset_us = 0  # from the machine's clock to the run's
        self._whose = self.streams.stream("whose")

    # ---- what is seen ----

    @property
    def now(self) -> int:
        """Microseconds of the run. The warm-up takes as long as it takes, at most its time."""
        if self._ended_us or self._begins_s is None:
            return self._ended_us or START
        passed = (trio.current_time() - self._begins_s) * 1e6
        return START + self.scenario.warm_up + math.floor(passed)

    @property
    def events(self) -> int:
        return self.history.events

    @property
    def faults_happened(self) -> int:
        return self._faults.happened

    def summary(self) -> dict[str, Any]:
        """As at every level, but for what only a simulation knows."""
        told = summary(self)
        spent = sum(node.meter.served_us for node in self.nodes)
        threads = len(self.nodes) * THREADS
        told["utilisation"] = round(spent / (threads * self.scenario.duration), 4)
        told["verification"]["compute_share"] = None
        return told

    def write_tables(self, folder: Path) -> None:
        write_tables(self, folder)

    # ---- running ----

    def run(self, watch: Callable[[Driver], None] | None = None) -> None:
        """All phases. Raises Violated where a process failed or the books are not in order."""
        failure: BaseException | None = None
        self._home = self._make_home()
        try:
            self._prepare()
            trio.run(self._main, watch or (lambda _: None))
        except* KeyboardInterrupt:
            failure = KeyboardInterrupt()
        except* (AssayError, trio.TooSlowError) as group:
            failure = Violated(RAISED, "; ".join(str(one) or repr(one) for one in _leaves(group)))
        self._read_back()
        if failure is not None:
            raise failure
        if self._late:
            raise Violated("P1", f"{undecided(self._url)} jobs wait, the heal phase is over")
        self.phase = "audit"
        for finding in check_books(self._url):
            ident, _, why = finding.partition(": ")
            raise Violated(ident, why)

    def _make_home(self) -> Path:
        """In the run's folder; without one it is gone with this process."""
        if self._folder is None:
            temporary = tempfile.mkdtemp(prefix="assay-real-")
            atexit.register(shutil.rmtree, temporary, ignore_errors=True)
            return Path(temporary)
        home = (self._folder / PROCESSES).resolve()
        home.mkdir(mode=0o700)
        return home

    @property
    def _url(self) -> str:
        return f"sqlite:///{self._home / COORDINATOR / 'coordinator.db'}"

    async def _main(self, watch: Callable[[Driver], None]) -> None:
        with trio.open_signal_receiver(SIGTERM) as signals:
            async with real_network(self._home) as network, trio.open_nursery() as nursery:
                self.network = network
                nursery.start_soon(_interrupt, signals)
                nursery.start_soon(self._watch, watch)
                try:
                    await self._phases()
                finally:
                    for name in self._by_name:
                        self.meter(name)
                    self._ended_us = self.now
                nursery.cancel_scope.cancel()

    async def _phases(self) -> None:
        await self._start_coordinator()
        for node in self.nodes:  # one after another: each measures itself before it joins
            await self._start_node(node)
            await self.network.wait_present([node.name])
        async with AsyncExitStack() as stack:
            await self._connect(stack)
            self._begins_s = trio.current_time()
            run_now = START + self.scenario.warm_up
            self._wall_offset_us = run_now - time.time_ns() // 1000
            for name in self._by_name:  # starting and measuring itself is not serving
                self.meter(name, sign=-1)
            self.phase = "safety"
            with trio.move_on_at(self._begins_s + self._all_seconds) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._faults_then_heal)
                    await self._arrive(nursery)
                await self._settle()
            self._late = scope.cancelled_caught

    @property
    def _all_seconds(self) -> float:
        return (self.scenario.duration + self.scenario.heal) / 1e6

    async def _settle(self) -> None:
        """Everything that was begun ends, the epoch is closed and its root posted."""
        while await trio.to_thread.run_sync(undecided, self._url):
            self._check_alive()
            await trio.sleep(POLL_SECONDS)
        await ask(self._operator_seed, self.network.address, CloseEpoch(), EpochClosed)
        with trio.move_on_after(POST_SECONDS_MAX):
            while await trio.to_thread.run_sync(unposted, self._url):
                await trio.sleep(POLL_SECONDS)

    async def _faults_then_heal(self) -> None:
        assert self._begins_s is not None
        await self._faults.carry_out(self._begins_s)
        await trio.sleep_until(self._begins_s + self.scenario.duration / 1e6)
        self.phase = "heal"
        await self._faults.over()

    async def _watch(self, watch: Callable[[Driver], None]) -> None:
        while True:
            watch(self)
            await trio.sleep(WATCH_SECONDS)

    def _check_alive(self) -> None:
        for name in (COORDINATOR, *self._by_name):
            if name in self.network.processes:
                self.network.check_alive(name)

    # ---- jobs ----

    async def _arrive(self, nursery: trio.Nursery) -> None:
        """Sessions at their times, as at the virtual levels."""
        assert self._begins_s is not None
        work = self.scenario.workload
        for turns in sessions(work, self.streams.stream("workload"), self._trace()):
            if turns.at_us >= self.scenario.duration:
                return
            await trio.sleep_until(self._begins_s + turns.at_us / 1e6)
            named = turns.asks[0].session  # a trace's own: one client each
            place = sum(named.encode()) if named else self._whose.word()
            client = self.clients[place % len(self.clients)]
            nursery.start_soon(self._session, client, turns)

    async def _session(self, client: RealClient, turns: Turns) -> None:
        asker = self._askers[client.number]
        for place, one in enumerate(turns.asks):
            if place:
                await trio.sleep(turns.pauses_us[place - 1] / 1e6)
            if self.phase != "safety":
                return
            self.history.note(self.now, client.number, 0, "begin")
            line = await asker.ask(one, self.record, self.by_key)
            self.history.note(self.now, client.number, 0, "end", line.finish.encode())

    def _trace(self) -> list[traces.Ask]:
        work = self.scenario.workload
        if work.arrivals != "trace":
            return []
        return traces.load(work.trace, None if work.trace_file == "-" else Path(work.trace_file))

    # ---- processes ----

    def _prepare(self) -> None:
        """Model, keys, policy, and the nodes that the coordinator is to remember."""
        folder, model = self._home, self.scenario.model
        self._model = prepare(
            folder, price_in=model.price_in, price_out=model.price_out, context=model.context
        )
        for node in self.nodes:
            _write_key(folder / node.name / "node.key", node.seed)
        _write_key(folder / COORDINATOR / "coordinator.key", self._coordinator_seed)
        _write_key(folder / "operator.key", self._operator_seed)
        known = [node for node in self.nodes if node.plan.verified]
        at = time.time_ns() // 1000
        rows = [remembered(n.key, n.operator, n.plan.verified, self.policy, at) for n in known]
        remember(self._url, rows)

    async def _start_coordinator(self) -> None:
        self._starts += 1
        await self.network.start_coordinator(
            _policy_file(self.policy), self._model.card_file, self.policy.faucet
        )
        self.history.note(self.now, 0, 0, "started")

    async def _start_node(self, node: RealNode) -> None:
        more: dict[str, Any] = {"slots": node.slots, "context": self.scenario.model.context}
        more["operator"] = node.operator.hex()
        model = self._model
        if node.behaviour:
            cheap = await trio.to_thread.run_sync(cheaper, model)
            await self.network.start_cheat(node.name, model.card_file, model.file, cheap, **more)
        else:
            await self.network.start_node(node.name, model.card_file, model.file, **more)
        self.history.note(self.now, node.number, 0, "started")

    async def _connect(self, stack: AsyncExitStack) -> None:
        """Each client with its money, and what it needs to know before its first job."""
        for client in self.clients:
            grant = Grant(account=client.key, amount=GRANT)
            await ask(self._operator_seed, self.network.address, grant, Account)
            connecting = AsyncClient.connect(self.network.address, seed=client.seed)
            api = await stack.enter_async_context(connecting)
            await api.count_tokens([{"role": "user", "content": "ready?"}])
            stream = self.streams.stream(client.plan.stream_name)
            verify = self.scenario.workload.verify
            card = self._model.card
            self._askers[client.number] = Asker(client, api, stream, card, verify, lambda: self.now)

    async def start_again(self, name: str) -> None:
        """A process over its files, if there is none."""
        if name in self.network.processes:
            return
        if name == COORDINATOR:
            await self._start_coordinator()
        else:
            await self._start_node(self._by_name[name])

    def meter(self, name: str, sign: int = 1) -> None:
        """Count a node's processor time so far, if it has a process."""
        process = self.network.processes.get(name)
        if process is not None and process.poll() is None:
            self._by_name[name].meter.served_us += sign * processor_us(process.pid)

    # ---- what its processes left ----

    def _read_back(self) -> None:
        """The coordinator's tables, and what it told its operator."""
        (self._home / COORDINATOR).mkdir(exist_ok=True)
        self.coordinator = read_back(self._url, self._coordinator_seed, self.policy)
        self.coordinator.starts = 1 + max(1, self._starts)
        for node in self.nodes:
            known = self.coordinator.core.registry.nodes.get(node.key)
            if known is not None:
                node.meter.jobs, node.meter.audits = known.row.jobs, known.row.audits_done
        for at, log in _logged(self._home / f"{COORDINATOR}.log"):
            self.record.logged(at + self._wall_offset_us, log)


class _Hands:
    """What faults do to a run's processes."""

    def __init__(self, world: Real) -> None:
        self._world = world

    @property
    def names(self) -> Sequence[str]:
        return [n.name for n in self._world.nodes if n.name in self._world.network.processes]

    async def crash(self, name: str) -> None:
        network = self._world.network
        if name in network.processes:
            if name != COORDINATOR:
                self._world.meter(name)
            await network.kill_and_reap(name)

    async def start(self, name: str) -> None:
        await self._world.start_again(name)

    def signal(self, name: str, number: Signals) -> None:
        process = self._world.network.processes.get(name)
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def note(self, what: str) -> None:
        self._world.history.note(self._world.now, -1, -1, what)


async def _interrupt(signals: Any) -> None:
    """A run that is told to end ends as by Ctrl-C: with all its processes."""
    async for _ in signals:
        raise KeyboardInterrupt


def _write_key(path: Path, seed: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(format_key(seed))


def _policy_file(policy: Policy) -> str:
    """The production policy file that says the same."""
    given = {item.name: getattr(policy, item.name) for item in fields(Policy)}
    return "".join(f"{k} = {v}\n" for k, v in given.items() if k not in _NOT_IN_FILES)


def _logged(path: Path) -> Iterator[tuple[int, Log]]:
    """What the coordinator logged, with the machine's time in microseconds."""
    if not path.is_file():
        return
    for line in path.read_text(errors="replace").splitlines():
        try:
            told = json.loads(line)
            at = datetime.fromisoformat(told.pop("timestamp"))
            event = str(told.pop("event"))
        except (ValueError, KeyError, AttributeError):
            continue  # a warning of a library
        told.pop("level", None)
        yield round(at.timestamp() * 1e6), Log(event, tuple(told.items()))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
