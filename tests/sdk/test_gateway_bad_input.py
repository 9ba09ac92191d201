"""Any body at all: an answer or a refusal in the API's shape, never a 500, never an exception.

Bodies are real requests with parts replaced, removed and added, so that most get past the first
checks. The caller raises whatever leaves the application, and a 500 is a fault of ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from sdk.client_network import FakeNetwork
from sdk.gateway_world import World, gateway

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CHAT = {
    "model": "toy",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "t"}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "h",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "content": "r", "tool_call_id": "c"},
    ],
    "max_tokens": 3,
    "stream": False,
    "stop": ["x"],
    "n": 1,
    "temperature": 0.5,
    "logprobs": True,
    "top_logprobs": 1,
    "logit_bias": {"9": 1},
    "tools": [TOOL],
    "tool_choice": "auto",
    "reasoning_effort": "low",
    "reasoning": {"effort": "low", "summary": "auto"},
    "thinking": {"type": "enabled"},
    "include_reasoning": True,
    "chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"},
}
COMPLETION = {"model": "toy", "prompt": "x", "max_tokens": 3, "echo": False, "logprobs": 1}
RESPONSE = {
    "model": "toy",
    "input": [
        {"type": "message", "role": "user", "content": "x"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "h"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "r"},
    ],
    "max_output_tokens": 3,
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
    "metadata": {"a": "b"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "store": True,
}
MESSAGE = {
    "model": "toy",
    "max_tokens": 3,
    "system": [{"type": "text", "text": "s"}],
    "messages": [
        {"role": "user", "content": "x"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "h", "signature": "unsigned"},
                {"type": "tool_use", "id": "i", "name": "f", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "i", "content": "r"}]},
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "auto"},
    "stop_sequences": ["x"],
    "thinking": {"type": "adaptive", "display": "summarized"},
    "output_config": {"effort": "low"},
}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/responses": RESPONSE,
    "/v1/messages": MESSAGE,
    "/v1/messages/count_tokens": {"model": "toy", "messages": MESSAGE["messages"]},
    "/v1/embeddings": {"model": "toy", "input": "x", "encoding_format": "float"},
    "/tokenize": {"model": "toy", "messages": CHAT["messages"]},
    "/detokenize": {"model": "toy", "tokens": [1, 2]},
}
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 3)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["toy", "text", "user", "auto", "required", "function", "f", "[1]", "{}"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def bodies(draw: st.DrawFn, base: Any) -> Any:
    """`base` with up to three parts of it changed."""
    body = json.loads(json.dumps(base))
    for _ in range(draw(st.integers(1, 3))):
        place = body
        while True:
            keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = place[key]
            if isinstance(inner, dict | list) and inner and draw(st.booleans()):
                place = inner
                continue
            if isinstance(place, dict) and draw(st.integers(0, 5)) == 0:
                del place[key]
            else:
                place[key] = draw(values)
            break
    if draw(st.integers(0, 3)) == 0:
        body["stream"] = True
    return body


async def answered(world: World, path: str, body: Any) -> None:
    try:
        data = json.dumps(body).encode()
    except UnicodeEncodeError:
        return
    answer = await world.http.post(path, content=data, headers={"content-type": "application/json"})
    assert answer.whole
    assert answer.status_code != 500, (path, body, answer.text)
    assert answer.headers["x-request-id"]
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert isinstance(error["code"], str), error
        assert error["message"]


@pytest.mark.parametrize("path", sorted(BODIES))
def test_no_body_is_a_fault_of_ours(path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder: Path = tmp_path_factory.mktemp("gateway")

    @settings(max_examples=30)
    @given(st.lists(bodies(BODIES[path]), min_size=1, max_size=12))
    def check(several: list[Any]) -> None:
        async def ask() -> None:
            async with gateway(folder, FakeNetwork(end_at=2), responses=4) as world:
                for body in several:
                    await answered(world, path, body)

        trio.run(ask, clock=MockClock(autojump_threshold=0))

    check()


@pytest.mark.parametrize("path", sorted(BODIES))
async def test_the_bodies_are_served_as_they_are(
    path: str, autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path, FakeNetwork(end_at=2), responses=4) as world:
        body: dict[str, Any] = dict(BODIES[path])
        if path == "/v1/responses":
            body["text"] = {"format": {"type": "text"}}
        answer = await world.post(path, body)
        assert answer.status_code == (400 if path == "/v1/embeddings" else 200), answer.text
