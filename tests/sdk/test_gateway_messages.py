"""/v1/messages: Anthropic's blocks and events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdk.client_network import FakeNetwork
from sdk.gateway_world import chat_card, gateway

MESSAGES = "/v1/messages"
ASK: dict[str, Any] = {
    "model": "toy",
    "max_tokens": 20,
    "messages": [{"role": "user", "content": "Hello"}],
}
TOOL = {"name": "paint", "description": "paints", "input_schema": {"type": "object"}}


async def test_a_whole_message(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        body = (await world.post(MESSAGES, {**ASK, "system": "Be brief"})).json()
        assert (body["type"], body["role"], body["stop_reason"]) == (
            "message",
            "assistant",
            "end_turn",
        )
        assert body["content"][0]["type"] == "text"
        assert body["usage"]["output_tokens"] == 13
        stopped = (await world.post(MESSAGES, {**ASK, "stop_sequences": ["w", " "]})).json()
        assert stopped["stop_reason"] == "stop_sequence"
        assert stopped["stop_sequence"] in ("w", " ")
        short = (await world.post(MESSAGES, {**ASK, "max_tokens": 5})).json()
        assert short["stop_reason"] == "max_tokens"


async def test_a_streamed_message_has_its_events_in_order(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as world:
        events = await world.events(MESSAGES, ASK)
        kinds = [event["type"] for event in events]
        assert kinds[:3] == ["message_start", "ping", "content_block_start"]
        assert set(kinds[3:-3]) == {"content_block_delta"}
        assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
        assert events[-2]["delta"]["stop_reason"] == "end_turn"
        assert events[-2]["usage"]["output_tokens"] == 13
        assert events[0]["message"]["content"] == []


async def test_turns_with_calls_and_results_reach_the_template(
    autojump_clock: object, tmp_path: Path
) -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Paint it"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "...", "signature": "x"},
                {"type": "text", "text": "Well"},
                {"type": "tool_use", "id": "call_1", "name": "paint", "input": {"n": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "done"},
                {"type": "text", "text": "And now?"},
            ],
        },
    ]
    asked = {**ASK, "messages": turns, "tools": [TOOL]}
    async with gateway(tmp_path) as world:
        del asked["max_tokens"]
        counted = await world.post(f"{MESSAGES}/count_tokens", asked)
        assert counted.json()["input_tokens"] > 100
        body = await world.post(MESSAGES, {**asked, "max_tokens": 5})
        assert body.status_code == 200
        (sent,) = world.network.coordinator.asked
        assert sent.n_in == counted.json()["input_tokens"]
        none = {**asked, "tool_choice": {"type": "none"}}
        fewer = await world.post(f"{MESSAGES}/count_tokens", none)
        assert fewer.json()["input_tokens"] < counted.json()["input_tokens"]


async def test_a_template_that_knows_tools_is_told_of_them(
    autojump_clock: object, tmp_path: Path
) -> None:
    template = "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}x"
    async with gateway(tmp_path, card=chat_card(chat_template=template)) as world:
        asked = {"model": "toy", "messages": ASK["messages"], "tools": [TOOL]}
        counted = await world.post(f"{MESSAGES}/count_tokens", asked)
        assert counted.json()["input_tokens"] == len("[paint]x")


async def test_a_demanded_tool_sends_a_grammar(autojump_clock: object, tmp_path: Path) -> None:
    async with gateway(tmp_path, FakeNetwork(end_at=3)) as world:
        choice = {"type": "tool", "name": "paint"}
        asked = {**ASK, "tools": [TOOL, {**TOOL, "name": "wash"}], "tool_choice": choice}
        # The fake node keeps to no grammar: what it says is no call, and is given as text.
        body = (await world.post(MESSAGES, asked)).json()
        assert [block["type"] for block in body["content"]] == ["text"]
        (sent,) = world.network.coordinator.asked
        assert sent.sampler.grammar is not None


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1_024}}, "thinking"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "source"),
        ({"tools": [{**TOOL, "type": "bash_20250124"}]}, "tools[0].type"),
        ({"tools": [TOOL, TOOL]}, "one name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice"),
        ({"mcp_servers": [{"url": "x"}]}, "behalf"),
    ],
)
async def test_what_is_refused(
    autojump_clock: object, tmp_path: Path, change: dict[str, Any], param: str
) -> None:
    async with gateway(tmp_path) as world:
        answer = await world.post(MESSAGES, {**ASK, **change})
        assert answer.status_code == 400
        error = answer.json()
        assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
        assert param in error["error"]["message"]
