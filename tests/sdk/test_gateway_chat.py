"""/v1/chat/completions and /v1/completions: whole, streamed, and everything a client may ask."""

from __future__ import annotations

import base64
from pathlib import Path

from assay import ReceiptRecord, verify_answer
from sdk.client_network import FakeNetwork
from sdk.client_world import node_key
from sdk.gateway_world import gateway

ASK = {"model": "toy", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}


async def test_a_whole_answer_with_its_receipt(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        answer = await world.post("/v1/chat/completions", ASK)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        (choice,) = body["choices"]
        assert choice["message"]["content"]
        assert choice["message"]["refusal"] is None
        assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)
        assert body["usage"]["completion_tokens"] == 13
        assert body["usage"]["total_tokens"] == 13 + body["usage"]["prompt_tokens"]
        assert answer.headers["x-assay-node"] == node_key(0).public_key.hex()
        told = await world.http.get(f"/v1/receipts/{answer.headers['x-assay-receipt']}")
        receipt = told.json()
        assert str(receipt["credit"]) == answer.headers["x-assay-credit"]
        record = ReceiptRecord.decode(base64.b64decode(receipt["record"]))
        assert verify_answer((record,)).ok
        assert (await world.http.get("/v1/receipts/00")).status_code == 404


async def test_a_stream_tells_the_same(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        options = {"stream_options": {"include_usage": True}}
        events = await world.events("/v1/chat/completions", {**ASK, **options})
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert len({event["id"] for event in events}) == 1
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 13
    last = events[-2]
    assert (last["choices"][0]["finish_reason"], last["choices"][0]["delta"]) == ("stop", {})
    assert last["assay"]["nodes"] == [node_key(0).public_key.hex()]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in events[:-2])


async def test_logprobs_stops_and_choices(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path, FakeNetwork(end_at=40)) as world:
        asked = {**ASK, "n": 2, "logprobs": True, "top_logprobs": 2, "temperature": 0.5}
        body = (await world.post("/v1/chat/completions", asked)).json()
        assert [choice["index"] for choice in body["choices"]] == [0, 1]
        assert len(body["assay"]["receipts"]) == 2
        for choice in body["choices"]:
            assert choice["finish_reason"] == "length"
            assert len(choice["logprobs"]["content"]) == 20
            assert len(choice["logprobs"]["content"][0]["top_logprobs"]) == 2
        events = await world.events("/v1/chat/completions", asked)
        told = [one["choices"][0] for one in events if one["choices"][0]["logprobs"]]
        assert sum(len(one["logprobs"]["content"]) for one in told) == 40
        assert {one["index"] for one in told} == {0, 1}
        stopped = (await world.post("/v1/chat/completions", {**ASK, "stop": " "})).json()
        assert " " not in stopped["choices"][0]["message"]["content"]
        assert stopped["choices"][0]["finish_reason"] == "stop"


async def test_options_reach_the_ticket(autojump_clock: object, tmp_path: Path) -> None:
    options = {
        "temperature": 1,
        "top_p": 0,
        "top_k": -1,
        "presence_penalty": 0.5,
        "frequency_penalty": -1,
        "logit_bias": {"9": 2, "8": -1.5},
        "seed": 7,
        "verify": "none",
        "node": node_key(1).public_key.hex(),
    }
    async with gateway(tmp_path) as world:
        answer = await world.post("/v1/chat/completions", {**ASK, **options})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-assay-ignored"] == "seed"
        assert answer.headers["x-assay-node"] == node_key(1).public_key.hex()
        (asked,) = world.network.coordinator.asked
        assert asked.verify == "none"
        assert (asked.sampler.temperature, asked.sampler.top_k) == (1.0, 0)
        assert 0 < asked.sampler.top_p < 0.01
        assert asked.sampler.logit_bias is not None
        assert [one.token for one in asked.sampler.logit_bias] == [8, 9]
        streamed = await world.post("/v1/chat/completions", {**ASK, **options, "stream": True})
        assert streamed.headers["x-assay-ignored"] == "seed"  # once: Caller would not have it twice


async def test_a_node_that_dies_is_not_noticed(autojump_clock: object, tmp_path: Path) -> None:
    fake = FakeNetwork(end_at=60, lose_after={0: 30})
    async with gateway(tmp_path, fake) as world:
        events = await world.events("/v1/chat/completions", {**ASK, "max_tokens": 100})
        nodes = [node.public_key.hex() for node in (node_key(0), node_key(1))]
        assert events[-1]["assay"]["nodes"] == nodes
        assert events[-1]["choices"][0]["finish_reason"] == "stop"


async def test_what_is_asked_for_is_cut_to_what_fits(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as world:
        asked = {**ASK, "max_tokens": 1_000_000}
        assert (await world.post("/v1/chat/completions", asked)).status_code == 200
        assert world.network.coordinator.asked[-1].max_tokens == 2_048
        long = {**ASK, "messages": [{"role": "user", "content": "x y " * 3_000}]}
        refused = await world.post("/v1/chat/completions", long)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        assert refused.json()["error"]["param"] == "messages"
        # litellm and others know this error by these words.
        assert "This model's maximum context length is" in refused.json()["error"]["message"]


async def test_completions_echo_tokens_and_logprobs(autojump_clock: object, tmp_path: Path) -> None:
    asked = {"model": "toy", "prompt": "Once", "max_tokens": 8}
    async with gateway(tmp_path) as world:
        body = (await world.post("/v1/completions", {**asked, "echo": True})).json()
        assert body["choices"][0]["text"].startswith("Once")
        events = await world.events("/v1/completions", {**asked, "echo": True})
        assert events[0]["choices"][0]["text"] == "Once"
        body = (await world.post("/v1/completions", {**asked, "logprobs": 2})).json()
        (choice,) = body["choices"]
        told = choice["logprobs"]
        assert len(told["tokens"]) == len(told["text_offset"]) == 8
        whole = [one for one in told["tokens"] if "\ufffd" not in one]  # else a character's part
        assert all(one in choice["text"] for one in whole)
        events = await world.events("/v1/completions", {**asked, "logprobs": 2})
        streamed = [one["choices"][0]["logprobs"] for one in events]
        offsets = [at for one in streamed if one for at in one["text_offset"]]
        assert offsets == sorted(offsets)
        tokens = {**asked, "prompt": [11, 12, 13]}
        assert (await world.post("/v1/completions", tokens)).status_code == 200
        assert world.network.coordinator.asked[-1].n_in == 3
        for wrong in ({"suffix": "x"}, {"prompt": [999_999]}):
            refused = await world.post("/v1/completions", {**asked, **wrong})
            assert refused.status_code == 400, wrong
