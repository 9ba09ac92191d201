"""The node: one `handle(now, event) -> list[Effect]` over jobs, audits, receipts and the lease.

    serving --Drain--> draining --no job, no receipt and no audit left, said so--> drained

What it decides: which jobs to start, which engines to load for them, what to send and when, what to
keep for audits, when to register, what is still owed. `now` is microseconds since the epoch. Peers'
bytes never raise here: a bad frame of a client ends that client's stream, a bad message of the
coordinator is logged.
Invariants: L2, L3 (a receipt for every job the client got tokens of), S1, B1, P1, D1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.admission import Admission, Standing
from assay_node.core.auditor import Auditor
from assay_node.core.lease import Lease, Repute
from assay_node.core.limits import Terms
from assay_node.core.offers import make_heartbeat, make_offer
from assay_node.core.outbox import Outbox, Owed
from assay_node.core.parameters import Parameters, Served
from assay_node.core.residency import Begin, Close, Open, Refuse, Residency, Step, footprints
from assay_node.core.rules import Rules, RulesFetch
from assay_node.core.sealing import NaclSealing, Sealing, Secrets
from assay_node.core.service import Service
from assay_node.core.transcripts import Transcripts
from assay_protocol.codec import decode, encode
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.limits import TEXT_BYTES_MAX
from assay_protocol.messages import (
    AuditDecline,
    AuditTask,
    Error,
    GetPart,
    Heartbeat,
    HeartbeatAck,
    OpenLeaves,
    ReceiptBooked,
    Register,
    Registered,
    RevealRequest,
    StandingChanged,
    Transcript,
    TranscriptRequest,
)
from assay_protocol.signing import ED25519, Signer, Verifier

_Action = Callable[[Service], list[do.Effect]]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a node tells of itself when it registers."""

    operator: bytes
    addresses: tuple[str, ...]
    software: str
    device: str
    region: str = ""  # where its owner says it is; empty: not told


@dataclass(slots=True)
class Tally:
    """Counts since the start."""

    jobs_done: int = 0
    jobs_failed: int = 0
    jobs_refused: int = 0
    tokens: int = 0
    audits_done: int = 0
    receipts_booked: int = 0
    receipts_refused: int = 0


class Node:
    """One node's whole state. Feed it events, do what it says."""

    __slots__ = (
        "_admission",
        "_asked_rules",
        "_auditor",
        "_draining_at",
        "_fetch",
        "_jobs",
        "_last_request",
        "_lease",
        "_models",
        "_offered",
        "_outbox",
        "_parameters",
        "_profile",
        "_replays",
        "_requests",
        "_signer",
        "_transcripts",
        "_verifier",
        "drained",
        "paused",
        "residency",
        "rules",
        "served",
        "tally",
    )

    def __init__(
        self,
        *,
        signer: Signer,
        coordinator: bytes,
        served: Sequence[Served],
        profile: Profile,
        seed: bytes,
        parameters: Parameters | None = None,
        sealing: Sealing | None = None,
        verifier: Verifier = ED25519,
        owed: Iterable[Owed] = (),
        used: Mapping[bytes, int] | None = None,
        budget_bytes: int | None = None,
        resident: Iterable[bytes] | None = None,
        rules: Rules | None = None,
        terms: Terms | None = None,
    ) -> None:
        """`seed`: 32 fresh random bytes of this run; `owed` and `used`: of earlier runs.

        `budget_bytes`: of memory, for all engines together; None: all fit. `resident`: engines
        that are loaded, the most needed last; None: all.
        """
        self.served = {one.model: one for one in served}
        self.tally, self.drained = Tally(), False
        self.paused = ""  # why the owner's limits let it take nothing new
        self._parameters = parameters or Parameters()
        self._signer, self._verifier, self._profile = signer, verifier, profile
        bounds, sealing, secrets = self._parameters, sealing or NaclSealing(), Secrets(seed)
        self.rules = rules or Rules()
        self._fetch = RulesFetch(self.rules)
        self._asked_rules = 0  # the request under way; 0: none
        self._admission = Admission(
            coordinator=coordinator,
            node=signer.public_key,
            served=self.served,
            parameters=bounds,
            used=used,
            verifier=verifier,
            rules=self.rules,
            terms=terms,
        )
        self.residency = Residency(
            footprints(served), bounds, budget_bytes=budget_bytes, resident=resident
        )
        self._models = self._offered = tuple(self.served)
        self._replays: dict[bytes, do.StartReplay] = {}  # for which an engine is wanted
        self._jobs: dict[int, Service] = {}
        self._transcripts = Transcripts(bounds, sealing)
        self._auditor = Auditor(signer, self.served, bounds, sealing, secrets)
        self._outbox = Outbox(bounds, secrets)
        self._lease = Lease(self._register, bounds, secrets)
        self._requests: dict[int, bytes | None] = {}  # the receipt's ticket, None for the lease
        self._last_request = 0
        self._draining_at: int | None = None
        for receipt in owed:
            self._outbox.restore(receipt)

    @property
    def repute(self) -> Repute:
        return self._lease.repute

    @property
    def block_to_vote(self) -> int | None:
        """The block of the chain that the coordinator last asked votes on."""
        return self._lease.block

    @property
    def registered(self) -> bool:
        return self._lease.registered

    @property
    def draining(self) -> bool:
        return self._draining_at is not None

    @property
    def away(self) -> bool:
        """Whether it takes nothing new for now: drained soon, or paused by its owner's limits."""
        return self.draining or bool(self.paused)

    @property
    def running(self) -> int:
        """Jobs the engines work on or have queued."""
        return sum(job.running for job in self._jobs.values())

    @property
    def slots(self) -> int:
        """Jobs at once, of all models together."""
        return max(one.slots for one in self.served.values())

    @property
    def device(self) -> str:
        """What computes, as the coordinator is told."""
        return self._profile.device

    def jobs_by_model(self) -> Counter[bytes]:
        """`running`, model by model."""
        return Counter(job.ticket.model for job in self._jobs.values() if job.running)

    @property
    def receipts_owed(self) -> int:
        return len(self._outbox)

    @property
    def rests_until(self) -> int:
        """When a Tick is due next if nothing else happens before; 0: soon, something is under way.

        A node that waits for work is then looked at once a heartbeat, not four times a second.
        """
        waits = not self._jobs and not self._outbox and self._auditor.idle
        if not waits or self._transcripts or self.draining or not self.residency.calm:
            return 0
        return self._lease.rests_until

    def handle(self, now: int, event: on.Event) -> list[do.Effect]:
        """What to do now that `event` happened."""
        effects = self._take(now, event)
        if not isinstance(event, (on.Drawn, on.StreamFrame)):  # these are many and can wait
            effects += self._follow_up(now)
        return effects

    def _take(self, now: int, event: on.Event) -> list[do.Effect]:  # the one match
        match event:  # the most frequent of an idle node come first
            case on.Tick():
                return self._tick(now)
            case on.Answered(request, body):
                return self._answered(now, request, body)
            case on.Drawn(stream, chunk):
                return self._step(now, stream, lambda job: job.drawn(now, chunk))
            case on.StreamFrame(stream, frame):
                return self._step(now, stream, lambda job: job.frame(now, frame))
            case on.StreamLost(stream):
                return self._step(now, stream, lambda job: job.lost(now))
            case on.EngineStopped(stream, code):
                return self._step(now, stream, lambda job: job.engine_stopped(code))
            case on.StreamOpened():
                return self._open(now, event)
            case on.Failed(request, code):
                return self._refused(now, request, code)
            case on.Noticed(body):
                return self._noticed(now, body)
            case on.EngineOpened(engine):
                return self._carry_out(now, self.residency.opened(now, engine))
            case on.EngineNotOpened(engine):
                return self._carry_out(now, self.residency.failed(now, engine))
            case on.EngineClosed(engine):
                return self._carry_out(now, self.residency.closed(now, engine))
            case on.ReplayDone(audit, replayed):
                self.tally.audits_done += 1
                done = self._auditor.replayed(audit, replayed)
                return done + self._carry_out(now, self.residency.ended(now, audit))
            case on.ReplayFailed(audit, code):
                failures = self._auditor.replay_failed(audit, code)
                return failures + self._carry_out(now, self.residency.ended(now, audit))
            case on.ReceiptSaved(ticket):
                self._outbox.saved(ticket)
            case on.ReceiptNotSaved(ticket, code):
                return self._outbox.not_saved(now, ticket, code)
            case on.SessionUp():
                self._lease.connected()
                self._outbox.hurry()
            case on.SessionDown():
                self._lease.disconnected()
                self._requests = {key: of for key, of in self._requests.items() if of is not None}
                self._forget_rules_request()
            case on.RulesKept():
                return self._fetch.kept()
            case on.RulesNotKept(code):
                return self._fetch.not_kept(code)
            case on.Drain():
                return self._drain(now)
            case on.Pause(reason):
                return self._pause(reason)
        return []

    def _open(self, now: int, event: on.StreamOpened) -> list[do.Effect]:
        assert event.stream not in self._jobs, "stream numbers are used once"
        standing = self._standing(now)
        if event.answered:
            standing = replace(standing, closed="ticket_replayed")
        try:
            admitted = self._admission.admit(now, event.frame, event.client, standing)
        except AssayError as error:
            self.tally.jobs_refused += 1
            return _refuse(event.stream, error)
        served = self.served[admitted.ticket.model]
        job = Service(
            now,
            event.stream,
            admitted,
            signer=self._signer,
            served=served,
            parameters=self._parameters,
            verifier=self._verifier,
        )
        self._jobs[event.stream] = job
        steps = self.residency.want(now, event.stream, served.engine, is_job=True)
        return self._carry_out(now, steps)

    def _replay(self, now: int, started: do.StartReplay) -> list[do.Effect]:
        self._replays[started.audit] = started
        steps = self.residency.want(now, started.audit, started.engine, is_job=False)
        return self._carry_out(now, steps)

    def _carry_out(self, now: int, steps: list[Step]) -> list[do.Effect]:
        """What the residency decided, for jobs and audits alike."""
        effects: list[do.Effect] = []
        for step in steps:
            match step:
                case Open(engine):
                    effects.append(do.OpenEngine(engine))
                case Close(engine):
                    effects.append(do.CloseEngine(engine))
                case Begin(int() as stream):
                    effects += self._step(now, stream, lambda job: job.begin())
                case Begin(bytes() as audit):
                    effects.append(self._replays.pop(audit))
                case Refuse(int() as stream, code, wait_ms):
                    effects += self._step(now, stream, _refuses(code, wait_ms))
                case Refuse(bytes() as audit, code):
                    del self._replays[audit]
                    effects += self._auditor.replay_failed(audit, code)
        return effects

    def closed(self, now: int) -> str | None:
        """The code with which every new job would be refused; None: jobs are taken."""
        closed = self._outbox.blocked
        if self.away:
            closed = "draining"
        elif self.repute.state in ("inquiry", "suspended", "convicted"):
            closed = "suspended"
        elif not self._lease.held(now):
            closed = "not_registered"
        return closed

    def _standing(self, now: int) -> Standing:
        closed = self.closed(now)
        held = sum(job.pixels for job in self._jobs.values())
        room = self._transcripts.pixels_room(now, held)
        return Standing(self.jobs_by_model(), closed, self._lease.joined_at, room)

    def _step(self, now: int, stream: int, action: _Action) -> list[do.Effect]:
        """Let one job take an event, then take from it what it leaves behind."""
        job = self._jobs.get(stream)
        if job is None:
            return []
        drawn, was_running = job.n_drawn, job.running
        effects = action(job)
        self.tally.tokens += job.n_drawn - drawn
        return effects + self._collect(now, job, was_running)

    def _collect(self, now: int, job: Service, was_running: bool) -> list[do.Effect]:
        effects: list[do.Effect] = []
        settled = job.settled
        if was_running and settled is not None:
            self.tally.jobs_done += 1
            owed = Owed(settled.ticket, settled.ticket_blob, settled.receipt, settled.ack)
            effects += self._outbox.add(owed)
            self._transcripts.keep(job.kept(now))
            fields = (("finish", settled.finish), ("n_out", settled.n_out))
            effects.append(do.Log("job_finished", fields))
        if was_running and not job.running:
            effects += self._carry_out(now, self.residency.ended(now, job.stream))
        if job.over:
            del self._jobs[job.stream]
            if settled is not None:
                effects += self._outbox.settle(settled.ticket, job.last_ack)
            else:
                self.tally.jobs_failed += 1
                effects.append(do.Log("job_failed", (("n_out", job.n_out),)))
        return effects

    def _answered(self, now: int, request: int, body: bytes) -> list[do.Effect]:
        try:
            answer = decode(body)
        except ProtocolError as error:
            return self._refused(now, request, error.code)
        if request == self._asked_rules:
            return self._rules_answered(answer)
        ticket = self._requests.get(request)
        match answer:
            case Registered() | HeartbeatAck() if request in self._requests and ticket is None:
                del self._requests[request]
                self._lease.answered(now, answer)
                return self._ask_rules(self._fetch.told(answer.rules))
            case ReceiptBooked() if ticket is not None and answer.ticket == ticket:
                del self._requests[request]
                self.tally.receipts_booked += 1
                self._lease.booked(now)
                return self._outbox.booked(answer)
            case Error():
                return self._refused(now, request, answer.code)
        return self._refused(now, request, "unexpected_message")

    def _rules_answered(self, answer: object) -> list[do.Effect]:
        self._asked_rules = 0
        question, effects = self._fetch.answered(answer)
        return self._ask_rules(question) + effects

    def _ask_rules(self, question: GetPart | None) -> list[do.Effect]:
        if question is None:
            return []
        self._last_request += 1
        self._asked_rules = self._last_request
        return [do.Request(self._asked_rules, encode(question))]

    def _forget_rules_request(self) -> None:
        if self._asked_rules:
            self._asked_rules = 0
            self._fetch.failed()

    def _refused(self, now: int, request: int, code: str) -> list[do.Effect]:
        if request == self._asked_rules:
            self._forget_rules_request()
        if request not in self._requests:
            return []
        ticket = self._requests.pop(request)
        if ticket is None:
            self._lease.refused(now, code)
            return [do.Log("lease_refused", (("code", code),))]
        before = len(self._outbox)
        effects = self._outbox.refused(now, ticket, code)
        self.tally.receipts_refused += before - len(self._outbox)
        return effects

    def _noticed(self, now: int, body: bytes) -> list[do.Effect]:
        try:
            message = decode(body)
        except ProtocolError as error:
            return [do.Log("bad_notice", (("code", error.code),))]
        match message:
            case AuditTask():
                return self._auditor.task(now, message, "draining" if self.away else None)
            case Transcript():
                told = self._auditor.transcript(message)
                starts = [one for one in told if isinstance(one, do.StartReplay)]
                others = [one for one in told if not isinstance(one, do.StartReplay)]
                return others + [one for start in starts for one in self._replay(now, start)]
            case RevealRequest():
                return self._auditor.reveal(message)
            case AuditDecline():
                self._auditor.cancel(message.audit)
                return []
            case TranscriptRequest():
                return [do.Notify(encode(self._transcripts.seal(message)))]
            case OpenLeaves():
                return [do.Notify(encode(self._transcripts.open_leaves(message)))]
            case StandingChanged():
                self.repute.state, self.repute.reason = message.state, message.reason
                return [do.Log("standing_changed", (("state", message.state),))]
            case None:
                return []
        return [do.Log("bad_notice", (("code", "unexpected_message"),))]

    def _drain(self, now: int) -> list[do.Effect]:
        if self._draining_at is None:
            self._draining_at = now
            return self._auditor.decline_open("draining")
        return []

    def _pause(self, reason: str) -> list[do.Effect]:
        """What runs finishes; the next heartbeat, which is due at once, tells the coordinator."""
        if reason == self.paused:
            return []
        self.paused = reason
        return [do.Log("paused" if reason else "resumed", (("reason", reason),) if reason else ())]

    def _tick(self, now: int) -> list[do.Effect]:
        effects: list[do.Effect] = []
        for stream in tuple(self._jobs):
            effects += self._step(now, stream, lambda job: job.tick(now))
        if self._draining_at is not None and now >= self._draining_at + self._parameters.drain_us:
            for stream in tuple(self._jobs):
                effects += self._step(now, stream, lambda job: job.cut("draining"))
        self._transcripts.expire(now)
        self._auditor.expire(now)
        return effects + self._carry_out(now, self.residency.tick(now))

    def _follow_up(self, now: int) -> list[do.Effect]:
        """What any event may have made due: receipts, the lease, the end of a drain."""
        if self.drained:
            return []
        effects: list[do.Effect] = []
        if len(self._outbox):
            effects, sends = self._outbox.due(now, may_send=self._lease.registered)
            effects += [self._request(message, ticket) for ticket, message in sends]
        if self._lease.registered and self._offered != self._offerable():
            self._lease.renew(now)
        if self._lease.is_due(now, self.draining, bool(self.paused)):
            effects.append(self._request(self._lease.ask(self._heartbeat(now)), None))
        if self._draining_at is not None and self._is_drained(now, self._draining_at):
            self.drained = True
            effects.append(do.Drained())
        return effects

    def _is_drained(self, now: int, since: int) -> bool:
        bounds = self._parameters
        lease = self._lease
        proving = bounds.prove_us if lease.registered and lease.drawn else 0
        if now >= since + bounds.drain_us + bounds.deliver_us + proving:
            return True  # what is still owed is durable and goes out at the next start
        if self._jobs or self._outbox or self._auditor.owed:
            return False
        if lease.registered and lease.drawn:
            return False  # only this process can show the transcripts of what may be audited
        known = not lease.registered or lease.drawn is not None
        asked_at = max(since, lease.booked_at)
        return (known and lease.farewell_said) or now >= asked_at + bounds.deliver_us

    def _request(self, message: object, ticket: bytes | None) -> do.Request:
        self._last_request += 1
        self._requests[self._last_request] = ticket
        return do.Request(self._last_request, encode(message))

    def _heartbeat(self, now: int) -> Heartbeat:
        waits = {
            model: self.residency.wait_us(now, one.engine) for model, one in self.served.items()
        }
        jobs = self.jobs_by_model() if self._jobs else {}
        return make_heartbeat(jobs, waits, self.slots, self.away)

    def _offerable(self) -> tuple[bytes, ...]:
        """Models that may be served and whose engine can be loaded, as far as is known.

        A lease needs one at least: where none is left, denied models are offered on, to deliver and
        to audit; they get no jobs.
        """
        if self.rules.current is None and self.residency.all_well:
            return self._models
        well = tuple(
            model
            for model, one in self.served.items()
            if self.residency.state(one.engine) != "resting"
        )
        allowed = tuple(model for model in well if self.rules.allows(model))
        return allowed or well or self._models

    def _register(self) -> Register:
        profile, self._offered = self._profile, self._offerable()
        return Register(
            operator=profile.operator,
            offers=tuple(make_offer(self.served[model]) for model in self._offered),
            addresses=profile.addresses,
            software=profile.software,
            device=profile.device,
            region=profile.region or None,
        )


def _refuses(code: str, wait_ms: int) -> _Action:
    return lambda job: job.cut(code, "the model is not loaded", wait_ms or None)


def _refuse(stream: int, error: AssayError) -> list[do.Effect]:
    detail = error.message.encode()[:TEXT_BYTES_MAX].decode(errors="ignore")
    message = Error(code=error.code, detail=detail, retry_after_ms=error.retry_after_ms)
    return [do.SendFrame(stream, encode(message), last=True), do.CloseStream(stream)]
