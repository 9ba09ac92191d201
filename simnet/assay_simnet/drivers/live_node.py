"""A node of the live driver: production's runtime, sessions, job streams and receipt store.

Its engine is live_engine.py. What survives its process is its receipt store, SQLite in memory. What
a behaviour does otherwise it does at the edge of the core, where messages enter and effects leave.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import trio

from assay_network.host import Host
from assay_node.coordinator import Coordinator
from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.node import Node, Profile
from assay_node.core.outbox import Owed
from assay_node.core.parameters import Parameters
from assay_node.engine.interface import Chunk, Engine, EngineInfo, Generate, Replay, Replayed
from assay_node.engines import open_engines
from assay_node.runtime import NodeRuntime
from assay_node.store import Mark, ReceiptStore, Saved
from assay_protocol.codec import decode_as
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.messages import NetworkRules, StartJob, Ticket
from assay_protocol.signing import peek
from assay_simnet import evidence
from assay_simnet.cheats import Cheat
from assay_simnet.determinism import halting
from assay_simnet.drivers.fast_conduct import Conduct
from assay_simnet.drivers.fast_node import RECONNECT_US
from assay_simnet.drivers.live_engine import LiveEngine
from assay_simnet.drivers.live_ground import NUMBER, LiveGround
from assay_simnet.drivers.meter import Meter
from assay_simnet.roster import PlannedNode, entropy_name

_IN_MEMORY = Path(":memory:")


class NodeWorld(LiveGround, Protocol):
    """What a node needs beyond."""

    parameters: Parameters

    @property
    def home(self) -> Coordinator:
        """Where the coordinator is."""
        ...


class _Disk(ReceiptStore):
    """Its receipts; full for a while, if a fault says so."""

    full = False

    def write(self, saves: Iterable[Saved], marks: Iterable[Mark]) -> None:
        if self.full:
            raise AssayError("disk_full", "a fault of the scenario")
        super().write(saves, marks)


class _Core(Node):
    """The production core; its node looks at what enters and leaves."""

    __slots__ = ("owner",)
    owner: LiveNode

    def handle(self, now: int, event: on.Event) -> list[do.Effect]:
        with halting():
            hidden = self.owner.hears(event)
            if hidden is not None:
                return hidden
            return self.owner.does(super().handle(now, event))


@dataclass(slots=True)
class _Process:
    """One start of the node."""

    core: _Core
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    runtime: NodeRuntime | None = None
    engine: LiveEngine | None = None


class LiveNode:
    """One node for as long as the scenario runs, with and without a process."""

    def __init__(self, ground: NodeWorld, plan: PlannedNode) -> None:
        self._ground, self._plan, self.number, self.region = ground, plan, plan.number, plan.region
        self.kind, self.profile, self.behaviour = plan.kind, plan.profile, plan.behaviour
        self.verified = plan.verified  # audits it passed before anything happens
        self.speed = ground.machines.speeds[plan.profile]
        self.signer = ground.identity(plan.key_name)
        self.operator = ground.identity(plan.owner).public_key
        self.address = ground.wires.place(self.key, self.region)
        self.meter, self._disk = Meter(), _Disk(_IN_MEMORY)
        self._evidence = ground.machines.engines[plan.kind]
        self._stream = ground.streams.stream(plan.stream_name)
        self._conduct = None
        if plan.behaviour:
            answers = ground.machines.answers
            self._conduct = Conduct(plan, self.signer, self._stream, answers)
        self._starts = 0
        self._process: _Process | None = None
        self._alone = trio.Lock()
        self._clock_us, self._drift_ppm, self._drifts_from = 0, 0, 0
        self._flip_next = False  # a bit of its next answer
        self._opened: dict[int, tuple[int, bytes]] = {}  # by job stream: whose, for which ticket
        self._made: dict[tuple[bytes, int], tuple[str, float]] = {}  # by seed and start: see made

    @property
    def key(self) -> bytes:
        return self.signer.public_key

    @property
    def now(self) -> int:
        """By its own clock."""
        now = self._ground.now
        return now + self._clock_us + (now - self._drifts_from) * self._drift_ppm // 1_000_000

    @property
    def cheat(self) -> Cheat | None:
        """How it breaks the rules, if it does."""
        return self._conduct.cheat if self._conduct is not None else None

    @property
    def core(self) -> Node | None:
        return self._process.core if self._process is not None else None

    @property
    def up(self) -> bool:
        """Whether it has a process."""
        return self._process is not None

    @property
    def draining(self) -> bool:
        return self.core is not None and self.core.draining

    @property
    def slots(self) -> int:
        return self.speed.slots

    @property
    def saved(self) -> list[Owed]:
        """Receipts on its disk that nobody has booked yet."""
        return self._disk.owed()

    @property
    def owes(self) -> int:
        """Receipts not booked yet, in its process or on its disk."""
        return self.core.receipts_owed if self.core is not None else len(self.saved)

    # ---- life ----

    def start_soon(self) -> None:
        """Within a few seconds, each node in a moment of its own."""
        self._ground.agenda.after(self._stream.below(RECONNECT_US), self._start_late)

    def _start_late(self) -> None:
        if not self.up:
            self.start()

    def start(self) -> None:
        """A process over its disk, which joins as soon as it can."""
        assert not self.up
        self._starts += 1
        process = self._process = _Process(self._make_core())
        self._ground.spawn(self._live, process)

    def stop(self) -> None:
        """The process is gone without a word: clients' streams break, its session ends."""
        process, self._process = self._process, None
        if process is not None:
            self._ground.wires.thaw(self.key)
            self._ground.wires.kill(self.key)
            process.scope.cancel()

    def drain(self) -> None:
        """Its owner wants to leave; it is gone when all is done that it had begun."""
        assert self._process is not None
        if self._process.runtime is not None:
            self._process.runtime.post(on.Drain())
        else:
            self.stop()

    def close(self) -> None:
        """The run is over."""
        self._disk.close()

    def _make_core(self) -> _Core:
        ground = self._ground
        core = _Core(
            signer=self.signer,
            coordinator=ground.home.key,
            served=ground.machines.served(self.kind, self.profile),
            profile=Profile(
                self.operator,
                (ground.wires.known_as(self.key, self.address),),
                "simnet",
                self.profile,
            ),
            seed=ground.streams.secret(entropy_name(self.number, self._starts)),
            parameters=ground.parameters,
            sealing=ground.sealing,
            verifier=ground.verifier,
            owed=self._disk.owed(),
            used=self._disk.used_tickets(self.now),
        )
        core.owner = self
        return core

    async def _live(self, process: _Process) -> None:
        async with self._alone:  # the process before it has let go of the address
            with process.scope:
                async with self._ground.wires.host(self.key, self.address) as host:
                    await self._serve(process, host)
        if self._process is process:  # it drained
            self._process = None

    async def _serve(self, process: _Process, host: Host) -> None:
        @asynccontextmanager
        async def open_engine() -> AsyncIterator[Engine]:
            process.engine = LiveEngine(self._info(), self.speed, self, self.meter)
            yield process.engine

        ground = self._ground
        self._opened, self._made = {}, {}
        async with open_engines() as engines:
            await engines.add(open_engine)
            process.runtime = NodeRuntime(
                process.core,
                host=host,
                engines=engines,
                store=self._disk,
                coordinator=ground.home,
                clock=lambda: self.now,
                tick_seconds=ground.parameters.tick_us / 1e6,
                keep_rules=_keep_rules,
            )
            await process.runtime.run()

    def _info(self) -> EngineInfo:
        served = self._ground.machines.served(self.kind, self.profile)[0]
        return EngineInfo(
            model=served.model,
            n_vocab=served.n_vocab,
            context=served.context,
            slots=served.slots,
            class_id=served.class_id,
            eog=served.eog,
            device=self.profile,
        )

    # ---- what befalls it ----

    def freeze(self) -> None:
        """Nothing reaches it or leaves it; its own timers go on."""
        if self.up:
            self._ground.wires.freeze(self.key)

    def thaw(self) -> None:
        self._ground.wires.thaw(self.key)

    def jump(self, by_us: int) -> None:
        """Its clock is so much later from now on."""
        self._clock_us += by_us

    def drift(self, ppm: int) -> None:
        """Its clock runs so much faster from now on."""
        now = self._ground.now
        self._clock_us, self._drifts_from, self._drift_ppm = self.now - now, now, ppm

    def engine_crash(self) -> None:
        if self._process is not None and self._process.engine is not None:
            self._process.engine.crash()

    def flip_bit(self) -> None:
        """In its next answer."""
        self._flip_next = True

    def slow_disk(self, save_us: int) -> None:
        raise AssertionError("refused when the scenario was read")

    def fill_disk(self) -> None:
        self._disk.full = True

    def quick_disk(self) -> None:
        """Its disk is as ever again."""
        self._disk.full = False

    # ---- at the edge of its core ----

    def hears(self, event: on.Event) -> list[do.Effect] | None:
        """What reaches it; effects instead of its core's, if it keeps this from the core."""
        match event:
            case on.StreamOpened(stream, client, first, _):
                number = self._ground.number_of(client)
                self._opened[stream] = number, _ticket_of(first)
                self._note(number, "open", first)
            case on.StreamFrame(stream, frame):
                self._note(self._opened[stream][0], "frame", frame)
            case on.StreamLost(stream):
                self._opened.pop(stream, None)
            case on.Answered(_, body):
                self._note(NUMBER, "answer", body)
            case on.Noticed(body):
                self._note(NUMBER, "notice", body)
                conduct = self._conduct
                if conduct is not None and conduct.hides(body):
                    excuse = conduct.excuse(body)
                    return [] if excuse is None else [do.Notify(excuse)]
        return None

    def does(self, effects: Iterable[do.Effect]) -> list[do.Effect]:
        """What its core wants done, and what else it does."""
        done: list[do.Effect] = []
        for effect in effects:
            done.append(effect)
            match effect:
                case do.StartGenerate(stream, generate):
                    self._begins(self._opened[stream][1], generate)
                case do.Request(_, body) if self._conduct is not None:
                    other = self._conduct.other_receipt(body)
                    if other is not None:
                        done.append(do.Notify(other))
        return done

    def _note(self, source: int, what: str, detail: bytes) -> None:
        self._ground.history.note(self._ground.now, source, self.number, what, detail)

    # ---- its engine's answers ----

    def _begins(self, ticket: bytes, generate: Generate) -> None:
        self._ground.checks.began(self.number, ticket)
        condition = self._condition(ticket)
        self.meter.jobs += 1
        cheap = self._conduct is not None and ticket in self._conduct.cheated
        cost = 1.0 - self._conduct.cheat.saves if cheap and self._conduct is not None else 1.0
        self._made[generate.seed, generate.start] = condition, cost

    def _condition(self, ticket: bytes) -> str:
        """How this answer is made."""
        if self._flip_next:
            self._flip_next = False
            return evidence.BIT_FLIP
        conduct, core = self._conduct, self.core
        if conduct is None or core is None:
            return evidence.HONEST
        if not conduct.cheats(ticket, self.meter.jobs, core.repute.state):
            return evidence.HONEST
        self._ground.checks.cheated(ticket)
        self.meter.cheated += 1
        self.meter.first_cheat_us = self.meter.first_cheat_us or self._ground.now
        return conduct.cheat.condition

    def made(self, request: Generate) -> tuple[Chunk, float]:
        """The whole answer, and the share of its compute that is spent on it."""
        condition, cost = self._made.pop((request.seed, request.start))
        return self._evidence.answer(request, condition), cost

    def found(self, request: Replay) -> tuple[Replayed, bool]:
        """What it says it found, and whether it computed anything for that."""
        if self._conduct is None:
            return self._evidence.replay(request), True
        return self._conduct.word(request, self._evidence), self._conduct.reads


async def _keep_rules(_document: bytes, _rules: NetworkRules) -> None:
    """Its rules are as durable as its process."""
    await trio.lowlevel.checkpoint()


def _ticket_of(frame: bytes) -> bytes:
    """Empty where there is none: the core says what is wrong with it."""
    try:
        return peek(Ticket, decode_as(StartJob, frame).ticket).ticket
    except ProtocolError:
        return b""
