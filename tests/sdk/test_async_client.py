"""The asynchronous client over real hosts in memory, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from assay import AsyncClient, Delta, JobFailed, Resumed, read_records, verify_answer
from assay_network.memory import MemoryNetwork
from assay_protocol.cards import encode_card
from assay_protocol.errors import AssayError
from assay_protocol.messages import AbandonJob, SubmitReceipt
from sdk.client_network import CARD, FakeNetwork, running
from sdk.client_world import CLIENT, MODEL, FakeCoordinator, make_job, node_key, unbroken

NODES = [node_key(0), node_key(1), node_key(2)]


@asynccontextmanager
async def connected(fake: FakeNetwork, **options: object) -> AsyncIterator[AsyncClient]:
    fake.coordinator.nodes = len(NODES)
    memory = MemoryNetwork(latency=lambda a, b: 0.02)
    async with running(fake, memory, NODES):
        async with AsyncClient.connect(
            fake.address,
            seed=CLIENT.seed,
            transports=[memory.transport(CLIENT.public_key)],
            **options,  # type: ignore[arg-type]  # tests name real options
        ) as client:
            yield client


async def test_an_answer_with_its_receipt(autojump_clock: object, tmp_path: Path) -> None:
    fake = FakeNetwork(end_at=50)
    store = tmp_path / "receipts"
    async with connected(fake, receipts=store) as client:
        result = await client.complete((11, 12, 13), model="toy", max_tokens=100)
    assert (result.finish_reason, result.usage.completion_tokens) == ("stop", 51)
    assert result.text == "".join(f"{token} " for token in result.tokens[:-1])
    assert result.nodes == (node_key(0).public_key,)
    assert verify_answer(result.receipts).ok
    assert read_records(store.read_bytes()) == result.receipts
    assert [type(body) for body in fake.coordinator.handed_in] == [SubmitReceipt]


async def test_nodes_die_and_the_answer_goes_on(autojump_clock: object) -> None:
    fake = FakeNetwork(lose_after={0: 40, 1: 30})
    async with connected(fake) as client:
        async with client.stream_complete((11, 12, 13), max_tokens=100) as stream:
            events = [event async for event in stream]
    result = stream.result
    keys = [node.public_key for node in NODES]
    resumed = [event for event in events if isinstance(event, Resumed)]
    assert [(one.from_node, one.to_node) for one in resumed] == [
        (keys[0], keys[1]),
        (keys[1], keys[2]),
    ]
    text = "".join(event.text for event in events if isinstance(event, Delta))
    assert text == result.text
    assert (len(result.tokens), result.nodes) == (100, tuple(keys))
    (record,) = result.receipts
    job = replace(make_job(max_tokens=100), nonce=record.nonce)
    assert result.tokens == unbroken((1).to_bytes(16, "big"), job)
    assert verify_answer(result.receipts).ok
    kinds = [type(body) for body in fake.coordinator.handed_in]
    assert sorted(kinds, key=str) == [AbandonJob, AbandonJob, SubmitReceipt]


async def test_leaving_the_stream_cancels_and_hands_the_receipt_in(autojump_clock: object) -> None:
    fake = FakeNetwork()
    async with connected(fake) as client:
        async with client.stream_complete((11, 12, 13), max_tokens=1_000) as stream:
            async for event in stream:
                assert isinstance(event, Delta)
                break
        result = stream.result
        assert result.finish_reason == "cancelled"
        assert 3 <= len(result.tokens) < 1_000
        assert verify_answer(result.receipts).ok
    assert [type(body) for body in fake.coordinator.handed_in] == [SubmitReceipt]


async def test_a_stop_string_ends_the_answer_and_what_came_is_signed(
    autojump_clock: object,
) -> None:
    fake = FakeNetwork()
    async with connected(fake) as client:
        whole = await client.complete((11, 12, 13), max_tokens=60)
        stop = whole.text[40:46]
        async with client.stream_complete((11, 12, 13), max_tokens=1_000, stop=" ") as stream:
            text = "".join([event.text async for event in stream if isinstance(event, Delta)])
        result = stream.result
        other = await client.complete((11, 12, 13), max_tokens=60, stop=["none such", stop])
    assert (result.text, result.finish_reason) == (text, "stop")
    assert " " not in text
    assert text == f"{result.tokens[0]}"
    assert len(result.tokens) < 100
    assert verify_answer(result.receipts).ok
    assert stop not in other.text
    kinds = [type(body) for body in fake.coordinator.handed_in]
    assert kinds == [SubmitReceipt] * 3


async def test_options_reach_the_ticket_and_logprobs_the_caller(autojump_clock: object) -> None:
    fake = FakeNetwork()
    options = {
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.5,
        "logit_bias": {9: 2, 8: -1.5},
        "stop_tokens": [5, 3, 5],  # the fake node draws neither, and would go on after them
        "logprobs": 2,
    }
    async with connected(fake) as client:
        result = await client.complete((11, 12, 13), max_tokens=10, **options)
        with pytest.raises(AssayError, match="sampler_refused"):
            await client.complete((11, 12, 13), logit_bias={CARD.n_vocab: 1.0})
    sampler = fake.coordinator.asked[0].sampler
    assert (sampler.repetition_penalty, sampler.frequency_penalty) == (1.1, 0.5)
    assert [(one.token, one.bias) for one in sampler.logit_bias or ()] == [(8, -1.5), (9, 2.0)]
    assert sampler.stop_tokens == (3, 5)
    assert tuple(one.token for one in result.logprobs) == result.tokens
    assert [len(one.top) for one in result.logprobs] == [2] * len(result.tokens)


async def test_leaving_at_once_asks_nobody_for_long(autojump_clock: object) -> None:
    fake = FakeNetwork()
    async with connected(fake) as client:
        async with client.stream_complete((11, 12, 13)) as stream:
            started = trio.current_time()
        assert trio.current_time() - started < 3.0
        assert (stream.result.tokens, stream.result.finish_reason) == ((), "cancelled")
    settled = [type(body) for body in fake.coordinator.handed_in]
    assert settled == [AbandonJob] * len(fake.coordinator.tickets)


async def test_a_cancelled_task_cancels_its_job(autojump_clock: object) -> None:
    fake = FakeNetwork()
    async with connected(fake) as client:
        with trio.move_on_after(1.0) as scope:
            await client.complete((11, 12, 13), max_tokens=1_000)
        assert scope.cancelled_caught
    assert [type(body) for body in fake.coordinator.handed_in] == [SubmitReceipt]


async def test_a_refusal_is_raised_with_its_code(autojump_clock: object) -> None:
    async with connected(FakeNetwork()) as client:
        with pytest.raises(AssayError, match="prompt_too_long"):
            await client.complete((11,) * 4_000, max_tokens=100)
        with pytest.raises(AssayError, match="model_unknown"):
            await client.complete((11,), model="other")
        with pytest.raises(ValueError, match="max_tokens"):
            await client.complete((11,), max_tokens=100_000)


async def test_a_failed_job_says_why_and_keeps_what_came(autojump_clock: object) -> None:
    fake = FakeNetwork(lose_after={0: 40, 1: 0, 2: 0})
    async with connected(fake) as client:
        with pytest.raises(JobFailed) as caught:
            await client.complete((11, 12, 13), max_tokens=100)
    assert caught.value.code in ("no_capacity", "peer_gone", "engine_failed")
    assert len(caught.value.partial.tokens) >= 36
    assert caught.value.partial.finish_reason == "failed"


async def test_the_card_comes_in_parts_once_and_is_kept(
    autojump_clock: object, tmp_path: Path
) -> None:
    fake = FakeNetwork()
    async with connected(fake, cache=tmp_path) as client:
        await client.complete((11,), max_tokens=3)
        fetched = fake.parts
        assert fetched > 1
        await client.complete((11,), max_tokens=3)
    async with connected(FakeNetwork(coordinator=FakeCoordinator())) as client:
        assert (await client.models())[0].model == MODEL
    again = FakeNetwork()
    async with connected(again, cache=tmp_path) as client:
        await client.complete((11,), max_tokens=3)
    assert (fake.parts, again.parts) == (fetched, 0)


async def test_a_false_card_is_refused(autojump_clock: object) -> None:
    false = encode_card(replace(CARD, pieces=(b"!", *CARD.pieces[1:])))
    async with connected(FakeNetwork(card=false)) as client:
        with pytest.raises(AssayError, match="card_invalid"):
            await client.complete((11,), max_tokens=3)


async def test_the_session_reconnects(autojump_clock: object) -> None:
    fake = FakeNetwork()
    async with connected(fake) as client:
        assert (await client.account()).available == 7
        fake.sessions[0].end(AssayError("peer_gone"))
        await trio.sleep(5)
        assert (await client.account()).key == CLIENT.public_key
    assert len(fake.sessions) == 2


async def test_an_address_without_a_key_is_refused() -> None:
    with pytest.raises(AssayError, match="config_invalid"):
        async with AsyncClient.connect("/ip4/127.0.0.1/tcp/1"):
            raise AssertionError("connected to nobody")


async def test_a_slow_reader_gets_what_it_missed_at_once(autojump_clock: object) -> None:
    fake = FakeNetwork(lose_after={0: 40})
    async with connected(fake) as client:
        async with client.stream_complete((11, 12, 13), max_tokens=100, logprobs=1) as stream:
            await trio.sleep(30)
            events = [event async for event in stream]
    kinds = [type(event) for event in events]
    assert kinds == [Delta, Resumed, Delta]
    first, _, second = events
    assert isinstance(first, Delta)
    assert isinstance(second, Delta)
    assert (*first.tokens, *second.tokens) == stream.result.tokens
    assert len(stream.result.logprobs) == 100
    assert first.node != second.node
