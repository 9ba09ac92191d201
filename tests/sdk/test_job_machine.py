"""The client's job machine against pure nodes that fail, lie and stall at any point."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.core import JobMachine, Phase
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
    JobLimits,
    OpenStream,
    Outcome,
    Received,
    Refused,
    Resumed,
    SendFrame,
    StreamLost,
    Tick,
    TokensDrawn,
)
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.hashing import OutputHash, pack_tokens
from assay_protocol.messages import (
    AbandonJob,
    Cancel,
    Error,
    Finished,
    Progress,
    Receipt,
    SubmitReceipt,
    Ticket,
    TicketGrant,
    TokenChunk,
)
from assay_protocol.signing import Identity, open_signed, peek, seal
from assay_protocol.streams import Times
from sdk.client_world import (
    CLIENT,
    COORDINATOR,
    END,
    MODEL,
    VOCABULARY,
    FakeCoordinator,
    FakeNode,
    make_job,
    node_key,
    unbroken,
)

Lie = Callable[[FakeNode], bytes]
_E = TypeVar("_E")


@dataclass(slots=True)
class Fault:
    """What goes wrong on one attempt, after `after` tokens of it were sent."""

    after: int = 0
    lost: str | None = None  # the stream ends with this code
    says: str | None = None  # the node sends this error
    stall: bool = False
    lie: Lie | None = None  # what the node sends then


@dataclass(slots=True)
class Run:
    """Drives one machine with virtual time until it ends."""

    job: Job = field(default_factory=make_job)
    faults: dict[int, Fault] = field(default_factory=dict)  # by attempt, from 1
    coordinator: FakeCoordinator = field(default_factory=FakeCoordinator)
    limits: JobLimits = field(default_factory=JobLimits)
    end_at: int | None = None
    refuse: dict[int, AssayError] = field(default_factory=dict)
    now: int = 1_000
    seen: list[Effect] = field(default_factory=list)
    nodes: dict[int, FakeNode] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    outcome: Outcome | None = None
    machine: JobMachine = field(init=False)

    def __post_init__(self) -> None:
        self.machine = JobMachine(self.job, CLIENT, COORDINATOR.public_key, self.limits)

    def play(self) -> Outcome:
        self.feed(Begin())
        for _ in range(10_000):
            if self.outcome is not None:
                return self.outcome
            self.turn()
        raise AssertionError("the job does not end")

    def turn(self) -> None:
        """One frame of the running node, or time passes until the machine wakes."""
        attempt = self.machine.attempt
        node = self.nodes.get(attempt)
        if self.machine.phase in (Phase.STREAMING, Phase.ENDING) and node is not None:
            fault = self.faults.get(attempt)
            if fault is None or node.stream.count < fault.after:
                left = fault.after - node.stream.count if fault else None
                self.feed(Received(attempt, node.step(min(3, left) if left else None)))
                return
            if self._fail(attempt, node, fault):
                return
        assert self.machine.wake_at is not None
        self.now = max(self.now, self.machine.wake_at)
        self.feed(Tick())

    def _fail(self, attempt: int, node: FakeNode, fault: Fault) -> bool:
        if fault.lost:
            self.feed(StreamLost(attempt, AssayError(fault.lost)))
        elif fault.says:
            self.feed(Received(attempt, encode(Error(code=fault.says, detail=""))))
        elif fault.lie:
            self.feed(Received(attempt, fault.lie(node)))
        return not fault.stall

    def feed(self, event: Event) -> list[Effect]:
        effects = self.machine.handle(self.now, event)
        self.seen += effects
        for effect in effects:
            self._do(effect)
        return effects

    def _do(self, effect: Effect) -> None:
        match effect:
            case AskTicket(attempt, body):
                if attempt in self.refuse:
                    self.feed(Refused(attempt, self.refuse[attempt]))
                    return
                try:
                    grant = self.coordinator.grant(body)
                except AssayError as error:
                    self.feed(Refused(attempt, error))
                    return
                self.feed(Granted(attempt, grant))
            case OpenStream(attempt, _, first):
                self.nodes[attempt] = FakeNode(first, self.end_at)
            case SendFrame(attempt, frame):
                lies = attempt in self.faults and self.faults[attempt].lie is not None
                with suppress(*([ProtocolError] if lies else [])):
                    self.nodes[attempt].stream.receive(frame)
            case CloseStream(attempt):
                assert attempt not in self.closed
                self.closed.add(attempt)
            case HandIn(body):
                self.coordinator.take(body)
            case Ended(outcome):
                assert self.outcome is None, "a job ends once"
                self.outcome = outcome
            case _:
                pass

    def events(self, kind: type[_E]) -> list[_E]:
        return [effect for effect in self.seen if isinstance(effect, kind)]

    def check_books(self) -> None:
        """Every ticket ended exactly once: handed in or abandoned."""
        settled = [
            body.ticket if isinstance(body, AbandonJob) else receipt_ticket(body)
            for body in self.coordinator.handed_in
        ]
        assert len(set(settled)) == len(settled)
        assert set(self.coordinator.tickets) == set(settled)
        assert set(self.nodes) == self.closed


def receipt_ticket(body: SubmitReceipt) -> bytes:
    return peek(Receipt, body.receipt).ticket


def first_seed(run: Run) -> bytes:
    return next(iter(run.coordinator.tickets.values())).seed_ticket


def test_a_job_runs_to_its_length_and_leaves_one_receipt() -> None:
    run = Run()
    outcome = run.play()
    assert (outcome.finish, outcome.error, outcome.attempts) == ("length", None, 1)
    assert outcome.tokens == unbroken(first_seed(run), run.job)
    assert [type(body) for body in run.coordinator.handed_in] == [SubmitReceipt]
    assert outcome.segments[0].receipt == run.nodes[1].receipt
    drawn = [token for one in run.events(TokensDrawn) for token in one.tokens]
    assert tuple(drawn) == outcome.tokens
    run.check_books()


def test_the_prompt_does_not_reach_the_coordinator() -> None:
    run = Run()
    run.play()
    assert pack_tokens(run.job.prompt) not in encode(run.coordinator.asked[0])


def test_an_end_token_ends_the_answer() -> None:
    run = Run(job=make_job(stop_tokens=frozenset({END})), end_at=20)
    outcome = run.play()
    assert outcome.finish == "stop"
    assert outcome.tokens == unbroken(first_seed(run), run.job, end_at=20)


_FAULTS = st.builds(
    Fault,
    after=st.integers(0, 99),
    lost=st.sampled_from([None, "peer_gone"]),
    says=st.sampled_from(["engine_failed", "draining", "busy", "internal"]),
) | st.builds(Fault, after=st.integers(0, 99), stall=st.just(True))


@settings(deadline=None, max_examples=60)
@given(
    faults=st.dictionaries(st.integers(1, 5), _FAULTS, max_size=5),
    max_tokens=st.integers(1, 100),
    end_at=st.none() | st.integers(0, 99),
)
def test_whatever_fails_the_answer_is_the_unbroken_one(
    faults: dict[int, Fault], max_tokens: int, end_at: int | None
) -> None:
    job = make_job(max_tokens=max_tokens, stop_tokens=frozenset({END}))
    run = Run(job=job, faults=faults, end_at=end_at, coordinator=FakeCoordinator(nodes=8))
    outcome = run.play()
    assert outcome.error is None
    seed = run.coordinator.tickets[_seed_of(outcome)].seed_ticket
    assert outcome.tokens == unbroken(seed, job, end_at)
    assert tuple(t for one in outcome.segments for t in one.tokens) == outcome.tokens
    run.check_books()


def _seed_of(outcome: Outcome) -> bytes:
    return peek(Ticket, outcome.segments[-1].ticket).seed_ticket


def test_a_resume_says_what_is_held_and_signed_and_tells_the_caller() -> None:
    run = Run(
        faults={1: Fault(after=40, lost="peer_gone"), 2: Fault(after=9, says="engine_failed")}
    )
    outcome = run.play()
    second, third = run.coordinator.asked[1:]
    assert second.resume is not None
    assert third.resume is not None
    assert (second.resume.count, second.n_in, second.max_tokens) == (40, 43, 60)
    assert (third.resume.count, third.n_in, third.max_tokens) == (9, 52, 51)
    assert second.resume.progress is not None
    signed = open_signed(Progress, second.resume.progress, node_key(0).public_key)
    assert 32 <= signed.count <= 40
    assert third.resume.progress is None
    keys = [node_key(i).public_key for i in range(3)]
    assert run.events(Resumed) == [Resumed(keys[0], keys[1], 40), Resumed(keys[1], keys[2], 49)]
    assert [len(one.tokens) for one in outcome.segments] == [40, 9, 51]
    assert third.exclude == tuple(keys[:2])


def test_a_node_lost_after_the_last_token_needs_no_resume() -> None:
    run = Run(faults={1: Fault(after=100, lost="peer_gone")})
    outcome = run.play()
    assert (outcome.finish, outcome.attempts, outcome.error) == ("length", 1, None)
    (body,) = run.coordinator.handed_in
    assert isinstance(body, AbandonJob)
    assert body.progress is not None


def test_a_failure_before_the_first_token_is_a_new_job_elsewhere() -> None:
    run = Run(faults={1: Fault(says="busy")})
    outcome = run.play()
    assert outcome.attempts == 2
    assert run.coordinator.asked[1].resume is None
    assert run.coordinator.asked[1].exclude == (node_key(0).public_key,)
    assert run.coordinator.handed_in[0] == AbandonJob(ticket=(1).to_bytes(16, "big"))
    assert run.events(Resumed) == []


def test_attempts_are_bounded_and_the_last_reason_is_kept() -> None:
    faults = {attempt: Fault(says="engine_failed") for attempt in range(1, 100)}
    run = Run(faults=faults, coordinator=FakeCoordinator(nodes=30))
    outcome = run.play()
    assert (outcome.finish, outcome.attempts) == ("failed", 8)
    assert outcome.error is not None
    assert outcome.error.code == "engine_failed"
    run.check_books()


def test_waits_grow_and_respect_retry_after() -> None:
    busy = AssayError("no_capacity", retry_after_ms=3_000)
    run = Run(refuse={1: AssayError("busy"), 2: AssayError("busy"), 3: busy})
    before = run.now
    waits: list[int] = []
    run.feed(Begin())
    while run.machine.phase is Phase.BACKING_OFF:
        assert run.machine.wake_at is not None
        waits.append(run.machine.wake_at - before)
        before = run.now
        run.turn()
        before = run.now
    assert waits[0] < waits[1] < waits[2] == 3_000_000


def test_busy_nodes_are_asked_again_when_nobody_else_is_free() -> None:
    run = Run(faults={1: Fault(says="busy")}, coordinator=FakeCoordinator(nodes=1))
    outcome = run.play()
    assert outcome.finish == "length"
    assert [len(asked.exclude) for asked in run.coordinator.asked] == [0, 1, 0]


@pytest.mark.parametrize(
    "code", ["insufficient_credit", "model_unknown", "model_denied", "forbidden", "resume_refused"]
)
def test_a_refusal_of_the_coordinator_is_raised_with_its_code(code: str) -> None:
    outcome = Run(refuse={1: AssayError(code)}).play()
    assert outcome.error is not None
    assert (outcome.finish, outcome.error.code, outcome.attempts) == ("failed", code, 1)


def test_a_refused_prompt_is_not_taken_to_another_node() -> None:
    run = Run(faults={1: Fault(says="prompt_refused")}, coordinator=FakeCoordinator(nodes=8))
    outcome = run.play()
    assert outcome.error is not None
    assert (outcome.error.code, outcome.attempts) == ("prompt_refused", 1)


def test_a_refusal_on_resume_keeps_what_is_held_and_settles_the_ticket() -> None:
    run = Run(
        faults={1: Fault(after=40, lost="peer_gone")},
        refuse={2: AssayError("insufficient_credit")},
    )
    outcome = run.play()
    assert len(outcome.tokens) == 40
    (body,) = run.coordinator.handed_in
    assert isinstance(body, AbandonJob)
    assert body.progress is not None


def test_a_prompt_that_does_not_fit_is_raised_at_once() -> None:
    run = Run(faults={1: Fault(says="prompt_too_long")})
    outcome = run.play()
    assert outcome.error is not None
    assert (outcome.error.code, outcome.attempts) == ("prompt_too_long", 1)
    run.check_books()


def test_a_silent_coordinator_is_asked_again_and_a_late_ticket_is_given_back() -> None:
    run = Run()
    begun = run.machine.handle(run.now, Begin())
    (ask,) = begun
    assert isinstance(ask, AskTicket)
    late = run.coordinator.grant(ask.body)
    run.now = run.machine.wake_at or 0
    run.feed(Tick())
    assert run.machine.phase is Phase.BACKING_OFF
    assert run.feed(Granted(1, late)) == [HandIn(AbandonJob(ticket=(1).to_bytes(16, "big")))]
    run.turn()
    assert run.machine.attempt == 2


def test_the_whole_has_a_deadline() -> None:
    faults = {attempt: Fault(after=3 * attempt, stall=True) for attempt in range(1, 9)}
    run = Run(faults=faults, limits=JobLimits(total_us=40_000_000))
    outcome = run.play()
    assert outcome.error is not None
    assert outcome.error.code == "timeout"
    assert run.now < 45_000_000
    run.check_books()


# ---- cancelling -------------------------------------------------------------------------------


def test_a_cancelled_job_is_billed_for_what_was_sent() -> None:
    run = Run()
    run.feed(Begin())
    for _ in range(4):
        run.turn()
    run.feed(CancelAsked())
    assert decode_as(Cancel, run.events(SendFrame)[-1].frame) == Cancel()
    run.turn()
    assert run.outcome is not None
    assert (run.outcome.finish, run.outcome.error) == ("cancelled", None)
    assert len(run.outcome.tokens) == 12
    assert isinstance(run.coordinator.handed_in[0], SubmitReceipt)
    run.check_books()


def test_a_node_that_does_not_answer_a_cancellation_is_left() -> None:
    run = Run(faults={1: Fault(after=12, stall=True)})
    run.feed(Begin())
    for _ in range(4):
        run.turn()
    start = run.now
    run.feed(CancelAsked())
    run.turn()
    assert run.outcome is not None
    assert run.outcome.finish == "cancelled"
    assert run.now - start == run.limits.cancel_us
    run.check_books()


def test_cancelling_before_the_ticket_gives_a_late_one_back() -> None:
    run = Run()
    (ask,) = run.machine.handle(run.now, Begin())
    assert isinstance(ask, AskTicket)
    run.feed(CancelAsked())
    assert run.outcome is not None
    assert run.outcome.finish == "cancelled"
    run.feed(Granted(1, run.coordinator.grant(ask.body)))
    run.check_books()


@pytest.mark.parametrize("events", [(), (Begin(),)], ids=["ready", "backing off"])
def test_a_job_that_waits_for_nobody_is_cancelled_at_once(events: tuple[Event, ...]) -> None:
    run = Run(refuse={1: AssayError("no_capacity")})
    for event in events:
        run.feed(event)
    assert run.machine.phase is (Phase.BACKING_OFF if events else Phase.READY)
    run.feed(CancelAsked())
    assert run.outcome is not None
    assert (run.outcome.finish, run.outcome.tokens) == ("cancelled", ())


def test_without_a_wait_a_refused_job_asks_again_at_once() -> None:
    run = Run(refuse={1: AssayError("busy")}, limits=replace(JobLimits(), backoff_us=0))
    run.feed(Begin())
    assert (run.machine.phase, run.machine.attempt, run.now) == (Phase.STREAMING, 2, 1_000)


# ---- lies -------------------------------------------------------------------------------------


def _chunk(node: FakeNode, **changes: object) -> bytes:
    chunk = decode_as(TokenChunk, node.step())
    return encode(replace(chunk, **changes))  # type: ignore[arg-type]  # tests name real fields


def _progress(signer: Identity | None = None, **changes: object) -> Lie:
    """The next tokens, with a signature that is right but for `changes`."""

    def lie(node: FakeNode) -> bytes:
        running = OutputHash(node.ticket.ticket, make_job().nonce)
        frame = node.step()
        running.update(node.stream.output)
        honest = Progress(
            ticket=node.ticket.ticket, count=node.stream.count, output_hash=running.digest()
        )
        blob = seal(signer or node.key, replace(honest, **changes))  # type: ignore[arg-type]
        return encode(replace(decode_as(TokenChunk, frame), progress=blob))

    return lie


def _receipt(signer: Identity | None = None, **changes: object) -> Lie:
    """A receipt for what was sent, right but for `changes`."""

    def lie(node: FakeNode) -> bytes:
        blob = node.stream.finish("stop", Times(1, 2, 3))[1]
        receipt = open_signed(Receipt, blob, node.key.public_key)
        changed = replace(receipt, **changes)  # type: ignore[arg-type]  # tests name real fields
        return encode(Finished(receipt=seal(signer or node.key, changed)))

    return lie


_LIES: dict[str, Lie] = {
    "garbage": lambda _: b"\xff\x00",
    "wrong position": lambda node: _chunk(node, position=99),
    "more tokens than allowed": lambda node: _chunk(node, tokens=pack_tokens([9] * 101)),
    "token outside the vocabulary": lambda node: _chunk(node, tokens=pack_tokens([VOCABULARY])),
    "tokens after the end": lambda node: _chunk(node, tokens=pack_tokens([END, 9])),
    "progress for another hash": _progress(output_hash=b"\x05" * 32),
    "progress for another count": _progress(count=1),
    "progress signed by another": _progress(signer=node_key(9)),
    "progress of another ticket": _progress(ticket=b"\x09" * 16),
    "receipt for other counts": _receipt(n_out=5),
    "receipt signed by another": _receipt(signer=node_key(9)),
    "receipt for another ticket": _receipt(ticket=b"\x09" * 16),
    "receipt for other tokens": _receipt(output_hash=b"\x09" * 32),
    "receipt for a longer prompt": _receipt(n_in=1_000),
    "stopped without an end token": _receipt(),
    "cancelled by nobody": _receipt(finish="cancelled"),
}


@pytest.mark.parametrize("after", [0, 36])
@pytest.mark.parametrize("lie", list(_LIES))
def test_a_lying_node_is_left_and_the_answer_goes_on(lie: str, after: int) -> None:
    job = make_job(stop_tokens=frozenset({END}), vocabulary=VOCABULARY)
    run = Run(job=job, faults={1: Fault(after=after, lie=_LIES[lie])})
    outcome = run.play()
    assert (outcome.finish, outcome.attempts) == ("length", 2)
    seed = run.coordinator.tickets[_seed_of(outcome)].seed_ticket
    assert outcome.tokens == unbroken(seed, job)
    assert run.coordinator.asked[1].exclude == (node_key(0).public_key,)
    assert (run.coordinator.asked[1].resume is None) == (after == 0)


def test_the_lies_are_caught_for_what_they_are() -> None:
    """The control of the test above: without a change, its frames are accepted."""
    run = Run(faults={1: Fault(after=36, lie=_receipt())})
    assert (run.play().finish, run.machine.attempt) == ("stop", 1)
    run = Run(faults={1: Fault(after=36, lie=_progress())})
    run.feed(Begin())
    for _ in range(13):
        run.turn()
    assert (run.machine.attempt, len(run.machine.held)) == (1, 39)


def test_the_node_may_not_stop_signing() -> None:
    run = Run(job=make_job(max_tokens=200))
    run.feed(Begin())
    for position in range(0, 130, 2):
        chunk = TokenChunk(position=position, tokens=pack_tokens([9, 9]))
        run.feed(Received(1, encode(chunk)))
    assert run.machine.attempt == 2
    assert len(run.machine.held) == 128


@pytest.mark.parametrize(
    "changes",
    [
        {"client": b"\x09" * 32},
        {"model": b"\x09" * 32},
        {"prompt_hash": b"\x09" * 32},
        {"n_in": 9},
        {"max_tokens": 9},
        {"start": 1},
        {"seed_ticket": b"\x09" * 16},
        {"nonce_commitment": b"\x09" * 32},
        {"node": node_key(3).public_key},
        {"price_in": 1_001},
        {"price_out": 2_001},
    ],
)
def test_a_ticket_for_another_job_ends_it(changes: dict[str, object]) -> None:
    job = make_job(price_in_max=1_000, price_out_max=2_000)
    run = Run(job=job, coordinator=FakeCoordinator(changes={1: changes}))
    outcome = run.play()
    assert outcome.error is not None
    assert (outcome.error.code, outcome.attempts) == ("unexpected_message", 1)
    assert run.nodes == {}


@pytest.mark.parametrize(
    "changes", [{"start": 39}, {"start": 0}, {"seed_ticket": (2).to_bytes(16, "big")}]
)
def test_a_resume_elsewhere_in_the_answer_ends_the_job(changes: dict[str, object]) -> None:
    run = Run(
        faults={1: Fault(after=40, lost="peer_gone")},
        coordinator=FakeCoordinator(changes={2: changes}),
    )
    outcome = run.play()
    assert outcome.error is not None
    assert outcome.error.code == "unexpected_message"
    assert len(outcome.tokens) == 40


def test_a_ticket_of_another_coordinator_ends_the_job() -> None:
    run = Run()
    (ask,) = run.machine.handle(run.now, Begin())
    assert isinstance(ask, AskTicket)
    grant = run.coordinator.grant(ask.body)
    ticket = run.coordinator.tickets[(1).to_bytes(16, "big")]
    foreign = TicketGrant(ticket=seal(node_key(5), ticket), route=grant.route)
    run.feed(Granted(1, foreign))
    assert run.outcome is not None
    assert run.outcome.error is not None
    assert run.outcome.error.code == "wrong_coordinator"


def test_frames_of_an_earlier_attempt_are_ignored() -> None:
    run = Run(faults={1: Fault(after=6, lost="peer_gone")})
    run.feed(Begin())
    for _ in range(3):
        run.turn()
    assert run.machine.attempt == 2
    assert run.feed(Received(1, run.nodes[1].step())) == []
    assert run.feed(StreamLost(1, AssayError("peer_gone"))) == []


def test_only_asks_for_the_nodes_named() -> None:
    only = (node_key(2).public_key,)
    run = Run(job=make_job(only=only))
    outcome = run.play()
    assert {one.node for one in outcome.segments} == set(only)
    assert run.coordinator.asked[0].model == MODEL
