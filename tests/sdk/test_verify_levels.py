"""The levels of verification through the real client: what is asked, awaited, given and raised."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from assay import AnswersDiffer, Delta, JobLimits, NotVerified, Resumed, Verdict, verify_answer
from assay_protocol.errors import AssayError
from assay_protocol.messages import SubmitReceipt
from sdk.client_network import FakeNetwork
from sdk.client_world import AUDITOR, STANDING, FakeCoordinator, make_job, node_key, unbroken
from sdk.test_async_client import connected

FIRST = (1).to_bytes(16, "big")
PROMPT = (11, 12, 13)


@pytest.mark.parametrize("level", ["none", "sample"])
async def test_the_coordinator_is_told_and_nothing_is_awaited(
    autojump_clock: object, level: str
) -> None:
    fake = FakeNetwork()
    async with connected(fake) as client:
        result = await client.complete(PROMPT, max_tokens=9, verify=level)
        assert (result.final, result.verdict, fake.coordinator.questions) == (True, None, [])
        with pytest.raises(ValueError, match="none, sample, now, quorum"):
            await client.complete(PROMPT, verify="maybe")
    assert fake.coordinator.asked[0].verify == (None if level == "sample" else level)


async def test_now_ends_with_the_verdict_and_is_final_only_then(autojump_clock: object) -> None:
    fake = FakeNetwork()
    async with connected(fake) as client:
        async with client.stream_complete(PROMPT, max_tokens=9, verify="now") as stream:
            *deltas, last = [event async for event in stream]
        assert all(isinstance(event, Delta) for event in deltas)
        assert last == Verdict("passed", (FIRST,), (AUDITOR.public_key,))
        assert stream.result.final
        assert stream.result.verdict == last
        async with client.stream_complete(PROMPT, max_tokens=9, verify="now") as left:
            async for event in left:
                if isinstance(event, Delta) and event.tokens:
                    break
    assert not left.result.final, "who leaves before the verdict has no final answer"
    assert fake.coordinator.questions.count(FIRST) == 3
    assert fake.coordinator.asked[0].verify == "now"


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("failed", "audit_failed"),
        ("withheld", "audit_failed"),
        ("unproven", "audit_missing"),
        ("something new", "audit_missing"),
    ],
)
async def test_what_did_not_pass_is_an_error_and_the_tokens_stay(
    autojump_clock: object, outcome: str, code: str
) -> None:
    fake = FakeNetwork(coordinator=FakeCoordinator(outcomes={FIRST: outcome}))
    async with connected(fake) as client:
        with pytest.raises(NotVerified) as caught:
            await client.complete(PROMPT, max_tokens=9, verify="now")
    told, partial = caught.value, caught.value.partial
    assert (told.code, told.verdict.outcome, partial.final) == (code, outcome, False)
    assert (len(partial.tokens), partial.finish_reason) == (9, "length")
    assert verify_answer(partial.receipts).ok


async def test_a_verdict_that_never_comes_is_waited_for_in_bounds(autojump_clock: object) -> None:
    fake = FakeNetwork(coordinator=FakeCoordinator(undecided=10**9))
    limits = JobLimits(verdict_total_us=60_000_000)
    async with connected(fake, limits=limits) as client:
        began = trio.current_time()
        with pytest.raises(NotVerified, match="audit_missing"):
            await client.complete(PROMPT, max_tokens=9, verify="now")
        assert trio.current_time() - began < 62
    assert len(fake.coordinator.questions) < 14, "the waits grow"


async def test_a_statement_about_another_answer_is_not_believed(autojump_clock: object) -> None:
    fake = FakeNetwork(coordinator=FakeCoordinator(false_statement=True))
    async with connected(fake) as client:
        with pytest.raises(NotVerified, match="another answer") as caught:
            await client.complete(PROMPT, max_tokens=9, verify="now")
    assert (caught.value.code, len(caught.value.partial.tokens)) == ("unexpected_message", 9)


async def test_an_answer_whose_beginning_nobody_signed_is_not_verified(
    autojump_clock: object,
) -> None:
    fake = FakeNetwork(lose_after={0: 6})
    async with connected(fake) as client:
        with pytest.raises(NotVerified, match="audit_missing") as caught:
            await client.complete(PROMPT, max_tokens=30, verify="now")
    assert caught.value.verdict.outcome == "unsigned"
    assert [one.verify for one in fake.coordinator.asked] == ["now", "now"]


async def test_quorum_gives_out_what_both_drew(autojump_clock: object) -> None:
    fake = FakeNetwork(lose_after={1: 12})
    async with connected(fake) as client:
        async with client.stream_complete(PROMPT, max_tokens=30, verify="quorum") as stream:
            events = [event async for event in stream]
    result = stream.result
    job = replace(make_job(max_tokens=30), nonce=result.receipts[0].nonce)
    assert result.tokens == unbroken(FIRST, job)
    assert "".join(event.text for event in events if isinstance(event, Delta)) == result.text
    assert sum(isinstance(event, Resumed) for event in events) == 1
    assert (result.final, len(result.receipts), len(result.twins)) == (True, 1, 1)
    assert verify_answer(result.receipts).ok
    assert verify_answer(result.twins).ok
    assert fake.coordinator.asked[1].twin == FIRST
    assert fake.coordinator.asked[1].exclude == (node_key(0).public_key,)


async def test_a_node_that_deviates_is_seen_at_its_token(autojump_clock: object) -> None:
    fake = FakeNetwork(deviate={1: 7})
    async with connected(fake) as client:
        with pytest.raises(AnswersDiffer, match="at token 7") as caught:
            await client.complete(PROMPT, max_tokens=30, verify="quorum")
    partial = caught.value.partial
    assert (len(partial.tokens), partial.final) == (7, False)
    for evidence in (partial.receipts, partial.twins):
        assert len(evidence) == 1
        assert verify_answer(evidence).ok
    kinds = [type(body) for body in fake.coordinator.handed_in]
    assert kinds == [SubmitReceipt, SubmitReceipt]


async def test_a_record_keeps_what_spoke_for_its_node(autojump_clock: object) -> None:
    async with connected(FakeNetwork()) as client:
        result = await client.complete(PROMPT, max_tokens=9)
    assert result.receipts[0].standing == STANDING
    unknown = FakeNetwork(coordinator=FakeCoordinator(standing=None))
    async with connected(unknown) as client:
        result = await client.complete(PROMPT, max_tokens=9)
        assert result.receipts[0].standing is None
        with pytest.raises(AssayError):
            await client.verdict_record(FIRST)
