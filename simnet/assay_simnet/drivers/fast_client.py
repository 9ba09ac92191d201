"""Clients: each job is a job machine of the SDK. Some take and do not give."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from assay.core import JobMachine
from assay.events import (
    AskTicket,
    Begin,
    CancelAsked,
    CloseStream,
    Effect,
    Ended,
    Event,
    Granted,
    HandIn,
    Job,
    OpenStream,
    Received,
    Refused,
    SendFrame,
    StreamLost,
    Tick,
    TokensDrawn,
)
from assay_coordinator.core.coordinator import Listed
from assay_protocol import messages as m
from assay_protocol.errors import PeerGone
from assay_protocol.streams import remote_error
from assay_simnet.arrivals import Turns
from assay_simnet.drivers.ground import Ground
from assay_simnet.drivers.job_asks import job_of
from assay_simnet.drivers.job_streams import BREAK_US, DIAL_US, JobStream, NodeEnd
from assay_simnet.links import Wire
from assay_simnet.record import JobLine
from assay_simnet.roster import PlannedClient
from assay_simnet.traces import Ask

HAND_IN_US: Final = 15_000_000  # until a hand-in without an answer is tried again
HAND_INS_MAX: Final = 400


class Desk(Protocol):
    """The coordinator as clients know it."""

    region: str

    @property
    def key(self) -> bytes: ...

    def receive_client(self, peer: bytes, number: int, request: int, message: object) -> None: ...


class ClientWorld(Ground, Protocol):
    """What a client needs of the network it is in."""

    arrivals_end: int  # after it no session goes on

    @property
    def coordinator(self) -> Desk: ...
    @property
    def listed(self) -> Listed: ...
    @property
    def by_key(self) -> Mapping[bytes, NodeEnd]: ...

    def number(self) -> int:
        """A number nobody had before."""
        ...


@dataclass(slots=True)
class Run:
    """One job under way."""

    machine: JobMachine
    line: JobLine
    streams: dict[int, JobStream] = field(default_factory=dict)  # by attempt
    woken_for: int = 0


class FastClient:
    """One client, any number of jobs at once."""

    def __init__(self, world: ClientWorld, plan: PlannedClient) -> None:
        self.world, self.number = world, plan.number
        self.region, self.behaviour = plan.region, plan.behaviour
        self.signer = world.identity(plan.key_name)
        self.outward, self.inward = Wire(), Wire()
        self._stream = world.streams.stream(plan.stream_name)
        self._runs: dict[int, Run] = {}
        self._requests: dict[int, tuple[int, int]] = {}  # to (run, attempt)
        self._handing: dict[int, tuple[object, int]] = {}  # by request: what, and tries so far
        self._next = 0
        self.begun = 0  # jobs

    @property
    def key(self) -> bytes:
        return self.signer.public_key

    @property
    def running(self) -> int:
        """Jobs that are not over, and receipts it has not got rid of."""
        return len(self._runs) + len(self._handing)

    def begin(self, turns: Turns) -> None:
        """A session: its first job now, the others after it."""
        self._ask(deque(turns.asks), deque(turns.pauses_us))

    # ---- what reaches it ----

    def answered(self, request: int, message: object) -> None:
        if request in self._handing:
            del self._handing[request]
            return
        waiting = self._requests.pop(request, None)
        if waiting is None:
            return
        run, attempt = waiting
        event: Event
        if isinstance(message, m.TicketGrant):
            event = Granted(attempt, message)
        else:
            assert isinstance(message, m.Error), message
            event = Refused(attempt, remote_error(message))
        self.world.history.note(self.world.buckets.now, 0, self.number, type(message).__name__)
        self._handle(run, event)

    def framed(self, stream: JobStream, frame: bytes) -> None:
        if stream.open:
            self.world.history.note(
                self.world.buckets.now, stream.node.number, self.number, "frame", frame
            )
            self._handle(stream.run, Received(stream.attempt, frame))

    def closed(self, stream: JobStream) -> None:
        """The other end is gone, or the stream is."""
        if stream.open:
            stream.open = False
            self.world.history.note(self.world.buckets.now, stream.node.number, self.number, "lost")
            self._handle(stream.run, StreamLost(stream.attempt, PeerGone()))

    # ---- inside ----

    def _ask(self, asks: deque[Ask], pauses: deque[int]) -> None:
        ask = asks.popleft()
        job = self._job(ask)
        self._next += 1
        run, now = self._next, self.world.buckets.now
        machine = JobMachine(
            job, self.signer, self.world.coordinator.key, verifier=self.world.verifier
        )
        line = JobLine(
            begun_us=now,
            client=self.number,
            behaviour=self.behaviour,
            n_in=len(job.prompt),
            n_out=job.max_tokens,
        )
        line.then = (asks, pauses) if asks else None
        self._runs[run] = Run(machine, line)
        self.begun += 1
        self.world.record.begun += 1
        self._handle(run, Begin())

    def _job(self, ask: Ask) -> Job:
        verify = self.world.scenario.workload.verify
        return job_of(ask, self._stream, self.world.listed, verify)

    def _handle(self, run: int, event: Event) -> None:
        known = self._runs.get(run)
        if known is None:
            return
        for effect in known.machine.handle(self.world.buckets.now, event):
            self._do(run, known, effect)
        wake_at = known.machine.wake_at
        # One wake a machine: a later one is asked for when the earlier comes too soon.
        if run in self._runs and wake_at and not 0 < known.woken_for <= wake_at:
            known.woken_for = wake_at
            self.world.buckets.at(wake_at, self._wake, run, wake_at)

    def _wake(self, run: int, asked: int) -> None:
        known = self._runs.get(run)
        if known is None or known.woken_for != asked:
            return
        known.woken_for = 0
        self._handle(run, Tick())

    def _do(self, run: int, known: Run, effect: Effect) -> None:
        match effect:
            case AskTicket(attempt, body):
                request = self._number()
                self._requests[request] = (run, attempt)
                known.line.attempts = attempt
                self._send(request, body)
            case OpenStream(attempt, route, first):
                if self.behaviour == "hoarder":
                    self._handle_later(run, CancelAsked())
                    return
                self._open(run, known, attempt, route.node, first)
            case SendFrame(attempt, frame):
                stream = known.streams.get(attempt)
                if stream is not None and self.behaviour != "free_rider":
                    self._frame(stream, frame)
            case CloseStream(attempt):
                stream = known.streams.pop(attempt, None)
                if stream is not None:
                    self._close(stream)
            case HandIn(body):
                if self.behaviour not in ("free_rider", "hoarder"):
                    self._hand_in(body)
            case TokensDrawn():
                line = known.line
                line.first_us = line.first_us or self.world.buckets.now
                line.tokens += len(effect.tokens)
            case Ended():
                self._over(run, known, effect)

    def _over(self, run: int, known: Run, effect: Ended) -> None:
        line, outcome = known.line, effect.outcome
        line.ended_us, line.finish = self.world.buckets.now, outcome.finish
        line.code = outcome.error.code if outcome.error else ""
        line.nodes = tuple(self.world.by_key[one.node].number for one in outcome.segments)
        self.world.record.ended(line)
        self.world.checks.ended(outcome, known.machine.job.nonce, self.number)
        self._requests = {key: one for key, one in self._requests.items() if one[0] != run}
        del self._runs[run]
        if line.then is not None:
            asks, pauses = line.then
            at = self.world.buckets.now + pauses.popleft()
            if at < self.world.arrivals_end:  # else the network would be quiet before it is asked
                self.world.buckets.at(at, self._ask, asks, pauses)

    def _handle_later(self, run: int, event: Event) -> None:
        self.world.buckets.after(0, self._handle, run, event)

    # ---- sending ----

    def _open(self, run: int, known: Run, attempt: int, key: bytes, first: bytes) -> None:
        world = self.world
        node = world.by_key[key]
        ticket = known.machine.drawing.ticket
        stream = JobStream(world.number(), self, run, attempt, node, ticket)
        known.streams[attempt] = stream
        if not node.reachable:
            world.buckets.after(DIAL_US, self.closed, stream)
            return
        arrives = self._arrival(stream, len(first))
        if arrives is not None:
            world.buckets.at(arrives, node.opened, stream, first)

    def _arrival(self, stream: JobStream, size: int) -> int | None:
        links, node = self.world.links, stream.node
        now, wire = self.world.buckets.now, stream.up
        return links.arrival(now, wire, self.region, node.region, size, down=node.line)

    def _frame(self, stream: JobStream, frame: bytes) -> None:
        world = self.world
        arrives = self._arrival(stream, len(frame))
        if arrives is None:
            stream.broke(world.buckets)
        else:
            world.buckets.at(arrives, stream.node.framed, stream, frame)

    def _close(self, stream: JobStream) -> None:
        world = self.world
        stream.open = False
        arrives = self._arrival(stream, 0)
        world.buckets.at(arrives or world.buckets.now + BREAK_US, stream.node.lost, stream)

    def _hand_in(self, body: object, tries: int = 0) -> None:
        """Until it is answered: the coordinator takes the same one any number of times."""
        request = self._number()
        self._handing[request] = (body, tries)
        self._send(request, body)
        self.world.buckets.after(HAND_IN_US, self._hand_in_again, request)

    def _hand_in_again(self, request: int) -> None:
        waiting = self._handing.pop(request, None)
        if waiting is not None and waiting[1] < HAND_INS_MAX:
            self._hand_in(waiting[0], waiting[1] + 1)

    def _send(self, request: int, message: object) -> None:
        world = self.world
        coordinator = world.coordinator
        arrives = world.links.arrival(
            world.buckets.now, self.outward, self.region, coordinator.region
        )
        if arrives is None:
            return
        call = coordinator.receive_client
        world.buckets.at(arrives, call, self.key, self.number, request, message)
        if world.links.twice():
            world.buckets.at(arrives, call, self.key, self.number, request, message)

    def _number(self) -> int:
        self._next += 1
        return self._next
