"""A client of the live driver: the SDK's job machines, run by the SDK over a host of its own.

`AsyncClient` adds to these text, cards and a key on disk; jobs here are tokens. What a behaviour
does otherwise it does between the machine and what runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import trio

from assay.coordinator_link import CoordinatorLink
from assay.core import JobMachine
from assay.events import (
    AskTicket,
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
    TokensDrawn,
)
from assay.job_run import JobRun
from assay_network.host import Host
from assay_node.coordinator import Coordinator
from assay_simnet.arrivals import Turns
from assay_simnet.determinism import halting
from assay_simnet.drivers.job_asks import job_of
from assay_simnet.drivers.live_ground import LiveGround
from assay_simnet.record import JobLine
from assay_simnet.roster import PlannedClient


class ClientWorld(LiveGround, Protocol):
    """What a client needs beyond."""

    arrivals_end: int  # after it no session goes on

    @property
    def home(self) -> Coordinator:
        """Where the coordinator is."""
        ...


class _Machine(JobMachine):
    """One job; its client looks at what enters and leaves."""

    owner: _Job

    def handle(self, now: int, event: Event) -> list[Effect]:
        with halting():
            self.owner.hears(event)
            return self.owner.does(super().handle(now, event))


@dataclass(frozen=True, slots=True)
class _Asks:
    """What a job is run with."""

    host: Host
    link: CoordinatorLink
    nursery: trio.Nursery


class LiveClient:
    """One client, any number of jobs at once."""

    def __init__(self, ground: ClientWorld, plan: PlannedClient) -> None:
        self.ground, self.number = ground, plan.number
        self.region, self.behaviour = plan.region, plan.behaviour
        self.signer = ground.identity(plan.key_name)
        self._draw = ground.streams.stream(plan.stream_name)
        self._jobs = 0  # not over
        self._link: CoordinatorLink | None = None
        self._asks: _Asks | None = None
        self._ready = trio.Event()
        ground.wires.place(self.key, self.region)

    @property
    def key(self) -> bytes:
        return self.signer.public_key

    @property
    def running(self) -> int:
        """Jobs that are not over, and receipts it has not got rid of."""
        return self._jobs + (self._link.waiting if self._link is not None else 0)

    async def live(self) -> None:
        """Its process, until the run is over."""
        home = self.ground.home
        async with self.ground.wires.host(self.key) as host, trio.open_nursery() as nursery:
            link = self._link = CoordinatorLink(host, home.key, home.addresses)
            self._asks = _Asks(host, link, nursery)
            self._ready.set()
            await link.run()

    def begin(self, turns: Turns) -> None:
        """A session: its first job now, the others after it."""
        self._jobs += 1
        self.ground.spawn(self._session, turns)

    async def _session(self, turns: Turns) -> None:
        await self._ready.wait()
        pauses = iter(turns.pauses_us)
        for ask in turns.asks:
            work = self.ground.scenario.workload
            await self._run(job_of(ask, self._draw, self.ground.machines.listed, work.verify))
            pause_us = next(pauses, None)
            if pause_us is None or self.ground.now + pause_us >= self.ground.arrivals_end:
                break
            self._jobs -= 1
            await trio.sleep(pause_us / 1e6)
            self._jobs += 1
        self._jobs -= 1

    async def _run(self, job: Job) -> None:
        assert self._asks is not None, "it lives"
        host, link, nursery = self._asks.host, self._asks.link, self._asks.nursery
        machine = _Machine(job, self.signer, self.ground.home.key, verifier=self.ground.verifier)
        one = machine.owner = _Job(self, job)
        run = one.run = JobRun(machine, host, link, nursery)
        run.start()
        await run.ended.wait()


class _Job:
    """One job as its client lets it happen."""

    def __init__(self, client: LiveClient, job: Job) -> None:
        self._client, self._ground, self._job = client, client.ground, job
        self._line = JobLine(
            begun_us=client.ground.now,
            client=client.number,
            behaviour=client.behaviour,
            n_in=len(job.prompt),
            n_out=job.max_tokens,
        )
        self._nodes: dict[int, bytes] = {}  # by attempt, whose stream is open
        self.run: JobRun | None = None
        client.ground.record.begun += 1

    def hears(self, event: Event) -> None:
        """What reaches it."""
        home = self._ground.home.key
        match event:
            case Granted(_, grant):
                self._note(home, type(grant).__name__)
            case Refused(_, error):
                self._note(home, error.code)
            case Received(attempt, frame):
                self._note(self._nodes[attempt], "frame", frame)
            case StreamLost(attempt, _) if attempt in self._nodes:
                self._note(self._nodes[attempt], "lost")

    def does(self, effects: list[Effect]) -> list[Effect]:
        """What is done of what its machine wants."""
        return [effect for effect in effects if self._does(effect)]

    def _does(self, effect: Effect) -> bool:
        line, behaviour = self._line, self._client.behaviour
        match effect:
            case AskTicket(attempt, _):
                line.attempts = attempt
            case OpenStream(attempt, route):
                if behaviour == "hoarder":
                    assert self.run is not None
                    self._ground.agenda.after(0, self.run.cancel)
                    return False
                self._nodes[attempt] = route.node
            case SendFrame(attempt):
                return behaviour != "free_rider" and attempt in self._nodes
            case CloseStream(attempt):
                return attempt in self._nodes
            case HandIn():
                return behaviour not in ("free_rider", "hoarder")
            case TokensDrawn(tokens=tokens):
                line.first_us = line.first_us or self._ground.now
                line.tokens += len(tokens)
            case Ended():
                self._over(effect)
        return True

    def _over(self, effect: Ended) -> None:
        line, outcome, ground = self._line, effect.outcome, self._ground
        line.ended_us, line.finish = ground.now, outcome.finish
        line.code = outcome.error.code if outcome.error else ""
        line.nodes = tuple(ground.number_of(one.node) for one in outcome.segments)
        ground.record.ended(line)
        ground.checks.ended(outcome, self._job.nonce, self._client.number)

    def _note(self, source: bytes, what: str, detail: bytes = b"") -> None:
        ground = self._ground
        number = ground.number_of(source)
        ground.history.note(ground.now, number, self._client.number, what, detail)
