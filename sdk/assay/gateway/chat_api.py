"""POST /v1/chat/completions, in OpenAI's words.

All nullable fields are there: strict clients fail without them. A chunk of a stream is put together
from parts made once, because it is made for every token.
"""

from __future__ import annotations

import json
import secrets
import time
from json.encoder import encode_basestring_ascii  # what json.dumps does to a string
from typing import Any, Final

from assay.gateway.chat_request import ChatRequest, read_chat
from assay.gateway.choice import Choice, Fresh
from assay.gateway.exchange import Exchange, network_facts
from assay.gateway.generation import Generation
from assay.gateway.logprob_words import chat_logprobs
from assay.gateway.refusal import Refusal
from assay.gateway.tool_calls import CallArguments, CallBegun, Piece, Text, Thought

DONE: Final = b"data: [DONE]\n\n"


async def chat_completions(exchange: Exchange) -> None:
    """Answer one chat, whole or as a stream."""
    request = read_chat(await exchange.body(), exchange.service.settings)
    await exchange.answer(request.asked, ChatWords(request), stream=request.stream)


class ChatWords:
    """One answer's chunks, or its body."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._pieces: tuple[bytes, ...] = ()
        self._head = ""
        self._tail = ',"usage":null}\n\n' if request.usage else "}\n\n"

    def begin(self, generation: Generation) -> bytes:
        delta = '{"role":"assistant","content":"","refusal":null}'
        self._open(generation)
        return "".join(
            self._chunk(index, delta) for index in range(self._request.asked.choices)
        ).encode()

    def fresh(self, fresh: Fresh) -> bytes:
        chunks = [self._chunk(fresh.choice, _delta(piece)) for piece in fresh.pieces]
        if fresh.logprobs and self._request.logprobs:
            told = self._logprobs(fresh.logprobs)
            last = chunks.pop() if chunks else self._chunk(fresh.choice, '{"content":""}')
            chunks.append(last.replace('"logprobs":null', f'"logprobs":{told}', 1))
        return "".join(chunks).encode()

    def end(self, generation: Generation, choices: tuple[Choice, ...]) -> bytes:
        chunks = [
            self._chunk(index, "{}", f'"{choice.finish}"') for index, choice in enumerate(choices)
        ]
        told = network_facts(generation, choices)
        return closing(chunks, told, self._head, generation if self._request.usage else None)

    def failed(self, refusal: Refusal) -> bytes:
        return b"data: " + json.dumps(refusal.openai()).encode() + b"\n\n"

    def whole(self, generation: Generation, choices: tuple[Choice, ...]) -> dict[str, Any]:
        self._open(generation)
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": generation.model.summary.name,
            "choices": [self._choice(index, one) for index, one in enumerate(choices)],
            "usage": usage_words(generation),
            "service_tier": "default",
            "system_fingerprint": fingerprint(generation),
            "assay": network_facts(generation, choices),
        }

    def _open(self, generation: Generation) -> None:
        self._pieces = generation.model.card.pieces
        known = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": generation.model.summary.name,
            "service_tier": "default",
            "system_fingerprint": fingerprint(generation),
        }
        self._head = f'data: {json.dumps(known)[:-1]},"choices":'

    def _chunk(self, index: int, delta: str, finish: str = "null") -> str:
        return (
            f'{self._head}[{{"index":{index},"delta":{delta},"logprobs":null,'
            f'"finish_reason":{finish}}}]{self._tail}'
        )

    def _logprobs(self, entries: Any) -> str:
        return json.dumps({"content": chat_logprobs(entries, self._pieces), "refusal": None})

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if choice.calls and not choice.text else choice.text,
            "refusal": None,
            "annotations": [],
        }
        if choice.reasoning:
            message |= {"reasoning_content": choice.reasoning, "reasoning": choice.reasoning}
        if choice.calls:
            message["tool_calls"] = [
                {
                    "id": call.call,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in choice.calls
            ]
        told = None
        if self._request.logprobs:
            told = {"content": chat_logprobs(choice.logprobs, self._pieces), "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": told,
            "finish_reason": choice.finish,
        }


def closing(
    chunks: list[str], facts: dict[str, Any], head: str, counted: Generation | None
) -> bytes:
    """The last chunks of a stream, with what the network did in the last one; then the usage of
    `counted` in one without choices; then the end."""
    chunks[-1] = chunks[-1].replace("}\n\n", f',"assay":{json.dumps(facts)}}}\n\n')
    if counted is not None:
        chunks.append(f'{head}[],"usage":{json.dumps(usage_words(counted))}}}\n\n')
    return "".join(chunks).encode() + DONE


def usage_words(generation: Generation) -> dict[str, Any]:
    """Tokens as they are paid. The prompt counts once, though each choice pays for it."""
    prompt, completion = generation.prompt_tokens, generation.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": generation.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def fingerprint(generation: Generation) -> str:
    """Names the model's file: under one fingerprint, the same weights answer."""
    return f"fp_{generation.model.summary.model.hex()[:16]}"


def _delta(piece: Piece) -> str:
    match piece:
        case Text(text):
            return f'{{"content":{encode_basestring_ascii(text)}}}'
        case Thought(text):  # under DeepSeek's name for it, and under vLLM's and OpenRouter's
            told = encode_basestring_ascii(text)
            return f'{{"reasoning_content":{told},"reasoning":{told}}}'
        case CallBegun(index, call, name):
            begun: dict[str, Any] = {
                "index": index,
                "id": call,
                "type": "function",
                "function": {"name": name, "arguments": ""},
            }
            return json.dumps({"tool_calls": [begun]})
        case CallArguments(index, text):
            more = {"index": index, "function": {"arguments": text}}
            return json.dumps({"tool_calls": [more]})
