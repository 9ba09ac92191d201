"""An answer of /v1/responses in OpenAI's words: output items, and a stream of numbered events.

Events come in the order the API promises: each item is added, filled and done before the next one
begins, and the whole response comes last. What a stream told and what is kept are one object.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from assay.gateway.choice import Choice, Fresh
from assay.gateway.exchange import network_facts
from assay.gateway.generation import Generation
from assay.gateway.logprob_words import chat_logprobs
from assay.gateway.refusal import Refusal
from assay.gateway.responses_request import ResponseRequest
from assay.gateway.tool_calls import CallArguments, CallBegun, Piece, Text, Thought
from assay_protocol.logprobs import TokenLogprobs

# Of the reasoning's own words, from their beginning: the network has no model that sums them up.
SUMMARY_CHARACTERS_MAX: Final = 1_024
_PARTS: Final = {"message": "output_text", "reasoning": "reasoning_text"}
_CUT: Final = {"reason": "max_output_tokens"}


class ResponseWords:
    """One response: its events, or its body."""

    def __init__(self, request: ResponseRequest) -> None:
        self.id = f"resp_{secrets.token_hex(16)}"
        self._request = request
        self._created = int(time.time())
        self._number = 0
        self._output: list[dict[str, Any]] = []
        self._open = False
        self._pieces: tuple[bytes, ...] = ()

    def begin(self, generation: Generation) -> bytes:
        self._pieces = generation.model.card.pieces
        response = self.body("in_progress")
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def fresh(self, fresh: Fresh) -> bytes:
        told = b"".join(self._piece(piece) for piece in fresh.pieces)
        if fresh.logprobs and self._request.logprobs and self._open:
            self._add_logprobs(fresh.logprobs)
        return told

    def end(self, generation: Generation, choices: tuple[Choice, ...]) -> bytes:
        told = b"" if self._output else self._begin(_text_item())
        told += self._close()
        response = self.whole(generation, choices)
        return told + self._event(f"response.{response['status']}", response=response)

    def failed(self, refusal: Refusal) -> bytes:
        return self._event("response.failed", response=self.failure(refusal))

    def failure(self, refusal: Refusal) -> dict[str, Any]:
        """The body of a response that was refused on its way."""
        error = {"code": refusal.code, "message": refusal.message}
        return {**self.body("failed"), "error": error}

    def whole(self, generation: Generation, choices: tuple[Choice, ...]) -> dict[str, Any]:
        (choice,) = choices
        self._pieces = generation.model.card.pieces
        if not self._output:
            self._fill(choice)
        cut = choice.finish == "length"
        usage = {
            "input_tokens": generation.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": generation.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": generation.reasoning_tokens},
            "total_tokens": generation.prompt_tokens + generation.completion_tokens,
        }
        return {
            **self.body("incomplete" if cut else "completed"),
            "model": generation.model.summary.name,
            "completed_at": None if cut else int(time.time()),
            "incomplete_details": _CUT if cut else None,
            "usage": usage,
            "assay": network_facts(generation, choices),
        }

    def body(self, status: str) -> dict[str, Any]:
        """The response as it stands."""
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "completed_at": None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self._request.asked.model,
            "output": list(self._output),
            "usage": None,
            **self._request.echo,
        }

    def _fill(self, choice: Choice) -> None:
        """The output of an answer that was not streamed."""
        if choice.reasoning:
            self._begin(_reasoning_item())
            self._output[-1]["content"][0]["text"] = choice.reasoning
            self._close()
        if choice.text or not (choice.calls or choice.reasoning):
            self._begin(_text_item())
            self._output[-1]["content"][0]["text"] = choice.text
            if self._request.logprobs:
                self._add_logprobs(choice.logprobs)
            self._close()
        for call in choice.calls:
            self._begin(_call_item(call.call, call.name))
            self._output[-1]["arguments"] = call.arguments
            self._close()

    def _add_logprobs(self, entries: tuple[TokenLogprobs, ...]) -> None:
        item = self._output[-1]
        if item["type"] == "message":
            item["content"][0]["logprobs"] += chat_logprobs(entries, self._pieces)

    def _piece(self, piece: Piece) -> bytes:
        match piece:
            case Thought(text):
                begun = self._to("reasoning", _reasoning_item)
                self._output[-1]["content"][0]["text"] += text
                place = self._place(content_index=0)
                return begun + self._event("response.reasoning_text.delta", **place, delta=text)
            case Text(text):
                begun = self._to("message", _text_item)
                self._output[-1]["content"][0]["text"] += text
                return begun + self._event(
                    "response.output_text.delta",
                    **self._place(content_index=0),
                    delta=text,
                    logprobs=[],
                )
            case CallBegun(_, call, name):
                return self._close() + self._begin(_call_item(call, name))
            case CallArguments(_, text):
                self._output[-1]["arguments"] += text
                return self._event(
                    "response.function_call_arguments.delta", **self._place(), delta=text
                )

    def _to(self, kind: str, item: Callable[[], dict[str, Any]]) -> bytes:
        """Go on in the item under way, if it is of that kind, or begin a new one."""
        if self._open and self._output[-1]["type"] == kind:
            return b""
        return self._close() + self._begin(item())

    def _begin(self, item: dict[str, Any]) -> bytes:
        self._output.append(item)
        self._open = True
        shown = {**item, "content": []} if item["type"] in _PARTS else item
        index = len(self._output) - 1
        told = self._event("response.output_item.added", output_index=index, item=shown)
        if item["type"] in _PARTS:
            part = item["content"][0]
            told += self._event(
                "response.content_part.added", **self._place(content_index=0), part=part
            )
        return told

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = False
        item = self._output[-1]
        item["status"] = "completed"
        if item["type"] in _PARTS:
            part = item["content"][0]
            place = self._place(content_index=0)
            more = {"logprobs": part["logprobs"]} if "logprobs" in part else {}
            told = self._event(f"response.{part['type']}.done", **place, text=part["text"], **more)
            told += self._event("response.content_part.done", **place, part=part)
            if item["type"] == "reasoning" and self._request.summary:
                told += self._summary(item)
        else:
            told = self._event(
                "response.function_call_arguments.done",
                **self._place(),
                name=item["name"],
                arguments=item["arguments"],
            )
        index = len(self._output) - 1
        return told + self._event("response.output_item.done", output_index=index, item=item)

    def _summary(self, item: dict[str, Any]) -> bytes:
        """The reasoning's own words, cut, as its summary."""
        text = item["content"][0]["text"]
        cut = text[:SUMMARY_CHARACTERS_MAX].rstrip() + "…"
        part = {
            "type": "summary_text",
            "text": cut if len(text) > SUMMARY_CHARACTERS_MAX else text,
        }
        item["summary"] = [part]
        place, kind = self._place(summary_index=0), "response.reasoning_summary"
        return (
            self._event(f"{kind}_part.added", **place, part={**part, "text": ""})
            + self._event(f"{kind}_text.delta", **place, delta=part["text"])
            + self._event(f"{kind}_text.done", **place, text=part["text"])
            + self._event(f"{kind}_part.done", **place, part=part)
        )

    def _place(self, **more: int) -> dict[str, Any]:
        return {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1, **more}

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {kind}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


def _reasoning_item() -> dict[str, Any]:
    return {
        "id": f"rs_{secrets.token_hex(12)}",
        "type": "reasoning",
        "status": "in_progress",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": ""}],
    }


def _text_item() -> dict[str, Any]:
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "content": [part],
    }


def _call_item(call: str, name: str) -> dict[str, Any]:
    return {
        "id": f"fc_{secrets.token_hex(12)}",
        "type": "function_call",
        "status": "in_progress",
        "call_id": call,
        "name": name,
        "arguments": "",
    }
