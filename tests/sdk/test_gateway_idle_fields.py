"""Fields that change nothing are still of OpenAI's types: a program that is wrong hears of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdk.gateway_world import gateway

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "x", "max_tokens": 2},
    "/v1/responses": {"input": "x", "max_output_tokens": 2},
}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("/v1/completions", {"user": {}}, "user"),
        ("/v1/chat/completions", {"user": 1}, "user"),
        ("/v1/chat/completions", {"prediction": {}}, "prediction.type"),
        ("/v1/chat/completions", {"prediction": {"type": "content"}}, "prediction.content"),
        ("/v1/chat/completions", {"metadata": {"a": 1}}, "metadata"),
        ("/v1/chat/completions", {"metadata": "a"}, "metadata"),
        ("/v1/chat/completions", {"store": "yes"}, "store"),
        ("/v1/chat/completions", {"service_tier": "best"}, "service_tier"),
        ("/v1/chat/completions", {"reasoning_effort": 3}, "reasoning_effort"),
        ("/v1/chat/completions", {"verbosity": "loud"}, "verbosity"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "tool", "content": "r"}]},
            "messages[0].tool_call_id",
        ),
        ("/v1/chat/completions", {"stop": []}, "stop"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "assistant", "content": "x", "function_call": {}}]},
            "messages[0].function_call",
        ),
        ("/v1/completions", {"seed": 1 << 63}, "seed"),
        ("/v1/responses", {"input": [{**CALL, "call_id": "c" * 65}]}, "input[0].call_id"),
        (
            "/v1/chat/completions",
            {"prediction": {"type": "content", "content": [{"text": "t"}]}},
            "prediction.content[0].type",
        ),
        (
            "/v1/chat/completions",
            {"prediction": {"type": "content", "content": []}},
            "prediction.content",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": []}]},
            "messages[0].content",
        ),
        ("/v1/responses", {"input": [{**CALL, "call_id": ""}]}, "input[0].call_id"),
        ("/v1/responses", {"input": [{**CALL, "id": 1}]}, "input[0].id"),
        ("/v1/responses", {"reasoning": "high"}, "reasoning"),
        ("/v1/responses", {"reasoning": {"effort": "most"}}, "reasoning.effort"),
        ("/v1/responses", {"max_tool_calls": "two"}, "max_tool_calls"),
        ("/v1/responses", {"text": {"verbosity": 1}}, "text.verbosity"),
        (
            "/v1/responses",
            {"input": [CALL, {"type": "function_call_output", "call_id": "c"}]},
            "input[1].output",
        ),
        ("/v1/responses", {"input": [{**CALL, "arguments": None}]}, "input[0].arguments"),
        ("/v1/responses", {"input": [{**CALL, "status": "done"}]}, "input[0].status"),
    ],
)
async def test_a_wrong_one_is_named(
    autojump_clock: object, tmp_path: Path, path: str, change: dict[str, Any], param: str
) -> None:
    async with gateway(tmp_path) as world:
        answer = await world.post(path, {"model": "toy", **BODIES[path], **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_right_ones_are_taken(autojump_clock: object, tmp_path: Path) -> None:
    labels = {"user": "u", "service_tier": "flex", "metadata": {"a": "b"}, "store": False}
    part = {"type": "text", "text": "t"}
    chat = {
        **labels,
        "prediction": {"type": "content", "content": [part]},
        "verbosity": "low",
        "reasoning_effort": "minimal",
    }
    respond = {**labels, "reasoning": {"effort": "low", "summary": "auto"}, "max_tool_calls": 2}
    asked = {
        "/v1/chat/completions": chat,
        "/v1/responses": respond,
        "/v1/completions": {"user": "u"},
    }
    async with gateway(tmp_path) as world:
        for path, more in asked.items():
            answer = await world.post(path, {"model": "toy", **BODIES[path], **more})
            assert answer.status_code == 200, answer.text
