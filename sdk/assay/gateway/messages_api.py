"""POST /v1/messages, in Anthropic's words: content blocks, and a stream of named events.

Reasoning is one block, a text is one and each call of a tool is one; blocks never overlap.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, Final

from assay.gateway.choice import Choice, Fresh
from assay.gateway.exchange import Exchange, network_facts
from assay.gateway.generation import Asked, Generation
from assay.gateway.messages_request import read_count_request, read_message_request
from assay.gateway.refusal import Refusal
from assay.gateway.tool_calls import CallArguments, CallBegun, Piece, Text, Thought

_STOPS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_CALLER: Final = {"type": "direct"}  # the model itself, not code that runs for it
# Anthropic's says that the thinking is its model's own. Nobody signs ours but the node, in its
# receipt, for all tokens; so this says so, and is not read when it comes back.
UNSIGNED: Final = "unsigned"
_UNSTOPPED: Final = {"stop_reason": None, "stop_sequence": None}


async def messages(exchange: Exchange) -> None:
    """Answer one chat, whole or as a stream."""
    asked, stream = read_message_request(await exchange.body(), exchange.service.settings)
    await exchange.answer(asked, MessageWords(asked), stream=stream)


async def count_tokens(exchange: Exchange) -> None:
    """POST /v1/messages/count_tokens."""
    asked = read_count_request(await exchange.body())
    model = await exchange.service.offered(asked.model)
    (prompt,), _ = await exchange.service.read_prompts(model, asked)
    await exchange.reply({"input_tokens": len(prompt)})


class MessageWords:
    """One answer's events, or its body."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._id = f"msg_{secrets.token_hex(12)}"
        self._index = -1  # of the open block
        self._open: str | None = None  # "thinking", "text" or "tool_use"

    def begin(self, generation: Generation) -> bytes:
        message = self._message(generation, [], _UNSTOPPED)
        return _event("message_start", message=message) + _event("ping")

    def fresh(self, fresh: Fresh) -> bytes:
        return b"".join(self._piece(piece) for piece in fresh.pieces)

    def end(self, generation: Generation, choices: tuple[Choice, ...]) -> bytes:
        (choice,) = choices
        closed = self._begin("text", {"type": "text", "text": ""}) if self._index < 0 else b""
        return (
            closed
            + self._close()
            + _event(
                "message_delta",
                delta=_stop(choice),
                usage=_usage(generation),
                assay=network_facts(generation, choices),
            )
            + _event("message_stop")
        )

    def failed(self, refusal: Refusal) -> bytes:
        return b"event: error\ndata: " + json.dumps(refusal.anthropic()).encode() + b"\n\n"

    def whole(self, generation: Generation, choices: tuple[Choice, ...]) -> dict[str, Any]:
        (choice,) = choices
        blocks: list[dict[str, Any]] = []
        if choice.reasoning:
            thinking = {"type": "thinking", "thinking": choice.reasoning, "signature": UNSIGNED}
            blocks.append(thinking)
        if choice.text or not (choice.calls or blocks):
            blocks.append({"type": "text", "text": choice.text, "citations": None})
        for call in choice.calls:
            blocks.append(
                {
                    "type": "tool_use",
                    "id": call.call,
                    "name": call.name,
                    "input": _arguments(call.arguments),
                    "caller": _CALLER,
                }
            )
        told = self._message(generation, blocks, _stop(choice))
        return told | {"assay": network_facts(generation, choices)}

    def _message(
        self, generation: Generation, blocks: list[dict[str, Any]], stop: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": generation.model.summary.name,
            "content": blocks,
            **stop,
            "stop_details": None,
            "container": None,
            "usage": _usage(generation),
        }

    def _piece(self, piece: Piece) -> bytes:
        match piece:
            case Thought(text):
                begun = b"" if self._open == "thinking" else self._close() + self._thinking()
                return begun + self._delta({"type": "thinking_delta", "thinking": text})
            case Text(text):
                begun = b""
                if self._open != "text":
                    begun = self._close() + self._begin("text", {"type": "text", "text": ""})
                return begun + self._delta({"type": "text_delta", "text": text})
            case CallBegun(_, call, name):
                block = {
                    "type": "tool_use",
                    "id": call,
                    "name": name,
                    "input": {},
                    "caller": _CALLER,
                }
                return self._close() + self._begin("tool_use", block)
            case CallArguments(_, text):
                return self._delta({"type": "input_json_delta", "partial_json": text})

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        self._index, self._open = self._index + 1, kind
        return _event("content_block_start", index=self._index, content_block=block)

    def _thinking(self) -> bytes:
        return self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        signed = b""
        if self._open == "thinking":
            signed = self._delta({"type": "signature_delta", "signature": UNSIGNED})
        self._open = None
        return signed + _event("content_block_stop", index=self._index)


def _stop(choice: Choice) -> dict[str, Any]:
    stopped = None if choice.calls else choice.completion.stop
    reason = "stop_sequence" if stopped is not None else _STOPS.get(choice.finish, "end_turn")
    return {"stop_reason": reason, "stop_sequence": stopped}


def _usage(generation: Generation) -> dict[str, Any]:
    thought = generation.reasoning_tokens
    details = {"thinking_tokens": thought} if thought else None
    return {
        "input_tokens": generation.prompt_tokens,
        "output_tokens": generation.completion_tokens,
        "output_tokens_details": details,
        "cache_creation": None,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": None,
    }


def _arguments(text: str) -> Any:
    """A call that was cut off has no whole arguments."""
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()
