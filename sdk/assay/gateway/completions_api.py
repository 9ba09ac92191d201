"""POST /v1/completions: plain text on, without a chat template.

`echo` gives the prompt back before the answer, and with `logprobs` those of its tokens: this is how
lm-eval and others weigh texts. `max_tokens` 0, for those who want nothing but that, draws one token
all the same, since a job draws at least one; it is paid and not told. A prompt may be several, of
which each is answered `n` times: choices count through them in order, as OpenAI's do.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict
from json.encoder import encode_basestring_ascii  # what json.dumps does to a string
from typing import Any, Final

from assay.gateway.chat_api import closing, fingerprint, usage_words
from assay.gateway.chat_request import (
    MODEL_CHARACTERS_MAX,
    answer_tokens,
    shape_options,
    wants_usage,
)
from assay.gateway.choice import Choice, Fresh
from assay.gateway.exchange import Exchange, network_facts
from assay.gateway.fields import Fields
from assay.gateway.generation import Asked, Generation, Prompt
from assay.gateway.idle_fields import check_idle_fields
from assay.gateway.logprob_words import CompletionLogprobs
from assay.gateway.refusal import Refusal, invalid, missing, unsupported
from assay.gateway.sampling_fields import (
    ANSWER_TOKENS_MAX,
    NETWORK,
    SAMPLING,
    ignored_fields,
    network_options,
    sampling_options,
    stop_strings,
)
from assay.gateway.settings import Settings
from assay.gateway.tool_calls import Text
from assay_protocol.detokenizer import Detokenizer
from assay_protocol.limits import LOGPROBS_MAX, PROMPT_TOKENS_MAX
from assay_protocol.logprobs import TokenLogprobs

PROMPTS_MAX: Final = 32  # of one request
ANSWERS_MAX: Final = 64  # to all of them
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
        options["prompt_logprobs"] = logprobs
    choices = fields.integer("n", 1, settings.choices) or 1
    if (fields.integer("best_of", 1, settings.choices) or choices) != choices:
        raise unsupported("best_of", "all answers are given: best_of must equal n")
    prompts = _prompts(fields)
    if choices * len(prompts) > ANSWERS_MAX:
        raise invalid("n", f"n times the number of prompts is at most {ANSWERS_MAX}")
    none_asked = echo and fields.integer("max_tokens", 0, ANSWER_TOKENS_MAX) == 0
    asked = Asked(
        model=fields.required_text("model", MODEL_CHARACTERS_MAX),
        max_tokens=1 if none_asked else answer_tokens(fields, ("max_tokens",), settings),
        choices=choices * len(prompts),
        options=options,
        prompts=prompts,
        ignored=ignored_fields(fields, _IGNORED),
        license=fields.text("license"),
    )
    usage = wants_usage(fields, stream)
    return CompletionWords(asked, echo=echo, hide=none_asked, usage=usage), stream


class CompletionWords:
    """One answer's chunks, or its body. `echo`: the prompt first; `hide`: and nothing else."""

    def __init__(self, asked: Asked, *, echo: bool, hide: bool, usage: bool) -> None:
        self.asked = asked
        self._echo, self._hide, self._usage = echo, hide, usage
        self._logprobs = asked.options.get("logprobs") is not None
        self._id = f"cmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._prompts: list[tuple[int, ...]] = []  # of each choice, and what is given back of it
        self._echoes: list[str] = []
        self._offsets: list[int] = []
        self._pieces: tuple[bytes, ...] = ()
        self._head = ""
        self._tail = ',"usage":null}\n\n' if usage else "}\n\n"

    def begin(self, generation: Generation) -> bytes:
        self._open(generation)
        if not self._echo or self._logprobs:  # then each comes with its prompt's logprobs
            return b""
        return "".join(self._chunk(i, text) for i, text in enumerate(self._echoes)).encode()

    def fresh(self, fresh: Fresh) -> bytes:
        if fresh.prompt_logprobs:
            text = self._echoes[fresh.choice]
            told = self._prompt_words(fresh.choice, fresh.prompt_logprobs)
            return self._chunk(fresh.choice, text, json.dumps(asdict(told))).encode()
        if self._hide:
            return b""
        text = "".join(piece.text for piece in fresh.pieces if isinstance(piece, Text))
        words = "null"
        if fresh.logprobs:
            offset = self._offsets[fresh.choice]
            told = self._answer_words(CompletionLogprobs(), fresh.logprobs, offset)
            words = json.dumps(asdict(told))
        self._offsets[fresh.choice] += len(text)
        return self._chunk(fresh.choice, text, words).encode() if text or fresh.logprobs else b""

    def end(self, generation: Generation, choices: tuple[Choice, ...]) -> bytes:
        chunks = [
            self._chunk(i, "", "null", f'"{self._finish(one)}"') for i, one in enumerate(choices)
        ]
        told = network_facts(generation, choices)
        return closing(chunks, told, self._head, generation if self._usage else None)

    def failed(self, refusal: Refusal) -> bytes:
        return b"data: " + json.dumps(refusal.openai()).encode() + b"\n\n"

    def whole(self, generation: Generation, choices: tuple[Choice, ...]) -> dict[str, Any]:
        self._open(generation)
        return {
            **self._known(generation),
            "choices": [self._choice(i, one) for i, one in enumerate(choices)],
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
        places = [generation.place_of(i) for i in range(self.asked.choices)]
        self._prompts = [generation.prompts[place] for place in places]
        self._echoes = [self._echo_of(place, generation.prompts[place]) for place in places]
        self._offsets = [len(text) for text in self._echoes]
        self._head = f'data: {json.dumps(self._known(generation))[:-1]},"choices":'

    def _chunk(self, index: int, text: str, logprobs: str = "null", finish: str = "null") -> str:
        told = encode_basestring_ascii(text)
        return (
            f'{self._head}[{{"index":{index},"text":{told},"logprobs":{logprobs},'
            f'"finish_reason":{finish}}}]{self._tail}'
        )

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        echoed, completion = self._echoes[index], choice.completion
        told = None
        if self._logprobs:
            told = CompletionLogprobs()
            if self._echo:
                told = self._prompt_words(index, completion.prompt_logprobs)
            if not self._hide:
                self._answer_words(told, completion.logprobs, len(echoed))
        return {
            "index": index,
            "text": echoed + ("" if self._hide else choice.text),
            "logprobs": None if told is None else asdict(told),
            "finish_reason": self._finish(choice),
        }

    def _finish(self, choice: Choice) -> str:
        return "length" if self._hide else choice.finish

    def _echo_of(self, place: int, prompt: tuple[int, ...]) -> str:
        """What is given back of a prompt: itself, or its tokens' texts where those are told of one
        by one. A token that steers the model has none."""
        given = self.asked.prompts[place] if self._echo else ""
        if isinstance(given, str) and not (self._echo and self._logprobs):
            return given
        text = Detokenizer(self._pieces)
        return text.push(prompt) + text.flush()

    def _prompt_words(
        self, choice: int, entries: Sequence[TokenLogprobs | None]
    ) -> CompletionLogprobs:
        return CompletionLogprobs().add(self._prompts[choice], entries, self._pieces, 0)

    def _answer_words(
        self, told: CompletionLogprobs, entries: Sequence[TokenLogprobs], offset: int
    ) -> CompletionLogprobs:
        return told.add([one.token for one in entries], entries, self._pieces, offset)


def _prompts(fields: Fields) -> Sequence[Prompt]:
    """One text or list of the model's own tokens, or several of them."""
    prompt = fields.raw("prompt")
    if prompt is None:
        raise missing("prompt")
    if isinstance(prompt, str):
        return (prompt,)
    items = fields.items("prompt", PROMPT_TOKENS_MAX, 1)
    if _are_tokens(items):
        return (items,)
    if len(items) > PROMPTS_MAX:
        raise invalid("prompt", f"a request has at most {PROMPTS_MAX} prompts")
    prompts = [tuple(one) if isinstance(one, list) else one for one in items]
    for one in prompts:
        if not isinstance(one, str) and not (isinstance(one, tuple) and _are_tokens(one)):
            raise invalid("prompt", "a prompt is a text, or a list of token ids")
    return prompts


def _are_tokens(items: Sequence[Any]) -> bool:
    return bool(items) and all(type(one) is int and 0 <= one < 1 << 32 for one in items)
