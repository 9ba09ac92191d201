"""Clients' cores in a simulated network: each job is a job machine of the SDK."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from assay.core import JobMachine
from assay.events import (
    AskTicket,
    Begin,
    CloseStream,
    Effect,
    Ended,
    Event,
    Granted,
    HandIn,
    Job,
    OpenStream,
    Outcome,
    Received,
    Refused,
    SendFrame,
    StreamLost,
    Tick,
)
from assay_protocol.codec import decode, encode
from assay_protocol.errors import AssayError, PeerGone
from assay_protocol.messages import Error, Sampler, TicketGrant
from assay_protocol.signing import Identity
from assay_protocol.streams import remote_error
from assay_simnet.engine import EOG
from assay_simnet.language import VOCABULARY
from assay_simnet.parties.surroundings import Surroundings
from assay_simnet.setting import LATENCY_US, MODEL


@dataclass
class _Run:
    """One job under way; `streams` by attempt, each with the node at its other end."""

    machine: JobMachine
    streams: dict[int, tuple[int, bytes]] = field(default_factory=dict)


class ClientParty:
    """One client, any number of jobs at once."""

    def __init__(self, world: Surroundings, identity: Identity) -> None:
        self._world, self.identity = world, identity
        self.outcomes: list[Outcome] = []
        self.tickets = 0  # asked for
        self.handed_in: list[HandIn] = []
        self._runs: dict[int, _Run] = {}
        self._requests: dict[int, tuple[int, int]] = {}  # to (run, attempt)
        self._streams: dict[int, tuple[int, int]] = {}
        self._next = 0

    @property
    def key(self) -> bytes:
        return self.identity.public_key

    @property
    def running(self) -> int:
        """Jobs not over."""
        return len(self._runs)

    def start(
        self,
        prompt: tuple[int, ...],
        max_tokens: int,
        sampler: Sampler,
        only: tuple[bytes, ...] = (),
    ) -> None:
        """Begin a job; its outcome is added to `outcomes`."""
        job = Job(
            model=MODEL,
            prompt=prompt,
            sampler=sampler,
            max_tokens=max_tokens,
            nonce=self._world.secret(),
            stop_tokens=EOG,
            vocabulary=VOCABULARY,
            only=only,
        )
        self._next += 1
        run = self._next
        self._runs[run] = _Run(JobMachine(job, self.identity, self._world.coordinator.key))
        self._handle(run, Begin())

    # ---- what reaches it ----

    def answered(self, request: int, body: bytes) -> None:
        """The coordinator's answer; those to hand-ins are not looked at."""
        waiting = self._requests.pop(request, None)
        if waiting is None:
            return
        run, attempt = waiting
        message = decode(body)
        event: Event
        if isinstance(message, TicketGrant):
            event = Granted(attempt, message)
        elif isinstance(message, Error):
            event = Refused(attempt, remote_error(message))
        else:
            event = Refused(attempt, AssayError("unexpected_message"))
        self._world.after(LATENCY_US, lambda: self._handle(run, event))

    def framed(self, stream: int, frame: bytes) -> None:
        run, attempt = self._streams[stream]
        self._world.after(LATENCY_US, lambda: self._handle(run, Received(attempt, frame)))

    def lost(self, stream: int) -> None:
        run, attempt = self._streams[stream]
        gone = StreamLost(attempt, PeerGone())
        self._world.after(LATENCY_US, lambda: self._handle(run, gone))

    # ---- inside ----

    def _handle(self, run: int, event: Event) -> None:
        known = self._runs.get(run)
        if known is None:
            return
        for effect in known.machine.handle(self._world.now, event):
            self._do(run, known, effect)
        wake_at = known.machine.wake_at
        if run in self._runs and wake_at is not None:
            delay = max(0, wake_at - self._world.now)
            self._world.after(delay, lambda: self._wake(run, wake_at))

    def _wake(self, run: int, wake_at: int) -> None:
        known = self._runs.get(run)
        if known is not None and known.machine.wake_at == wake_at:
            self._handle(run, Tick())

    def _do(self, run: int, known: _Run, effect: Effect) -> None:
        coordinator = self._world.coordinator
        match effect:
            case AskTicket(attempt, body):
                self._next += 1
                request, asked = self._next, encode(body)
                self._requests[request] = (run, attempt)
                self.tickets += 1
                self._later(lambda: coordinator.receive(self.key, request, asked))
            case OpenStream(attempt, route, first):
                stream = self._world.number()
                self._streams[stream] = (run, attempt)
                known.streams[attempt] = (stream, route.node)
                self._world.nodes[route.node].opened(stream, self.key, first)
            case SendFrame(attempt, frame):
                stream, node = known.streams[attempt]
                self._world.nodes[node].framed(stream, frame)
            case CloseStream(attempt):
                stream, node = known.streams.pop(attempt)
                self._world.nodes[node].lost(stream)
            case HandIn(body):
                self.handed_in.append(effect)
                told = encode(body)
                self._later(lambda: coordinator.receive(self.key, 0, told))
            case Ended(outcome):
                self.outcomes.append(outcome)
                del self._runs[run]

    def _later(self, call: Callable[[], None]) -> None:
        self._world.after(LATENCY_US, call)
