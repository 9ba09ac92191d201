"""Grammars with the real model: valid JSON from every prompt, and decode equals replay bit by bit.

ASSAY_SCHEMA_PROMPTS says how many prompts are asked for JSON (200 for the whole check).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]  # a test of ours needs no stubs
import pytest
import trio

from assay_node.engine.grammar import dialect
from assay_node.engine.interface import Chunk, Generate, Replay
from assay_node.engine.llama import Model
from assay_node.engine.profiles import FLASH
from assay_node.engine.supervisor import LlamaEngine, open_llama_engine
from assay_node.models.card import build_card
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError
from assay_protocol.grammars import pack_grammar
from assay_protocol.masks import Matcher, Vocabulary
from assay_protocol.messages import Sampler, TokenBias

pytestmark = [pytest.mark.model, pytest.mark.slow]

PROMPTS: Final = int(os.environ.get("ASSAY_SCHEMA_PROMPTS", "8"))
TIMEOUT_SECONDS: Final = 60.0 + 8 * PROMPTS
SLOTS: Final = 4
MAX_TOKENS: Final = 160
SAMPLER = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 16},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "kind": {"enum": ["cat", "dog", "tree"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
        "home": {
            "type": "object",
            "properties": {"lat": {"type": "integer", "minimum": -90, "maximum": 90}},
            "required": [],
            "additionalProperties": False,
        },
        "free": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    },
    "required": ["name", "age", "kind", "tags", "free"],
    "additionalProperties": False,
}
GRAMMAR: Final = pack_grammar("json_schema", json.dumps(SCHEMA))
Answer = tuple[tuple[int, ...], bytes, str]


@pytest.fixture(scope="module")
def model() -> Path:
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    found = Path(os.environ.get("ASSAY_TEST_MODEL") or Path.home() / ".cache/assay/models" / name)
    assert found.is_file(), f"put {name} at {found}, or its path into ASSAY_TEST_MODEL"
    return found


@pytest.fixture(scope="module")
def card(model: Path) -> ModelCard:
    return build_card(model, name="smollm2", price_in=0, price_out=0)


@pytest.fixture
async def engine(model: Path) -> AsyncIterator[LlamaEngine]:
    with trio.fail_after(TIMEOUT_SECONDS):
        async with open_llama_engine(
            model, bytes(32), slots=SLOTS, context=512, threads=1, silence_seconds=20.0
        ) as opened:
            yield opened


def _request(number: int, **changes: Any) -> Generate:
    prompt = tuple(500 + (37 * i + 911 * number) % 40_000 for i in range(6 + number % 20))
    asked = Generate(prompt, 0, MAX_TOKENS, SAMPLER, bytes([number % 256]) * 32, grammar=GRAMMAR)
    return replace(asked, **changes)


def _replay(request: Generate, output: tuple[int, ...]) -> Replay:
    return Replay(
        request.prompt,
        output,
        request.start,
        request.sampler,
        request.seed,
        grammar=request.grammar,
    )


async def _write(engine: LlamaEngine, request: Generate) -> Answer:
    tokens: tuple[int, ...] = ()
    logits = b""
    chunk: Chunk | None = None
    async with engine.generate(request) as chunks:
        async for chunk in chunks:
            tokens, logits = tokens + chunk.tokens, logits + chunk.logits
    assert chunk is not None
    return tokens, logits, chunk.finish or ""


async def _write_all(engine: LlamaEngine, requests: list[Generate]) -> list[Answer]:
    answers: dict[int, Answer] = {}

    async def worker(first: int) -> None:
        for number in range(first, len(requests), 2 * SLOTS):
            answers[number] = await _write(engine, requests[number])

    async with trio.open_nursery() as nursery:
        for first in range(2 * SLOTS):
            nursery.start_soon(worker, first)
    return [answers[number] for number in range(len(requests))]


def _text(card: ModelCard, tokens: tuple[int, ...]) -> bytes:
    return b"".join(card.pieces[token] for token in tokens)


def test_the_engine_and_the_card_tell_the_same_pieces(model: Path, card: ModelCard) -> None:
    loaded = Model(model, FLASH)
    try:
        assert tuple(loaded.pieces()) == card.pieces
        assert sorted(loaded.eog) == list(card.eog)
    finally:
        loaded.close()


async def test_json_is_valid_whatever_the_prompt(engine: LlamaEngine, card: ModelCard) -> None:
    assert engine.info.grammar == dialect() != ""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    vocabulary = Vocabulary(card.pieces, card.eog)
    answers = await _write_all(engine, [_request(number) for number in range(PROMPTS)])
    finished = 0
    for tokens, _, finish in answers:
        if finish == "stop":
            validator.validate(json.loads(_text(card, tokens[:-1])))
            finished += 1
        else:
            matcher = Matcher(vocabulary, GRAMMAR)
            assert all(matcher.accept(token) for token in tokens), "not the beginning of valid JSON"
    print(f"{finished} of {PROMPTS} ended by themselves and are valid")
    assert finished >= 0.95 * PROMPTS
    assert len({tokens for tokens, _, _ in answers}) > PROMPTS // 2, "the schema leaves a choice"


async def test_constrained_and_free_answers_replay_and_resume_to_the_bit(
    engine: LlamaEngine,
) -> None:
    requests = [
        _request(1),
        _request(2, grammar=None, max_tokens=24),
        _request(3, grammar=pack_grammar("regex", "([A-Z][a-z]{2,5} ){2,4}ends")),
        _request(4, sampler=replace(SAMPLER, temperature=0.0, presence_penalty=0.5)),
    ]
    answers = await _write_all(engine, requests)
    assert answers[1] == await _write(engine, requests[1]), "others' grammars change nothing"
    for request, (tokens, logits, _) in zip(requests, answers, strict=True):
        replayed = await engine.replay(_replay(request, tokens))
        assert replayed.drawn == tokens
        assert replayed.logits == logits
        assert set(replayed.margins) == {0.0}
        for cut in (1, len(tokens) // 2, len(tokens) - 1):
            rest = replace(
                request,
                prompt=request.prompt + tokens[:cut],
                start=cut,
                max_tokens=request.max_tokens - cut,
            )
            assert (await _write(engine, rest))[:2] == (tokens[cut:], logits[4 * cut :])
            assert (await engine.replay(_replay(rest, tokens[cut:]))).drawn == tokens[cut:]


async def test_an_answer_that_left_its_grammar_loses_by_infinity(engine: LlamaEngine) -> None:
    free = _request(1, grammar=None, max_tokens=12)
    tokens, _, _ = await _write(engine, free)
    replayed = await engine.replay(replace(_replay(free, tokens), grammar=GRAMMAR))
    assert replayed.margins[0] == math.inf
    assert len(replayed.drawn) == len(tokens)
    assert math.inf not in replayed.margins[1:]


async def test_bad_grammars_fail_alone(engine: LlamaEngine) -> None:
    """Unreadable, dear to read, exploding on the way; a free answer goes on beside them."""
    doubling = "\n".join(f"T{i}: T{i - 1} T{i - 1}" for i in range(1, 60))
    bad = [
        pack_grammar("json_schema", '{"type":"array","uniqueItems":true}'),
        pack_grammar("lark", f'T0: "a"\n{doubling}\nstart: T59'),
        pack_grammar("lark", 'start: s\ns: s s s | s s | "a" | ""'),
        pack_grammar("regex", "(.{1,1000}){1,1000}"),
        b"json_schema\n\xff",
    ]
    ends = tuple(TokenBias(token=token, bias=-100.0) for token in sorted(engine.info.eog))
    endless = replace(SAMPLER, logit_bias=ends)
    free = _request(2, grammar=None, max_tokens=24)
    alone = await _write(engine, free)
    codes: list[str] = []

    async def fail(number: int, grammar: bytes) -> None:
        with pytest.raises(AssayError) as caught:
            await _write(engine, _request(number, grammar=grammar, sampler=endless))
        codes.append(caught.value.code)

    async with trio.open_nursery() as nursery:
        for number, grammar in enumerate(bad):
            nursery.start_soon(fail, number, grammar)
        beside = await _write(engine, free)
    assert codes == ["grammar_refused"] * len(bad)
    assert beside == alone
    assert engine.load.restarts == 0
    assert (await _write(engine, _request(1)))[2] == "stop", "and grammars are kept as before"
