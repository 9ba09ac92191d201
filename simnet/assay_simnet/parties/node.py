"""A node's core in a simulated network; its behaviour sees, and may change, all that passes.

An honest behaviour changes nothing. A cheat swaps what computes some of its answers, or what it
says; the core around it is the production one, so whatever it does is done by the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.node import Node, Profile
from assay_node.core.parameters import Served
from assay_node.engine.interface import Chunk, Generate, Replay
from assay_protocol.classes import is_exact
from assay_protocol.codec import decode, decode_as, encode
from assay_protocol.errors import ProtocolError
from assay_protocol.messages import AuditTask, StartJob, Ticket
from assay_protocol.signing import Identity, peek
from assay_simnet.behaviours.behaviour import Behaviour
from assay_simnet.engine import EOG, Engine
from assay_simnet.language import NOISE, PIECES, VOCABULARY
from assay_simnet.parties.surroundings import Surroundings
from assay_simnet.setting import (
    CONTEXT,
    DECODE_US,
    LATENCY_US,
    MODEL,
    PREFILL_US,
    SAVE_US,
    SLOTS,
)


class NodeParty:
    """One node: core, engine, behaviour."""

    def __init__(
        self,
        world: Surroundings,
        behaviour: Behaviour,
        class_id: str,
        operator: bytes | None = None,
    ) -> None:
        self.world, self.behaviour = world, behaviour
        self.identity: Identity = world.identity()
        self.operator = operator or world.identity().public_key
        noise = 0.0 if is_exact(class_id) else NOISE
        self.engine = Engine(world.language, self.identity.seed, noise)
        self.cheated: dict[bytes, int] = {}  # tickets of the jobs it cheated on, with their places
        self.jobs = 0  # begun
        self.audits = 0  # tasks it was given
        self.logs: list[do.Log] = []
        self.gone = False
        self._tickets: dict[int, Ticket] = {}  # by stream
        self._answers: dict[int, Iterator[Chunk]] = {}
        self.core = Node(
            signer=self.identity,
            coordinator=world.coordinator.key,
            served=(behaviour.served(self._served(class_id)),),
            profile=Profile(self.operator, ("/memory/1",), "simnet", "simulated"),
            seed=world.secret(),
        )
        behaviour.party = self

    @property
    def key(self) -> bytes:
        return self.identity.public_key

    def _served(self, class_id: str) -> Served:
        return Served(
            model=MODEL,
            class_id=class_id,
            slots=SLOTS,
            context=CONTEXT,
            n_vocab=VOCABULARY,
            eog=EOG,
            prefill_rate=10**9 // PREFILL_US,
            decode_rate=10**9 // DECODE_US,
            pieces=PIECES,
        )

    # ---- what reaches it ----

    def join(self) -> None:
        self._handle(on.SessionUp())

    def leave(self) -> None:
        """Vanish without a word."""
        self.gone = True

    def tick(self) -> None:
        self._handle(on.Tick())

    def answered(self, request: int, body: bytes) -> None:
        self._later(lambda: self._handle(on.Answered(request, body)))

    def noticed(self, body: bytes) -> None:
        self._later(lambda: self._hear(body))

    def opened(self, stream: int, client: bytes, frame: bytes) -> None:
        self._later(lambda: self._open(stream, client, frame))

    def framed(self, stream: int, frame: bytes) -> None:
        self._later(lambda: self._handle(on.StreamFrame(stream, frame)))

    def lost(self, stream: int) -> None:
        self._later(lambda: self._handle(on.StreamLost(stream)))

    # ---- what it sends ----

    def say(self, message: object) -> None:
        """A notice to the coordinator, past the core and the behaviour."""
        body = encode(message)
        coordinator = self.world.coordinator
        self.world.after(LATENCY_US, lambda: coordinator.receive(self.key, 0, body))

    # ---- inside ----

    def _later(self, call: Callable[[], None]) -> None:
        self.world.after(LATENCY_US, call)

    def _hear(self, body: bytes) -> None:
        heard = decode(body)
        self.audits += isinstance(heard, AuditTask)
        for message in self.behaviour.hears(heard):
            self._handle(on.Noticed(encode(message)))

    def _open(self, stream: int, client: bytes, frame: bytes) -> None:
        try:
            self._tickets[stream] = peek(Ticket, decode_as(StartJob, frame).ticket)
        except ProtocolError:
            return
        self._handle(on.StreamOpened(stream, client, frame))

    def _handle(self, event: on.Event) -> None:
        if self.gone:
            return
        for effect in self.core.handle(self.world.now, event):
            self._do(effect)

    def _do(self, effect: do.Effect) -> None:
        match effect:
            case do.Request(request, body):
                self._to_coordinator(request, body)
            case do.Notify(body):
                self._to_coordinator(0, body)
            case do.SendFrame(stream, frame):
                client = self.world.clients[self._tickets[stream].client]
                for changed in self.behaviour.frames(frame):
                    client.framed(stream, changed)
            case do.CloseStream(stream):
                self.world.clients[self._tickets[stream].client].lost(stream)
            case do.StartGenerate(stream, generate):
                self._begin(stream, generate)
            case do.NextChunk(stream):
                self._draw(stream, 0)
            case do.StopGenerate(stream):
                self._answers.pop(stream, None)
            case do.StartReplay(audit, replay):
                self._replay(audit, replay)
            case do.SaveReceipt(ticket):
                saved = on.ReceiptSaved(ticket)
                self.world.after(SAVE_US, lambda: self._handle(saved))
            case do.OpenEngine(engine):
                opened = on.EngineOpened(engine)
                self.world.after(SAVE_US, lambda: self._handle(opened))
            case do.CloseEngine(engine):
                closed = on.EngineClosed(engine)
                self.world.after(SAVE_US, lambda: self._handle(closed))
            case do.KeepRules():
                kept = on.RulesKept()
                self.world.after(SAVE_US, lambda: self._handle(kept))
            case do.Log():
                self.logs.append(effect)

    def _to_coordinator(self, request: int, body: bytes) -> None:
        for message in self.behaviour.sends(decode(body)):
            send = partial(self.world.coordinator.receive, self.key, request, encode(message))
            self.world.after(LATENCY_US + self.behaviour.waits_us(message), send)

    def _begin(self, stream: int, generate: Generate) -> None:
        ticket, number = self._tickets[stream], self.jobs
        self.jobs += 1
        engine = self.engine
        if self.behaviour.cheats(number, ticket):
            self.cheated[ticket.ticket] = number
            engine = self.behaviour.executor(self.engine)
        self._answers[stream] = engine.answer(generate)
        self._draw(stream, PREFILL_US * len(generate.prompt))

    def _draw(self, stream: int, prefill_us: int) -> None:
        answer = self._answers.get(stream)
        if answer is None:
            return
        chunk = next(answer)

        def drawn() -> None:
            if self._answers.get(stream) is answer:
                self._handle(on.Drawn(stream, chunk))

        self.world.after(prefill_us + DECODE_US * len(chunk.tokens), drawn)

    def _replay(self, audit: bytes, replay: Replay) -> None:
        done = on.ReplayDone(audit, self.behaviour.auditor(self.engine).replay(replay))
        length = len(replay.prompt) + len(replay.output)
        self.world.after(PREFILL_US * length, lambda: self._handle(done))
