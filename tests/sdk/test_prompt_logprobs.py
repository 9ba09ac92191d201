"""A prompt's logprobs through the client: given with the first token, kept, checked, bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay import AsyncClient, Delta, verify_answer
from assay.core import JobMachine
from assay.events import (
    AskTicket,
    Begin,
    Effect,
    Ended,
    Event,
    Granted,
    OpenStream,
    Outcome,
    PromptTold,
    Received,
    SendFrame,
    StreamLost,
    TokensDrawn,
)
from assay.records import ReceiptRecord
from assay.verify import verify
from assay_protocol.errors import AssayError
from sdk.client_network import FakeNetwork
from sdk.client_world import (
    CLIENT,
    COORDINATOR,
    GREEDY,
    FakeCoordinator,
    FakeNode,
    make_job,
)
from sdk.test_async_client import connected
from told_cases import told_of

PROMPT = (11, 12, 13, 14, 15)


async def answered(client: AsyncClient) -> list[object]:
    stream = client.stream_complete(PROMPT, max_tokens=4, prompt_logprobs=2)
    async with stream:
        events: list[object] = [event async for event in stream]
    return [*events, stream.result]


async def test_they_come_first_and_stand_in_the_answer_and_its_record(
    autojump_clock: object,
) -> None:
    async with connected(FakeNetwork()) as client:
        told, *deltas, result = await answered(client)
    assert isinstance(told, PromptTold)
    assert all(isinstance(event, Delta) for event in deltas)
    first, *others = result.prompt_logprobs  # type: ignore[attr-defined]  # a Completion
    assert first is None
    assert tuple(others) == told.entries
    assert [entry.token for entry in others] == list(PROMPT[1:])
    assert all(len(entry.top) == 2 for entry in others)
    (record,) = result.receipts  # type: ignore[attr-defined]
    assert record.prompt_logprobs == told_of(PROMPT[1:], 2)
    assert verify_answer([record]).ok
    assert ReceiptRecord.decode(record.encode()) == record


async def test_a_record_of_other_logprobs_than_were_signed_for_fails(
    autojump_clock: object,
) -> None:
    async with connected(FakeNetwork()) as client:
        result = await client.complete(PROMPT, max_tokens=4, prompt_logprobs=0)
        plain = await client.complete(PROMPT, max_tokens=4)
    (record,) = result.receipts
    for told in (b"", told_of(PROMPT[1:], 0, lie=0.5), record.prompt_logprobs[:-8]):
        assert verify(replace(record, prompt_logprobs=told)).failed == ("prompt logprobs",)
    (other,) = plain.receipts
    assert plain.prompt_logprobs == ()
    assert verify(replace(other, prompt_logprobs=told_of(PROMPT[1:], 0))).failed == (
        "prompt logprobs",
    )


async def test_two_operators_nodes_tell_the_same_to_one_caller(autojump_clock: object) -> None:
    async with connected(FakeNetwork()) as client:
        result = await client.complete(PROMPT, max_tokens=4, prompt_logprobs=1, verify="quorum")
    (one,), (other,) = result.receipts, result.twins
    assert one.prompt_logprobs == other.prompt_logprobs == told_of(PROMPT[1:], 1)
    assert len(result.prompt_logprobs) == len(PROMPT)
    assert verify_answer([one]).ok
    assert verify_answer([other]).ok


async def test_a_prompt_of_one_token_has_none_to_tell(autojump_clock: object) -> None:
    async with connected(FakeNetwork()) as client:
        result = await client.complete((11,), max_tokens=4, prompt_logprobs=1)
    assert result.prompt_logprobs == (None,)
    assert verify_answer(result.receipts).ok


async def test_more_than_a_node_may_tell_is_refused_at_once(autojump_clock: object) -> None:
    fake = FakeNetwork()
    async with connected(fake) as client:
        for most in (-1, 21):
            with pytest.raises(AssayError, match=r"sampler_refused.*prompt_logprobs"):
                await client.complete(PROMPT, prompt_logprobs=most)
    assert not fake.coordinator.asked


class Run:
    """One JobMachine; a node is lost after so many frames, by attempt."""

    def __init__(self, lose: dict[int, int]) -> None:
        self.coordinator, self.lose = FakeCoordinator(), lose
        sampler = replace(GREEDY, prompt_logprobs=0)
        job = make_job(prompt=tuple(range(20, 40)), sampler=sampler, max_tokens=20)
        self.machine = JobMachine(job, CLIENT, COORDINATOR.public_key)
        self.told: list[Effect] = []
        self.outcome: Outcome | None = None
        self.now, self.frames = 0, 0
        self.attempt, self.node = 0, None

    def play(self) -> Outcome:
        self.feed(Begin())
        while self.outcome is None:
            assert isinstance(self.node, FakeNode)
            if self.frames == self.lose.get(self.attempt):
                self.feed(StreamLost(self.attempt, AssayError("peer_gone")))
            else:
                self.frames += 1
                self.feed(Received(self.attempt, self.node.step()))
        return self.outcome

    def feed(self, event: Event) -> None:
        for effect in self.machine.handle(self.now, event):
            match effect:
                case AskTicket(attempt, body):
                    self.feed(Granted(attempt, self.coordinator.grant(body)))
                case OpenStream(attempt, _, first):
                    self.attempt, self.node, self.frames = attempt, FakeNode(first), 0
                case SendFrame(_, frame):
                    assert isinstance(self.node, FakeNode)
                    self.node.stream.receive(frame)
                case PromptTold() | TokensDrawn():
                    self.told.append(effect)
                case Ended(outcome):
                    self.outcome = outcome


@pytest.mark.parametrize("lost_after", range(12))
def test_a_node_lost_at_any_frame_leaves_one_telling_before_the_first_token(
    lost_after: int,
) -> None:
    run = Run({1: lost_after})
    outcome = run.play()
    assert outcome.error is None
    assert len(outcome.tokens) == 20
    first, *others = run.told
    assert isinstance(first, PromptTold)
    assert [entry.token for entry in first.entries] == list(range(21, 40))
    assert all(isinstance(effect, TokensDrawn) for effect in others)
    resumed = any(one.receipt is None for one in outcome.segments)
    assert resumed == (lost_after > 7), "seven frames tell, the eighth draws"
    last = outcome.segments[-1]
    assert bool(last.prompt_logprobs) != resumed, "who goes on tells nothing"
