"""POST /v1/completions: plain text on, without a chat template.

`echo` gives the prompt back before the answer. Its logprobs cannot be given: nodes tell those of
the tokens they draw, and no other; `echo` with `logprobs` is refused, rather than half of it given.
One request has one prompt; ask once for each.
"""

from __future__ import annotations

import json
import secrets
import time
from json.encoder import encode_basestring_ascii  # what json.dumps does to a string
from typing import Any, Final

from assay.gateway.chat_api import closing, fingerprint, usage_words
from assay.gateway.chat_request import (
    MODEL_CHARACTERS_MAX,
    answer_tokens,
    shape_options,
    wants_usage,
)
from assay.gateway.exchange import Exchange, network_facts
from assay.gateway.fields import Fields
from assay.gateway.generation import Asked, Choice, Fresh, Generation
from assay.gateway.idle_fields import check_idle_fields
from assay.gateway.logprob_words import completion_logprobs
from assay.gateway.refusal import Refusal, invalid, unsupported
from assay.gateway.sampling_fields import (
    NETWORK,
    SAMPLING,
    ignored_fields,
    network_options,
    sampling_options,
    stop_strings,
)
from assay.gateway.settings import Settings
from assay.gateway.tool_calls import Text
from assay_protocol.limits import LOGPROBS_MAX, PROMPT_TOKENS_MAX

_IGNORED: Final = ("seed",)
_KNOWN: Final = (
    SAMPLING
    | NETWORK
    | {
        "model", "prompt", "max_tokens", "n", "stop", "stream", "stream_options", "logprobs",
        "echo", "response_format", "grammar", "user", "best_of",
    }
)  # fmt: skip
_REFUSED: Final = {"suffix": "the network's models write on, not in between"}


async def completions(exchange: Exchange) -> None:
    """Answer one completion, whole or as a stream."""
    words, stream = read_completion(await exchange.body(), exchange.service.settings)
    await exchange.answer(words.asked, words, stream=stream)


def read_completion(body: dict[str, Any], settings: Settings) -> tuple[CompletionWords, bool]:
    """What is to be drawn and how it is told; whether as a stream."""
    fields = Fields(body)
    fields.only(_KNOWN, _REFUSED)
    check_idle_fields(fields)
    stream = fields.flag("stream")
    options = sampling_options(fields) | network_options(fields, settings)
    options |= shape_options(fields, "response_format", tools=False, must=False)
    options["stop"] = stop_strings(fields, "stop")
    logprobs = fields.integer("logprobs", 0, LOGPROBS_MAX)
    if logprobs is not None:
        options["logprobs"] = logprobs
    echo = fields.flag("echo")
    if echo and logprobs is not None:
        said = "nodes tell logprobs of drawn tokens only, not of the prompt: leave echo or logprobs"
        raise unsupported("echo", said)
    choices = fields.integer("n", 1, settings.choices) or 1
    if (fields.integer("best_of", 1, settings.choices) or choices) != choices:
        raise unsupported("best_of", "all answers are given: best_of must equal n")
    prompt = _prompt(fields)
    if echo and not isinstance(prompt, str):
        raise unsupported("echo", "only a prompt of text is given back")
    asked = Asked(
        model=fields.required_text("model", MODEL_CHARACTERS_MAX),
        max_tokens=answer_tokens(fields, ("max_tokens",), settings),
        choices=choices,
        options=options,
        prompt=prompt,
        ignored=ignored_fields(fields, _IGNORED),
        license=fields.text("license"),
    )
    usage = wants_usage(fields, stream)
    return CompletionWords(asked, prompt if echo and isinstance(prompt, str) else "", usage), stream


class CompletionWords:
    """One answer's chunks, or its body."""

    def __init__(self, asked: Asked, echo: str, usage: bool) -> None:
        self.asked = asked
        self._echo, self._usage = echo, usage
        self._id = f"cmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._offsets = [len(echo)] * asked.choices
        self._pieces: tuple[bytes, ...] = ()
        self._head = ""
        self._tail = ',"usage":null}\n\n' if usage else "}\n\n"

    def begin(self, generation: Generation) -> bytes:
        self._open(generation)
        if not self._echo:
            return b""
        return "".join(self._chunk(i, self._echo) for i in range(self.asked.choices)).encode()

    def fresh(self, fresh: Fresh) -> bytes:
        text = "".join(piece.text for piece in fresh.pieces if isinstance(piece, Text))
        told = "null"
        if fresh.logprobs:
            offset = self._offsets[fresh.choice]
            told = json.dumps(completion_logprobs(fresh.logprobs, self._pieces, offset))
        self._offsets[fresh.choice] += len(text)
        return self._chunk(fresh.choice, text, told).encode() if text or fresh.logprobs else b""

    def end(self, generation: Generation, choices: tuple[Choice, ...]) -> bytes:
        chunks = [self._chunk(i, "", "null", f'"{one.finish}"') for i, one in enumerate(choices)]
        told = network_facts(generation, choices)
        return closing(chunks, told, self._head, generation if self._usage else None)

    def failed(self, refusal: Refusal) -> bytes:
        return b"data: " + json.dumps(refusal.openai()).encode() + b"\n\n"

    def whole(self, generation: Generation, choices: tuple[Choice, ...]) -> dict[str, Any]:
        self._open(generation)
        return {
            **self._known(generation),
            "choices": [self._choice(index, one) for index, one in enumerate(choices)],
            "usage": usage_words(generation),
            "assay": network_facts(generation, choices),
        }

    def _known(self, generation: Generation) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": generation.model.summary.name,
            "system_fingerprint": fingerprint(generation),
        }

    def _open(self, generation: Generation) -> None:
        self._pieces = generation.model.card.pieces
        self._head = f'data: {json.dumps(self._known(generation))[:-1]},"choices":'

    def _chunk(self, index: int, text: str, logprobs: str = "null", finish: str = "null") -> str:
        told = encode_basestring_ascii(text)
        return (
            f'{self._head}[{{"index":{index},"text":{told},"logprobs":{logprobs},'
            f'"finish_reason":{finish}}}]{self._tail}'
        )

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        told = None
        if self.asked.options.get("logprobs") is not None:
            entries = choice.completion.logprobs
            told = completion_logprobs(entries, self._pieces, len(self._echo))
        return {
            "index": index,
            "text": self._echo + choice.text,
            "logprobs": told,
            "finish_reason": choice.finish,
        }


def _prompt(fields: Fields) -> str | tuple[int, ...]:
    """Text, or the model's own tokens; a list of one text counts as that text."""
    prompt = fields.raw("prompt")
    if prompt is None:
        raise Refusal(400, "missing_required_parameter", "prompt is missing", param="prompt")
    if isinstance(prompt, str):
        return prompt
    items = fields.items("prompt", PROMPT_TOKENS_MAX)
    if len(items) == 1 and isinstance(items[0], str):
        return items[0]
    if len(items) == 1 and isinstance(items[0], list):
        items = tuple(items[0])
    if items and all(type(one) is int and 0 <= one < 1 << 32 for one in items):
        return items
    raise invalid("prompt", "prompt is one text, or one list of token ids; ask once for each")
