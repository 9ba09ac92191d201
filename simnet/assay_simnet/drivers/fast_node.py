"""A node: its production core, a machine that takes time, a disk, and what it does otherwise.

What survives a crash is its disk: receipts not booked yet, and tickets used (D1, L2). A frozen
process gets everything later, in order. The machine computes so many answers and replays at once
(slots.py) at its profile's speed; what it would compute is in evidence.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.node import Node, Profile
from assay_node.core.outbox import Owed
from assay_node.core.parameters import Parameters
from assay_node.engine.interface import Chunk, Generate
from assay_simnet import evidence
from assay_simnet.cheats import Buyer, Cheat
from assay_simnet.drivers.disk import SAVE_US, Disk
from assay_simnet.drivers.fast_conduct import Conduct
from assay_simnet.drivers.ground import Ground
from assay_simnet.drivers.job_streams import JobStream
from assay_simnet.drivers.meter import Meter
from assay_simnet.drivers.slots import Slots
from assay_simnet.links import Wire
from assay_simnet.machines import Machines
from assay_simnet.pace import Pace
from assay_simnet.roster import PlannedNode, entropy_name

FIRST_TOKENS: Final = 1  # in the first piece of an answer: what TTFT waits for
BUSY_TICK_US: Final = 1_000_000  # production looks four times as often
IDLE_TICK_US: Final = 300_000  # more than a heartbeat's time: what is due then is due
REQUEST_US: Final = 15_000_000  # production's patience with the coordinator
RECONNECT_US: Final = 5_000_000  # at most, once the coordinator is there again


class Home(Protocol):
    """The coordinator as nodes know it."""

    region: str
    down: bool

    @property
    def key(self) -> bytes: ...

    def receive(self, peer: bytes, number: int, request: int, body: bytes) -> None: ...

    def lost(self, peer: bytes) -> None:
        """A node's session ended."""
        ...


class NodeWorld(Ground, Protocol):
    """What a node needs of the network it is in."""

    machines: Machines
    parameters: Parameters

    @property
    def coordinator(self) -> Home: ...


@dataclass(slots=True)
class _Answer:
    """One answer on the machine."""

    stream: JobStream
    chunk: Chunk
    sent: int = 0
    running: bool = False


class FastNode:
    """One node for as long as the scenario runs, with and without a process."""

    __slots__ = (
        "_answers",
        "_conduct",
        "_frozen",
        "_open_requests",
        "_pace",
        "_slots",
        "_starts",
        "_stream",
        "_streams",
        "_tick_at",
        "behaviour",
        "clock_us",
        "connected",
        "core",
        "disk",
        "drift_ppm",
        "drifts_from",
        "engine",
        "flip_next",
        "inward",
        "kind",
        "line",
        "meter",
        "number",
        "operator",
        "outward",
        "profile",
        "reachable",
        "region",
        "signer",
        "speed",
        "world",
    )

    def __init__(self, world: NodeWorld, plan: PlannedNode) -> None:
        self.world, self.number, self.region = world, plan.number, plan.region
        self.kind, self.profile, self.behaviour = plan.kind, plan.profile, plan.behaviour
        self.speed = world.machines.speeds[plan.profile]
        self.signer = world.identity(plan.key_name)
        self.operator = world.identity(plan.owner).public_key
        self.outward, self.inward = Wire(), Wire()
        self.line, self.reachable = world.machines.line(plan.profile), plan.reachable
        self.engine = world.machines.engines[plan.kind]
        self.meter, self.disk = Meter(), Disk()
        self.core: Node | None = None
        self.connected = False  # as the coordinator sees it
        self.clock_us, self.drift_ppm, self.drifts_from = 0, 0, 0
        self.flip_next = False  # a bit of its next answer
        self._stream = world.streams.stream(plan.stream_name)
        self._starts = 0
        self._frozen: list[on.Event] | None = None
        self._open_requests: set[int] = set()
        self._streams: dict[int, JobStream] = {}
        self._answers: dict[int, _Answer] = {}
        self._conduct = None
        if plan.behaviour:
            answers = world.machines.answers
            self._conduct = Conduct(plan, self.signer, self._stream, answers)
        self._slots = Slots(self.speed.slots)
        self._pace = Pace(self.speed)
        self._tick_at = 0

    @property
    def key(self) -> bytes:
        return self.signer.public_key

    @property
    def now(self) -> int:
        """By its own clock."""
        now = self.world.buckets.now + self.clock_us
        if not self.drift_ppm:
            return now
        since = self.world.buckets.now - self.drifts_from
        return now + since * self.drift_ppm // 1_000_000

    @property
    def cheat(self) -> Cheat | None:
        """How it breaks the rules, if it does."""
        return self._conduct.cheat if self._conduct is not None else None

    @property
    def up(self) -> bool:
        """Whether it has a process."""
        return self.core is not None

    @property
    def draining(self) -> bool:
        return self.core is not None and self.core.draining

    def sells_to(self, buyer: Buyer) -> None:
        """Its owner has a client, too."""
        assert self._conduct is not None
        self._conduct.buyer = buyer

    @property
    def slots(self) -> int:
        return self.speed.slots

    @property
    def saved(self) -> dict[bytes, Owed]:
        """Receipts on its disk that nobody has booked yet."""
        return self.disk.owed

    @property
    def owes(self) -> int:
        """Receipts not booked yet, in its process or on its disk."""
        return self.core.receipts_owed if self.core is not None else len(self.disk.owed)

    # ---- life ----

    def start(self) -> None:
        """A process over its disk, which joins as soon as it can."""
        assert self.core is None
        self._starts += 1
        world = self.world
        self.core = Node(
            signer=self.signer,
            coordinator=world.coordinator.key,
            served=world.machines.served(self.kind, self.profile),
            profile=Profile(self.operator, ("/simnet/1",), "simnet", self.profile),
            seed=world.streams.secret(entropy_name(self.number, self._starts)),
            parameters=world.parameters,
            sealing=world.sealing,
            verifier=world.verifier,
            owed=self.disk.owed.values(),
            used=self.disk.used,
        )
        self.reconnect_soon()
        self._tick_within(BUSY_TICK_US)

    def stop(self) -> None:
        """The process is gone without a word: clients' streams break, its session ends."""
        if self.core is None:
            return
        self.core, self._frozen = None, None
        for stream in self._streams.values():
            self.world.buckets.after(BUSY_TICK_US // 10, stream.client.closed, stream)
        self._streams, self._answers = {}, {}
        self._slots = Slots(self.speed.slots)
        self._open_requests = set()
        self.connected = False
        self.world.coordinator.lost(self.key)

    def drain(self) -> None:
        """Its owner wants to leave; `Drained` ends the process."""
        self._event(on.Drain())

    def freeze(self) -> None:
        if self.core is not None and self._frozen is None:
            self._frozen = []

    def thaw(self) -> None:
        """Everything that came meanwhile comes now, in order."""
        missed, self._frozen = self._frozen or [], None
        for event in missed:
            self._event(event)

    def session_lost(self) -> None:
        """The coordinator is gone: what was asked of it gets no answer."""
        self.connected = False
        if self.core is None:
            return
        waiting, self._open_requests = sorted(self._open_requests), set()
        for request in waiting:
            self._event(on.Failed(request, "peer_gone"))
        self._event(on.SessionDown())

    def reconnect_soon(self) -> None:
        """Within a few seconds, each node in a moment of its own."""
        if self.core is not None:
            wait = self._stream.below(RECONNECT_US)
            self.world.buckets.after(wait, self._reconnect, self._starts)

    def _reconnect(self, start: int) -> None:
        world = self.world
        if self.core is None or self.connected or start != self._starts:
            return
        home = world.coordinator
        if home.down:
            return  # its restart calls again
        if not world.links.reaches(self.region, home.region):
            world.buckets.after(RECONNECT_US, self._reconnect, start)
            return
        self.connected = True
        self._event(on.SessionUp())

    # ---- what befalls it ----

    def jump(self, by_us: int) -> None:
        """Its clock is so much later from now on."""
        self.clock_us += by_us

    def drift(self, ppm: int) -> None:
        """Its clock runs so much faster from now on."""
        now = self.world.buckets.now
        self.clock_us, self.drifts_from, self.drift_ppm = self.now - now, now, ppm

    def clog(self, until_us: int) -> None:
        """Nothing comes or goes until then; who waits for an answer waits as long as ever."""
        self.line.clogged_until_us = until_us
        for request in sorted(self._open_requests):
            self.unanswered(request)

    def unclog(self) -> None:
        self.line.clogged_until_us = 0

    def flip_bit(self) -> None:
        """In its next answer."""
        self.flip_next = True

    def slow_disk(self, save_us: int) -> None:
        self.disk.save_us = save_us

    def fill_disk(self) -> None:
        self.disk.full = True

    def quick_disk(self) -> None:
        """Its disk is as ever again."""
        self.disk.as_ever()

    def tear(self, *, keeps: bool) -> None:
        """Its power fails within the next commit; whether that is on disk all the same."""
        self.disk.torn = keeps

    def mend(self) -> None:
        """The power is back, or never failed."""
        self.disk.torn = None
        if self.core is None:
            self.start()

    # ---- what reaches it ----

    def answered(self, request: int, body: bytes) -> None:
        if request in self._open_requests:
            self._open_requests.discard(request)
            self.world.history.note(self.world.buckets.now, 0, self.number, "answer", body)
            self._event(on.Answered(request, body))

    def noticed(self, body: bytes) -> None:
        if self.core is None:
            return
        self.world.history.note(self.world.buckets.now, 0, self.number, "notice", body)
        conduct = self._conduct
        if conduct is not None and conduct.hides(body):
            excuse = conduct.excuse(body)
            if excuse is not None:
                self._say(0, excuse)
            return
        self._event(on.Noticed(body))

    def opened(self, stream: JobStream, frame: bytes) -> None:
        if self.core is None:
            self.world.buckets.after(1, stream.client.closed, stream)
            return
        if not stream.open:
            return
        client = stream.client
        self.world.history.note(self.world.buckets.now, client.number, self.number, "open", frame)
        self._streams[stream.number] = stream
        answered = stream.ticket in self.disk.owed
        self._event(on.StreamOpened(stream.number, client.key, frame, answered))
        self._tick_within(BUSY_TICK_US)

    def framed(self, stream: JobStream, frame: bytes) -> None:
        if stream.number in self._streams:
            client = stream.client.number
            self.world.history.note(self.world.buckets.now, client, self.number, "frame", frame)
            self._event(on.StreamFrame(stream.number, frame))

    def lost(self, stream: JobStream) -> None:
        if self._streams.pop(stream.number, None) is not None:
            self._event(on.StreamLost(stream.number))

    # ---- time ----

    def _tick_within(self, delay_us: int) -> None:
        due = self.world.buckets.now + delay_us
        if self._tick_at <= self.world.buckets.now or due < self._tick_at:
            self._tick_at = due
            self.world.buckets.at(due, self._tick, due)

    def _tick(self, due: int) -> None:
        if self.core is None or due != self._tick_at:
            return
        self._tick_at = 0
        self._event(on.Tick())
        self._tick_within(self._until_next_tick_us())

    def _until_next_tick_us(self) -> int:
        core = self.core
        idle = core is not None and core.registered and not (core.receipts_owed or core.draining)
        if idle and not self._streams:
            return self.world.scenario.policy.heartbeat_us + IDLE_TICK_US
        return BUSY_TICK_US

    # ---- what it does ----

    def _event(self, event: on.Event) -> None:
        if self._frozen is not None:
            self._frozen.append(event)
        elif self.core is not None:
            for effect in self.core.handle(self.now, event):
                self._do(effect)

    def _do(self, effect: do.Effect) -> None:
        match effect:
            case do.Request(request, body):
                self._open_requests.add(request)
                self._say(request, body)
                other = self._conduct.other_receipt(body) if self._conduct is not None else None
                if other is not None:
                    self._say(0, other)
            case do.Notify(body):
                self._say(0, body)
            case do.SendFrame(stream, frame):
                self._frame(stream, frame)
            case do.CloseStream(number):
                self._close(number)
            case do.StartGenerate(stream, generate):
                self._generate(stream, generate)
            case do.NextChunk(stream):
                self._next(stream)
            case do.StopGenerate(stream):
                self._stop(stream)
            case do.StartReplay():
                self._slots.want(self._replay, effect, self._starts)
            case do.SaveReceipt():
                self._save(effect)
            case do.MarkReceipt(ticket):
                self.disk.owed.pop(ticket, None)
            case do.OpenEngine(engine):
                self.world.buckets.after(SAVE_US, self._event, on.EngineOpened(engine))
            case do.CloseEngine(engine):
                self.world.buckets.after(SAVE_US, self._event, on.EngineClosed(engine))
            case do.KeepRules():
                self.world.buckets.after(self.disk.save_us, self._event, on.RulesKept())
            case do.Drained():
                self.stop()  # it is back when its churn says so

    def _say(self, request: int, body: bytes) -> None:
        world, home = self.world, self.world.coordinator
        arrives = None
        if self.connected:
            links, wire, size = world.links, self.outward, len(body)
            arrives = links.arrival(
                world.buckets.now, wire, self.region, home.region, size, up=self.line
            )
        if arrives is None or self.line.is_slow(world.buckets.now):
            self.unanswered(request)
        if arrives is None:
            return
        world.buckets.at(arrives, home.receive, self.key, self.number, request, body)
        if world.links.twice():
            world.buckets.at(arrives, home.receive, self.key, self.number, request, body)

    def unanswered(self, request: int) -> None:
        """No answer may come in time: it waits for as long as production does."""
        if request:
            self.world.buckets.after(REQUEST_US, self._gave_up, request, self._starts)

    def _gave_up(self, request: int, start: int) -> None:
        if start == self._starts and request in self._open_requests:
            self._open_requests.discard(request)
            self._event(on.Failed(request, "timeout"))

    def _frame(self, number: int, frame: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None or not stream.open:
            return
        world = self.world
        arrives = self._arrival(stream, len(frame))
        if arrives is None:
            stream.broke(world.buckets)
        else:
            world.buckets.at(arrives, stream.client.framed, stream, frame)

    def _close(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None and stream.open:
            world = self.world
            arrives = self._arrival(stream, 0)
            if arrives is not None:
                world.buckets.at(arrives, stream.client.closed, stream)

    def _arrival(self, stream: JobStream, size: int) -> int | None:
        links, now, to = self.world.links, self.world.buckets.now, stream.client.region
        return links.arrival(now, stream.down, self.region, to, size, up=self.line)

    # ---- its disk ----

    def _save(self, effect: do.SaveReceipt) -> None:
        if self.disk.full:
            failed = on.ReceiptNotSaved(effect.ticket, "disk_full")
            self.world.buckets.after(self.disk.save_us, self._event, failed)
        else:
            self.world.buckets.after(self.disk.save_us, self._saved, effect, self._starts)

    def _saved(self, effect: do.SaveReceipt, start: int) -> None:
        if start != self._starts or self.core is None:
            return  # the process died before its disk had it
        if self.disk.commit(effect, self.now, self.world.scenario.policy.ticket_lifetime_us):
            self._event(on.ReceiptSaved(effect.ticket))
        else:
            self.stop()

    # ---- its machine ----

    def _generate(self, number: int, request: Generate) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        ticket = stream.ticket
        self.world.checks.began(self.number, ticket)
        condition = self._condition(ticket)
        chunk = self.engine.answer(request, condition)
        answer = self._answers[number] = _Answer(stream, chunk)
        self.meter.jobs += 1
        self._slots.want(self._begin, number, answer, len(request.prompt), self._slots)

    def _condition(self, ticket: bytes) -> str:
        """How this answer is made."""
        if self.flip_next:
            self.flip_next = False
            return evidence.BIT_FLIP
        conduct, core = self._conduct, self.core
        if conduct is None or core is None:
            return evidence.HONEST
        if not conduct.cheats(ticket, self.meter.jobs, core.repute.state):
            return evidence.HONEST
        self.world.checks.cheated(ticket)
        self.meter.cheated += 1
        self.meter.first_cheat_us = self.meter.first_cheat_us or self.world.buckets.now
        return conduct.cheat.condition

    def _cost(self, ticket: bytes) -> float:
        """The share of an answer's compute that it spends."""
        conduct = self._conduct
        if conduct is None or ticket not in conduct.cheated:
            return 1.0
        return 1.0 - conduct.cheat.saves

    def _begin(self, number: int, answer: _Answer, n_in: int, slots: Slots) -> None:
        """There is a slot: read the prompt, draw the first token."""
        if self._answers.get(number) is not answer:
            slots.free()
            return
        answer.running = True
        cost = self._cost(answer.stream.ticket)
        reading = self._read(self._pace.read(self.world.now, n_in))
        service = reading * cost + self._pace.first(self._slots.taken) * cost
        self._take(number, answer, FIRST_TOKENS, service)

    def _draw(self, number: int, answer: _Answer, most: int) -> None:
        count = min(most, len(answer.chunk.tokens) - answer.sent)
        service = self._pace.draw(self.world.now, count, self._slots.taken)
        self._take(number, answer, count, service * self._cost(answer.stream.ticket))

    def _take(self, number: int, answer: _Answer, count: int, service: float) -> None:
        """So many tokens in so much of the machine's time."""
        self.meter.served_us += service
        self.world.buckets.after(round(service), self._drawn, number, answer, count)

    def _drawn(self, number: int, answer: _Answer, count: int) -> None:
        if self._answers.get(number) is not answer:
            return
        drawn = evidence.piece(answer.chunk, answer.sent, count)
        answer.sent += count
        if drawn.finish is not None:
            self._stop(number)
        self._event(on.Drawn(number, drawn))

    def _read(self, service: float) -> float:
        """A prompt is read in so many microseconds."""
        self.world.buckets.after(round(service), self._pace.has_read)
        return service

    def _next(self, number: int) -> None:
        answer = self._answers.get(number)
        if answer is not None:
            self._draw(number, answer, self.speed.piece_tokens)

    def _stop(self, number: int) -> None:
        answer = self._answers.pop(number, None)
        if answer is not None and answer.running:
            self._slots.free()

    def engine_crash(self) -> None:
        """The engine's process is gone; what it was at is lost, and it starts again."""
        for number in list(self._answers):
            self._stop(number)
            self._event(on.EngineStopped(number, "engine_failed"))

    def _replay(self, effect: do.StartReplay, start: int) -> None:
        """There is a slot: one prefill over prompt and answer."""
        slots, request = self._slots, effect.replay
        self.meter.audits += 1
        if start != self._starts:
            slots.free()
            return
        reads = self._conduct is None or self._conduct.reads
        service = 0.0
        if reads:
            n_in, n_out = len(request.prompt), len(request.output)
            service = self._read(self._pace.replay(self.world.now, n_in, n_out))
        self.meter.replayed_us += service
        self.world.buckets.after(round(service), self._replayed, effect, slots, start)

    def _replayed(self, effect: do.StartReplay, slots: Slots, start: int) -> None:
        slots.free()
        if start != self._starts or self.core is None:
            return
        request, conduct = effect.replay, self._conduct
        found = conduct.word(request, self.engine) if conduct else self.engine.replay(request)
        self._event(on.ReplayDone(effect.audit, found))
