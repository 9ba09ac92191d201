"""An unmodified OpenAI client, a gateway, a coordinator and a node, in processes of their own."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import trio
from openai import OpenAI

from assay import ReceiptRecord, verify_answer
from assay.gateway.api_keys import add_key, revoke_key
from assay_node.engine.scripted import Script, ScriptedEngine
from assay_protocol.adjustments import logprobs_of
from end_to_end.gateway_process import start_gateway
from end_to_end.scripted_network import scripted_network, start_paced

pytestmark = pytest.mark.end_to_end
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"enum": [1, 2, 3]}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
MESSAGES: Any = [{"role": "user", "content": "Hello"}]


async def test_an_openai_client_sees_openai(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    secret = add_key(keys, "tester", requests_per_minute=600)
    async with scripted_network(tmp_path) as network:
        await start_paced(network, "node", 0.002, region="eu-de")
        url = await start_gateway(network, "--keys", str(keys), "--responses", "16")
        await trio.to_thread.run_sync(use, url, secret)
        revoke_key(keys, "tester")
        await trio.sleep(1.1)
        await trio.to_thread.run_sync(refused, url, secret)
        assert secret not in (tmp_path / "gateway.log").read_text()


def use(url: str, secret: str) -> None:
    with OpenAI(base_url=f"{url}/v1", api_key=secret, max_retries=0) as client:
        assert [one.id for one in client.models.list()] == ["scripted"]
        for part in (chat, stream, shaped, respond, complete, place, weigh):
            part(client)
    with httpx.Client(base_url=url, headers={"x-api-key": secret}) as http:
        call_others(http)


def refused(url: str, secret: str) -> None:
    with OpenAI(base_url=f"{url}/v1", api_key=secret, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as error:
            client.models.list()
    assert error.value.code == "invalid_api_key"


def chat(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="scripted", messages=MESSAGES, max_tokens=24, logprobs=True, top_logprobs=2
    )
    answer = raw.parse()
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (24, "length")
    assert answer.choices[0].logprobs is not None
    assert len(answer.choices[0].logprobs.content or ()) == 24
    told = client.get(f"/receipts/{raw.headers['x-assay-receipt']}", cast_to=httpx.Response)
    record = ReceiptRecord.decode(base64.b64decode(told.json()["record"]))
    assert verify_answer((record,)).ok
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="none", messages=MESSAGES)
    assert missing.value.code == "model_not_found"


def stream(client: OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="scripted",
        messages=MESSAGES,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    seen = list(chunks)
    assert seen[-1].usage is not None
    assert seen[-1].usage.completion_tokens == 40
    assert "".join(one.choices[0].delta.content or "" for one in seen[:-1])


def shaped(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="scripted",
        messages=MESSAGES,
        max_tokens=400,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "it", "schema": SCHEMA, "strict": True},
        },
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"colour", "count"}
    tool: Any = {"type": "function", "function": {"name": "paint", "parameters": SCHEMA}}
    called = client.chat.completions.create(
        model="scripted", messages=MESSAGES, max_tokens=400, tools=[tool], tool_choice="required"
    )
    (call,) = called.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert (call.function.name, called.choices[0].finish_reason) == ("paint", "tool_calls")
    assert json.loads(call.function.arguments)["colour"] in ("red", "blue")


def respond(client: OpenAI) -> None:
    with client.responses.stream(model="scripted", input="Hello", max_output_tokens=30) as events:
        seen = list(events)
    assert seen[0].type == "response.created"
    assert seen[-1].type == "response.incomplete"
    final = seen[-1].response
    assert (client.responses.retrieve(final.id)).output_text == final.output_text
    items = client.responses.input_items.list(final.id)
    assert items.data[0].type == "message"
    more = client.responses.create(
        model="scripted", input="And?", max_output_tokens=8, previous_response_id=final.id
    )
    assert more.usage is not None
    assert more.usage.input_tokens > 0


def place(client: OpenAI) -> None:
    def ask(region: str) -> str | None:
        answer = client.chat.completions.create(
            model="scripted", messages=MESSAGES, max_tokens=8, extra_body={"region": region}
        )
        return answer.choices[0].message.content

    assert ask("eu")
    with pytest.raises(openai.BadRequestError) as elsewhere:
        ask("na")
    assert elsewhere.value.code == "region_unserved"


def complete(client: OpenAI) -> None:
    text = client.completions.create(model="scripted", prompt="Once", max_tokens=8, echo=True)
    assert text.choices[0].text.startswith("Once")


def weigh(client: OpenAI) -> None:
    """Two texts, weighed by the node as the script itself weighs them, and signed for."""
    script = ScriptedEngine(Script(end_bias=-100.0), slots=1, context=64, waiting_max=1)
    texts = ["Once upon", "a time"]
    raw = client.completions.with_raw_response.create(
        model="scripted", prompt=texts, max_tokens=0, logprobs=1, echo=True
    )
    for text, choice in zip(texts, raw.parse().choices, strict=True):
        prompt, told = tuple(text.encode()), choice.logprobs
        rows = np.stack([script.logits(prompt[: at + 1]) for at in range(len(prompt) - 1)])
        assert told is not None
        assert choice.text == text
        assert told.token_logprobs is not None
        assert told.token_logprobs == [None, *map(float, logprobs_of(rows, prompt[1:]))]
    for name in raw.headers["x-assay-receipt"].split(", "):
        kept = client.get(f"/receipts/{name}", cast_to=httpx.Response)
        record = ReceiptRecord.decode(base64.b64decode(kept.json()["record"]))
        checked = verify_answer((record,))
        assert checked.ok
        assert "1: prompt logprobs" in [step.name for step in checked.steps]


def call_others(http: httpx.Client) -> None:
    asked = {"model": "scripted", "max_tokens": 8, "messages": MESSAGES}
    message = http.post("/v1/messages", json=asked).json()
    assert (message["type"], message["stop_reason"]) == ("message", "max_tokens")
    counted = http.post("/tokenize", json={"model": "scripted", "prompt": "abc"}).json()
    assert counted["count"] == 3
    assert http.get("/healthz").status_code == 200
    assert http.get("/readyz").json() == {"status": "ready"}
