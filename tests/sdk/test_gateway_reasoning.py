"""Reasoning models at the gateway: each API tells reasoning apart, whole and streamed."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from assay.records import ReceiptRecord
from assay_protocol.cards import ModelCard, TokenType
from assay_protocol.grammars import read_grammar
from sdk.client_network import FakeNetwork
from sdk.gateway_world import World, chat_card, gateway

# As Qwen3 has it: thinking can be switched off, and earlier reasoning is the template's affair.
TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}{% endfor %}<|assistant|>"
)
SWITCHED = (
    TURNS + "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
)
OPENED = TURNS + "{{ '<think>\\n' }}"  # as DeepSeek-R1 has it
EFFORT = TURNS + "{{ reasoning_effort }}"
MARKS = {300: "<think>", 301: "</think>"}  # tokens; all others of a text are its bytes
THOUGHT, ANSWER = "It is 5 * 11 more.", "It is 555."
HOW = "<think>\nIt is 5 * 11 more.\n</think>\n\n"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
ASK: dict[str, Any] = {"model": "toy", "messages": [{"role": "user", "content": "15 * 37?"}]}
TOOL = {"name": "paint", "input_schema": {"type": "object"}}
CALL = '<tool_call>\n{"name": "paint", "arguments": {"n": 1}}\n</tool_call>'


def marked_card(template: str, kind: TokenType = TokenType.USER_DEFINED) -> ModelCard:
    """A card whose marks are tokens: plain ones, or silent control tokens."""
    plain = chat_card(chat_template=template)
    pieces, types = list(plain.pieces), bytearray(plain.token_types)
    for token, mark in MARKS.items():
        pieces[token] = b"" if kind is TokenType.CONTROL else mark.encode()
        types[token] = kind
    texts = (*plain.texts, *MARKS.items())
    return replace(plain, pieces=tuple(pieces), token_types=bytes(types), texts=texts)


def spelled(tokens: Sequence[int]) -> str:
    return "".join(MARKS.get(token) or chr(token) for token in tokens)


def tokens_of(text: str) -> list[int]:
    parts = re.split("(</?think>)", text)
    of = {mark: [token] for token, mark in MARKS.items()}
    return [token for part in parts for token in of.get(part, part.encode())]


@asynccontextmanager
async def thinking(
    folder: Path,
    template: str = SWITCHED,
    answer: str = ANSWER,
    kind: TokenType = TokenType.USER_DEFINED,
    **settings: Any,
) -> AsyncIterator[tuple[World, list[str]]]:
    """A gateway whose model reasons, and the prompts that reached it."""
    prompts: list[str] = []

    def says(tokens: Sequence[int]) -> list[int]:
        prompts.append(prompt := spelled(tokens))
        if prompt.endswith("</think>\n\n"):
            return tokens_of(answer)
        how = HOW.removeprefix("<think>\n") if prompt.endswith("<think>\n") else HOW
        return tokens_of(how + answer)

    card = marked_card(template, kind)
    async with gateway(folder, FakeNetwork(says=says), card, **settings) as world:
        yield world, prompts


@pytest.mark.parametrize("kind", [TokenType.USER_DEFINED, TokenType.CONTROL])
@pytest.mark.parametrize("template", [SWITCHED, OPENED])
async def test_a_chat_tells_reasoning_beside_its_answer(
    autojump_clock: object, tmp_path: Path, template: str, kind: TokenType
) -> None:
    async with thinking(tmp_path, template, kind=kind) as (world, _):
        body = (await world.post(CHAT, ASK)).json()
        message, details = body["choices"][0]["message"], body["usage"]["completion_tokens_details"]
        assert message["content"] == ANSWER
        assert message["reasoning_content"] == message["reasoning"] == THOUGHT
        opened = template is OPENED  # the mark and the blank after it are the prompt's then
        before = tokens_of(HOW[: HOW.index("</think>")])
        assert details["reasoning_tokens"] == len(before) - 2 * opened
        chunks = await world.events(CHAT, {**ASK, "stream_options": {"include_usage": True}})
        deltas = [one["choices"][0]["delta"] for one in chunks if one["choices"]]
        assert "".join(one.get("content") or "" for one in deltas) == ANSWER
        assert "".join(one.get("reasoning_content", "") for one in deltas) == THOUGHT
        assert "".join(one.get("reasoning", "") for one in deltas) == THOUGHT
        kinds = ["reasoning" in one for one in deltas if one.get("content") or "reasoning" in one]
        assert kinds == sorted(kinds, reverse=True), "reasoning comes first"
        assert chunks[-1]["usage"]["completion_tokens_details"] == details


async def test_reasoning_can_be_left_out_and_switched_off(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with thinking(tmp_path) as (world, prompts):
        hidden = (await world.post(CHAT, {**ASK, "include_reasoning": False})).json()
        assert "reasoning_content" not in hidden["choices"][0]["message"]
        assert hidden["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
        deltas = [
            one["choices"][0]["delta"]
            for one in await world.events(CHAT, {**ASK, "include_reasoning": False})
        ]
        assert not any("reasoning" in one for one in deltas)
        assert "".join(one.get("content") or "" for one in deltas) == ANSWER
        for asked in (
            {"reasoning_effort": "none"},
            {"reasoning_effort": "minimal"},
            {"reasoning": {"effort": "none"}},
            {"thinking": {"type": "disabled"}},
            {"chat_template_kwargs": {"enable_thinking": False}},
            {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}},
            {"response_format": {"type": "json_object"}},
        ):
            answer = await world.post(CHAT, {**ASK, **asked})
            assert prompts[-1].endswith("</think>\n\n"), asked
            assert answer.json()["choices"][0]["message"]["content"] == ANSWER
            assert answer.json()["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
            assert "x-assay-ignored" not in answer.headers
        for asked in ({"reasoning_effort": "low"}, {"thinking": {"type": "enabled"}}):
            await world.post(CHAT, {**ASK, **asked})
            assert prompts[-1].endswith("<|assistant|>")


async def test_what_a_template_has_no_variable_for_is_told(
    autojump_clock: object, tmp_path: Path
) -> None:
    asked = {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}
    async with thinking(tmp_path, TURNS) as (world, _):
        whole = await world.post(CHAT, {**ASK, **asked, "verbosity": "low"})
        told = "verbosity, reasoning_effort, chat_template_kwargs.enable_thinking"
        assert whole.headers["x-assay-ignored"] == told
        streamed = await world.post(CHAT, {**ASK, **asked, "verbosity": "low", "stream": True})
        assert streamed.headers["x-assay-ignored"] == told
        summed = await world.post(CHAT, {**ASK, "reasoning": {"summary": "auto"}})
        assert summed.headers["x-assay-ignored"] == "reasoning.summary"
        respond = {"model": "toy", "input": "Hi", "reasoning": {"effort": "high"}}
        assert (await world.post(RESPONSES, respond)).headers["x-assay-ignored"] == "reasoning"
        budget = {"thinking": {"type": "enabled", "budget_tokens": 1_024}, "max_tokens": 1_100}
        answer = await world.post(MESSAGES, {**ASK, **budget})
        assert answer.headers["x-assay-ignored"] == "thinking, thinking.budget_tokens"


@pytest.mark.parametrize(
    ("effort", "said"), [("minimal", "low"), ("medium", "medium"), ("xhigh", "high")]
)
async def test_an_effort_reaches_a_template_that_knows_efforts(
    autojump_clock: object, tmp_path: Path, effort: str, said: str
) -> None:
    async with thinking(tmp_path, EFFORT) as (world, prompts):
        await world.post(CHAT, {**ASK, "reasoning_effort": effort})
        assert prompts[-1].endswith(f"<|assistant|>{said}")


async def test_earlier_reasoning_goes_to_the_template(
    autojump_clock: object, tmp_path: Path
) -> None:
    more = {"role": "user", "content": "And?"}
    async with thinking(tmp_path, responses=4) as (world, prompts):
        for name in ("reasoning_content", "reasoning"):
            before = {"role": "assistant", "content": "1", name: "because"}
            await world.post(CHAT, {**ASK, "messages": [*ASK["messages"], before, more]})
            assert "<|assistant|><think>because</think>1<|user|>And?" in prompts[-1]
        blocks = [
            {"type": "thinking", "thinking": "because", "signature": "unsigned"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "1"},
        ]
        turns = [*ASK["messages"], {"role": "assistant", "content": blocks}, more]
        count = {**ASK, "messages": turns}
        await world.post(MESSAGES, {**count, "max_tokens": 99})
        assert "<|assistant|><think>because</think>1<|user|>And?" in prompts[-1]
        counted = (await world.post(f"{MESSAGES}/count_tokens", count)).json()["input_tokens"]
        assert counted == len(tokens_of(prompts[-1]))
        off = {**count, "thinking": {"type": "disabled"}}
        fewer = (await world.post(f"{MESSAGES}/count_tokens", off)).json()["input_tokens"]
        assert fewer == counted + len(tokens_of("<think>\n\n</think>\n\n"))
        first = (await world.post(RESPONSES, {"model": "toy", "input": "Hi"})).json()
        again = {"model": "toy", "input": "And?", "previous_response_id": first["id"]}
        await world.post(RESPONSES, again)
        assert f"<think>{THOUGHT}</think>{ANSWER}<|user|>And?" in prompts[-1]
        items = [{"role": "user", "content": "Hi"}, *first["output"], more]
        await world.post(RESPONSES, {"model": "toy", "input": items})
        assert f"<think>{THOUGHT}</think>{ANSWER}<|user|>And?" in prompts[-1]


async def test_calls_after_reasoning_are_still_read(autojump_clock: object, tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "paint"}}]
    async with thinking(tmp_path, answer=CALL) as (world, _):
        choice = (await world.post(CHAT, {**ASK, "tools": tools})).json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"n": 1}'
        assert choice["message"]["content"] is None
        assert choice["message"]["reasoning_content"] == THOUGHT
        body = (await world.post(MESSAGES, {**ASK, "max_tokens": 200, "tools": [TOOL]})).json()
        assert [one["type"] for one in body["content"]] == ["thinking", "tool_use"]
        respond = {"model": "toy", "input": "Hi", "tools": [{"type": "function", "name": "paint"}]}
        body = (await world.post(RESPONSES, respond)).json()
        assert [one["type"] for one in body["output"]] == ["reasoning", "function_call"]


async def test_an_answer_cut_within_reasoning_is_reasoning_alone(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with thinking(tmp_path) as (world, _):
        choice = (await world.post(CHAT, {**ASK, "max_tokens": 6})).json()["choices"][0]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["content"] == ""
        assert choice["message"]["reasoning_content"] == "It i"
        body = (await world.post(MESSAGES, {**ASK, "max_tokens": 6})).json()
        assert [one["type"] for one in body["content"]] == ["thinking"]
        respond = {"model": "toy", "input": "Hi", "max_output_tokens": 6}
        body = (await world.post(RESPONSES, respond)).json()
        assert [one["type"] for one in body["output"]] == ["reasoning"]
        assert body["status"] == "incomplete"


JSON = {"type": "json_object"}


@pytest.mark.parametrize("template", [SWITCHED, OPENED])
async def test_json_may_follow_reasoning_where_that_was_asked_for(
    autojump_clock: object, tmp_path: Path, template: str
) -> None:
    """The fake node keeps to no grammar: what is held here is which one it was sent."""
    call = '{"name": "paint", "arguments": {"n": 1}}'
    async with thinking(tmp_path, template, call) as (world, prompts):
        asked = {**ASK, "reasoning_effort": "low"}
        shaped = (await world.post(CHAT, {**asked, "response_format": JSON})).json()
        message = shaped["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == (call, THOUGHT)
        function = {"type": "function", "function": {"name": "paint"}}
        more = {"tools": [function], "tool_choice": "required"}
        told = await world.post(CHAT, {**asked, **more})
        message = told.json()["choices"][0]["message"]
        assert message["tool_calls"][0]["function"]["arguments"] == '{"n": 1}'
        assert message["reasoning_content"] == THOUGHT
        record = (await world.http.get(f"/v1/receipts/{told.headers['x-assay-receipt']}")).json()
        grammar = ReceiptRecord.decode(base64.b64decode(record["record"])).grammar or b""
        kind, text = read_grammar(grammar)
        assert kind == "lark"
        assert text.startswith("start: reasoning" if template is OPENED else 'start: ("<think>"')
        assert "paint" in text
        assert not prompts[-1].endswith("</think>\n\n")
        # A grammar of the caller's own binds from the first token, so there is no reasoning.
        own = await world.post(CHAT, {**asked, "grammar": {"regex": "[^x]*"}})
        message = own.json()["choices"][0]["message"]
        assert "reasoning_content" not in message
        assert own.headers["x-assay-ignored"] == "reasoning_effort"


async def test_a_stop_string_is_looked_for_in_the_answer(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with thinking(tmp_path) as (world, _):
        message = (await world.post(CHAT, {**ASK, "stop": " is"})).json()["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == ("It", THOUGHT)


async def test_logprobs_are_of_the_tokens_after_the_reasoning(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with thinking(tmp_path) as (world, _):
        closing = MARKS[301]
        told = (await world.post(CHAT, {**ASK, "logprobs": True})).json()["choices"][0]
        entries = told["logprobs"]["content"]
        assert "".join(one["token"] for one in entries) == f"{closing}\n\n{ANSWER}"
        chunks = await world.events(CHAT, {**ASK, "logprobs": True})
        streamed = [
            entry
            for chunk in chunks
            for entry in (chunk["choices"][0]["logprobs"] or {"content": ()})["content"]
        ]
        assert streamed == entries


async def test_a_message_has_a_block_of_thinking(autojump_clock: object, tmp_path: Path) -> None:
    asked = {**ASK, "max_tokens": 2_048, "thinking": {"type": "enabled", "budget_tokens": 1_024}}
    async with thinking(tmp_path) as (world, _):
        body = (await world.post(MESSAGES, asked)).json()
        thought = {"type": "thinking", "thinking": THOUGHT, "signature": "unsigned"}
        assert body["content"] == [thought, {"type": "text", "text": ANSWER, "citations": None}]
        assert body["usage"]["output_tokens_details"]["thinking_tokens"] > 0
        events = await world.events(MESSAGES, asked)
        begun = [one for one in events if one["type"] == "content_block_start"]
        assert [one["content_block"]["type"] for one in begun] == ["thinking", "text"]
        deltas = [one["delta"] for one in events if one["type"] == "content_block_delta"]
        assert "".join(one.get("thinking", "") for one in deltas) == THOUGHT
        assert "".join(one.get("text", "") for one in deltas) == ANSWER
        signed = [one for one in deltas if one["type"] == "signature_delta"]
        assert signed == [{"type": "signature_delta", "signature": "unsigned"}]
        ended = [one["index"] for one in events if one["type"] == "content_block_stop"]
        assert ended == [0, 1]
        omitted = {**asked, "thinking": {"type": "adaptive", "display": "omitted"}}
        body = (await world.post(MESSAGES, omitted)).json()
        assert [one["type"] for one in body["content"]] == ["text"]
        off = (await world.post(MESSAGES, {**asked, "thinking": {"type": "disabled"}})).json()
        assert off["usage"]["output_tokens_details"] is None


async def test_a_response_has_an_item_of_reasoning(autojump_clock: object, tmp_path: Path) -> None:
    asked = {"model": "toy", "input": "Hi", "reasoning": {"effort": "low", "summary": "auto"}}
    async with thinking(tmp_path) as (world, _):
        body = (await world.post(RESPONSES, asked)).json()
        item, message = body["output"]
        assert item["content"] == [{"type": "reasoning_text", "text": THOUGHT}]
        assert item["summary"] == [{"type": "summary_text", "text": THOUGHT}]
        assert message["content"][0]["text"] == ANSWER
        assert body["reasoning"] == {"effort": "low", "summary": "auto"}
        assert body["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
        events = await world.events(RESPONSES, asked)
        kinds = list(dict.fromkeys(one["type"].removeprefix("response.") for one in events))
        assert kinds == [
            "created", "in_progress", "output_item.added", "content_part.added",
            "reasoning_text.delta", "reasoning_text.done", "content_part.done",
            "reasoning_summary_part.added", "reasoning_summary_text.delta",
            "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
            "output_text.delta", "output_text.done", "completed",
        ]  # fmt: skip
        assert [one["sequence_number"] for one in events] == list(range(len(events)))
        last = events[-1]["response"]["output"]
        assert [(one["type"], one["status"]) for one in last] == [
            ("reasoning", "completed"),
            ("message", "completed"),
        ]
        for event in events[2:-1]:  # OpenAI's own types read those of items
            EVENT.validate_python(event)
        deltas = [one for one in events if one["type"] == "response.reasoning_text.delta"]
        assert "".join(one["delta"] for one in deltas) == THOUGHT
        plain = (await world.post(RESPONSES, {**asked, "reasoning": {"effort": "low"}})).json()
        assert plain["output"][0]["summary"] == []


async def test_a_long_summary_is_cut(autojump_clock: object, tmp_path: Path) -> None:
    asked = {"model": "toy", "input": "Hi", "reasoning": {"summary": "detailed"}}
    fake = FakeNetwork(says=lambda prompt: tokens_of(f"<think>{'so ' * 500}</think>Yes."))
    card = marked_card(SWITCHED)
    async with gateway(tmp_path, fake, card, max_tokens=2_000) as world:
        item = (await world.post(RESPONSES, asked)).json()["output"][0]
        assert len(item["content"][0]["text"]) == 1_499
        (part,) = item["summary"]
        assert item["content"][0]["text"].startswith(part["text"].removesuffix("…"))
        assert len(part["text"]) <= 1_025


@pytest.mark.parametrize(
    ("path", "more", "param"),
    [
        (CHAT, {"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        (CHAT, {"chat_template_kwargs": {"enable_thinking": "no"}},
         "chat_template_kwargs.enable_thinking"),
        (CHAT, {"chat_template_kwargs": {"reasoning_effort": "x" * 33}},
         "chat_template_kwargs.reasoning_effort"),
        (CHAT, {"chat_template_kwargs": {"thinking_budget": -1}},
         "chat_template_kwargs.thinking_budget"),
        (CHAT, {"chat_template_kwargs": []}, "chat_template_kwargs"),
        (CHAT, {"thinking": {"type": "deep"}}, "thinking.type"),
        (CHAT, {"include_reasoning": 1}, "include_reasoning"),
        (CHAT, {"reasoning_effort": "most"}, "reasoning_effort"),
        (MESSAGES, {"thinking": {}}, "thinking.type"),
        (MESSAGES, {"thinking": {"type": "deep"}}, "thinking.type"),
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 9}}, "thinking.budget_tokens"),
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 4_096}},
         "thinking.budget_tokens"),
        (MESSAGES, {"thinking": {"type": "adaptive", "display": "full"}}, "thinking.display"),
        (MESSAGES, {"output_config": {"effort": "some"}}, "output_config.effort"),
        (MESSAGES, {"output_config": {"format": {"type": "json_schema"}}}, "output_config.format"),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_it_is_named(
    autojump_clock: object, tmp_path: Path, path: str, more: dict[str, Any], param: str
) -> None:
    async with thinking(tmp_path) as (world, prompts):
        answer = await world.post(path, {**ASK, "max_tokens": 2_048, **more})
        assert answer.status_code == 400, answer.text
        assert param in answer.text
        assert not prompts


async def test_control_tokens_in_a_variable_stay_text(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with thinking(tmp_path, EFFORT) as (world, prompts):
        kwargs = {"reasoning_effort": "low<end>"}
        await world.post(CHAT, {**ASK, "chat_template_kwargs": kwargs})
        assert prompts[-1].endswith("low<end>"), "spelled out, and no token"
