"""Two nodes draw one answer: what is given out, what ends it, and what is left as evidence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    Outcome,
    PromptTold,
    Received,
    Refused,
    Segment,
    SendFrame,
    StreamLost,
    Tick,
    TokensDrawn,
)
from assay.quorum import QuorumMachine, what_it_means
from assay_protocol.errors import AssayError
from assay_protocol.messages import AbandonJob, Receipt, SubmitReceipt
from assay_protocol.signing import open_signed, peek, seal
from sdk.client_world import (
    CLIENT,
    COORDINATOR,
    END,
    GREEDY,
    FakeCoordinator,
    FakeNode,
    make_job,
    node_key,
    unbroken,
)

FIRST = (1).to_bytes(16, "big")


@dataclass(slots=True)
class Twice:
    """Drives one machine: at each turn one of the running nodes sends a frame."""

    job: Job = field(default_factory=lambda: make_job(verify="quorum", max_tokens=40))
    deviate: dict[int, int] = field(default_factory=dict)  # by attempt, as the machine counts
    lose: dict[int, int] = field(default_factory=dict)  # by attempt: after so many tokens
    lie: dict[int, float] = field(default_factory=dict)  # by attempt, about the prompt
    class_id: str = "test/cpu"
    end_at: int | None = None
    coordinator: FakeCoordinator = field(default_factory=FakeCoordinator)
    now: int = 1_000
    given: list[int] = field(default_factory=list)
    nodes: dict[int, FakeNode] = field(default_factory=dict)
    handed_in: list[object] = field(default_factory=list)
    told: list[PromptTold] = field(default_factory=list)
    ends: int = 0
    outcome: Outcome | None = None
    machine: QuorumMachine = field(init=False)

    def __post_init__(self) -> None:
        self.machine = QuorumMachine(self.job, CLIENT, COORDINATOR.public_key)

    def play(self, order: list[int]) -> Outcome:
        self.feed(Begin())
        for turn in range(10_000):
            if self.outcome is not None:
                return self.outcome
            running = sorted(self.nodes)
            if running:
                self.step(running[order[turn % len(order)] % len(running)])
            else:
                assert self.machine.wake_at is not None
                self.now = max(self.now, self.machine.wake_at)
                self.feed(Tick())
        raise AssertionError("the job does not end")

    def step(self, attempt: int) -> None:
        node = self.nodes[attempt]
        after = self.lose.get(attempt)
        if after is not None and node.stream.count >= after:
            del self.nodes[attempt]
            self.feed(StreamLost(attempt, AssayError("peer_gone")))
        else:
            self.feed(Received(attempt, node.step()))

    def feed(self, event: Event) -> None:
        for effect in self.machine.handle(self.now, event):
            self.do(effect)

    def do(self, effect: Effect) -> None:
        match effect:
            case AskTicket(attempt, body):
                try:
                    self.feed(Granted(attempt, self.coordinator.grant(body)))
                except AssayError as error:
                    self.feed(Refused(attempt, error))
            case OpenStream(attempt, _, first):
                deviate_at = self.deviate.get(attempt)
                self.nodes[attempt] = FakeNode(
                    first,
                    self.end_at,
                    deviate_at=deviate_at,
                    lie=self.lie.get(attempt, 0.0),
                    class_id=self.class_id,
                )
            case SendFrame(attempt, frame):
                if attempt in self.nodes:
                    self.nodes[attempt].stream.receive(frame)
            case CloseStream(attempt):
                self.nodes.pop(attempt, None)
            case HandIn(body):
                self.handed_in.append(body)
            case PromptTold():
                assert not self.given, "told of after the first token"
                self.told.append(effect)
            case TokensDrawn(position, tokens):
                assert position == len(self.given)
                self.given.extend(tokens)
            case Ended(outcome):
                self.ends += 1
                self.outcome = outcome


@given(order=st.lists(st.integers(0, 1), min_size=1, max_size=12), end=st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_two_honest_nodes_give_the_answer_whoever_is_quicker(order: list[int], end: int) -> None:
    run = Twice(
        end_at=end, job=make_job(verify="quorum", max_tokens=40, stop_tokens=frozenset({END}))
    )
    outcome = run.play(order)
    assert outcome.tokens == tuple(run.given) == unbroken(FIRST, run.job, end)
    assert (outcome.error, outcome.finish) == (None, "stop" if end < 40 else "length")
    assert run.ends == 1
    (one,), (other,) = outcome.segments, outcome.twin
    assert one.node != other.node
    assert one.tokens == other.tokens
    first, second = (run.coordinator.tickets[t] for t in sorted(run.coordinator.tickets))
    assert first.seed_ticket == second.seed_ticket == FIRST
    assert [type(body) for body in run.handed_in] == [SubmitReceipt, SubmitReceipt]


@given(
    order=st.lists(st.integers(0, 1), min_size=1, max_size=12),
    side=st.integers(0, 1),
    at=st.integers(0, 39),
)
@settings(max_examples=40, deadline=None)
def test_nothing_after_the_first_difference_is_given_out(
    order: list[int], side: int, at: int
) -> None:
    run = Twice(deviate={2 + side: at})
    outcome = run.play(order)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.finish) == ("answers_differ", "failed")
    assert f"at token {at};" in outcome.error.message
    assert outcome.tokens == tuple(run.given)
    assert len(run.given) == at
    for segment in (*outcome.segments, *outcome.twin):
        receipt = open_signed(Receipt, segment.receipt or b"", segment.node)
        assert receipt.n_out == len(segment.tokens) > at, "both signed for what they sent"


def test_a_lost_node_is_replaced_on_its_side_and_never_by_the_other_sides() -> None:
    run = Twice(lose={2: 9, 3: 12})
    outcome = run.play([0, 1])
    assert outcome.tokens == unbroken(FIRST, run.job)
    sides = [{one.node for one in outcome.segments}, {one.node for one in outcome.twin}]
    assert [len(side) for side in sides] == [2, 2]
    assert not sides[0] & sides[1]
    assert sum(isinstance(body, AbandonJob) for body in run.handed_in) == 2


def test_without_a_second_operator_the_job_fails_and_both_tickets_end() -> None:
    run = Twice(coordinator=FakeCoordinator(nodes=1))
    outcome = run.play([0])
    assert outcome.error is not None
    assert (outcome.error.code, outcome.tokens) == ("no_capacity", ())
    assert [type(body) for body in run.handed_in] == [SubmitReceipt]


def test_a_second_ticket_of_another_seed_is_refused() -> None:
    changes: dict[int, dict[str, object]] = {2: {"seed_ticket": (2).to_bytes(16, "big")}}
    outcome = Twice(coordinator=FakeCoordinator(changes=changes)).play([0, 1])
    assert outcome.error is not None
    assert outcome.error.code == "unexpected_message"


def test_a_cancelled_quorum_keeps_what_both_drew() -> None:
    run = Twice()
    run.feed(Begin())
    for attempt in (2, 2, 3):
        run.step(attempt)
    run.feed(CancelAsked())
    while run.outcome is None:
        run.step(min(run.nodes))
    assert (run.outcome.finish, run.outcome.error) == ("cancelled", None)
    assert run.outcome.tokens == tuple(run.given) == unbroken(FIRST, run.job)[:3]
    assert [type(body) for body in run.handed_in] == [SubmitReceipt, SubmitReceipt]


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (("llama.cpp/c/cpu/plain/E", "llama.cpp/c/cpu/plain/E"), "one of the nodes deviated"),
        (("llama.cpp/c/cpu/plain/E", "llama.cpp/c/cpu/fa/E"), "honest noise"),
        (("llama.cpp/c/cpu/fast/F", "llama.cpp/c/cpu/fast/F"), "honest noise"),
    ],
)
def test_a_difference_accuses_only_where_both_claim_the_same_bits(
    classes: tuple[str, str], says: str
) -> None:
    outcome = Twice(deviate={3: 5}).play([0, 1])
    pairs = zip((*outcome.segments, *outcome.twin), classes, strict=True)
    segments = [_of_class(one, class_id) for one, class_id in pairs]
    assert says in what_it_means(segments)


def _of_class(segment: Segment, class_id: str) -> Segment:
    receipt = peek(Receipt, segment.receipt or b"")
    node = next(k for k in map(node_key, range(8)) if k.public_key == segment.node)
    return replace(segment, receipt=seal(node, replace(receipt, class_id=class_id)))


# ---- about the prompt ---------------------------------------------------------------------------

ASKS = replace(GREEDY, prompt_logprobs=1)
TURNS = st.lists(st.integers(0, 1), min_size=1, max_size=12)


def asking(**changes: object) -> Job:
    return make_job(verify="quorum", max_tokens=6, sampler=ASKS, **changes)


@given(order=TURNS)
@settings(max_examples=30, deadline=None)
def test_what_both_tell_of_the_prompt_is_given_out_once_and_before_the_answer(
    order: list[int],
) -> None:
    run = Twice(job=asking(prompt=tuple(range(20, 30))), class_id="test/x/E")
    outcome = run.play(order)
    assert outcome.error is None
    (told,) = run.told
    assert [entry.token for entry in told.entries] == list(range(21, 30))
    assert told.node == outcome.segments[0].node
    (one,), (other,) = outcome.segments, outcome.twin
    assert one.prompt_logprobs == other.prompt_logprobs != b""


@given(order=TURNS, liar=st.integers(0, 1))
@settings(max_examples=30, deadline=None)
def test_no_token_is_given_out_where_one_of_two_lies_about_the_prompt(
    order: list[int], liar: int
) -> None:
    run = Twice(job=asking(), lie={2 + liar: 2.5})
    outcome = run.play(order)
    assert outcome.error is not None
    assert outcome.error.code == "answers_differ"
    assert "about prompt token 1 by 2.5 nats" in outcome.error.message
    assert (run.given, run.told, outcome.tokens) == ([], [], ())
    receipts = [one.receipt for one in (*outcome.segments, *outcome.twin)]
    assert all(receipts), "both signed for what they told: that is the evidence"


@pytest.mark.parametrize(("class_id", "passes"), [("test/x/E", False), ("test/x/F", True)])
def test_a_small_difference_is_honest_noise_unless_both_are_of_one_exact_class(
    class_id: str, passes: bool
) -> None:
    run = Twice(job=asking(), lie={3: 1e-3}, class_id=class_id)
    outcome = run.play([0, 1])
    assert (outcome.error is None) == passes
    if outcome.error is not None:
        assert outcome.error.code == "answers_differ"
        assert "both say they compute exactly as test/x/E" in outcome.error.message


def test_many_small_differences_are_no_noise() -> None:
    prompt = tuple(range(20, 120))
    run = Twice(job=asking(prompt=prompt), lie={2: 0.5})
    error = run.play([0, 1]).error
    assert error is not None
    assert "all tokens by 0.5 nats on average" in error.message
