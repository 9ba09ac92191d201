"""The scripted engine keeps the engine interface; a cheaper script is told apart."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import trio

from assay_node.engine.interface import Engine, Generate, Replay
from assay_node.engine.scripted import Script, open_scripted_engine
from assay_protocol.errors import AssayError
from assay_protocol.grammars import pack_grammar
from assay_protocol.images import spelled
from assay_protocol.limits import SKETCH_BYTES
from assay_protocol.logprobs import unpack_logprobs
from assay_protocol.messages import Image, Sampler, TokenBias
from assay_protocol.sketches import leaf_distances, sketch, sketch_tokens

LONG = Script(end_bias=-50.0)


SAMPLER = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)


REQUEST = Generate((3, 1, 4, 1, 5), 0, 40, SAMPLER, bytes(range(32)))


async def _write(engine: Engine, request: Generate) -> tuple[tuple[int, ...], bytes, str | None]:
    tokens: tuple[int, ...] = ()
    logits, finish = b"", None
    async with engine.generate(request) as chunks:
        async for chunk in chunks:
            assert finish is None
            tokens, logits, finish = tokens + chunk.tokens, logits + chunk.logits, chunk.finish
    return tokens, logits, finish


def _replay(request: Generate, output: tuple[int, ...]) -> Replay:
    return Replay(request.prompt, output, request.start, request.sampler, request.seed)


async def test_a_replay_of_an_honest_answer_is_exact() -> None:
    async with open_scripted_engine(LONG) as engine:
        tokens, logits, finish = await _write(engine, REQUEST)
        replayed = await engine.replay(_replay(REQUEST, tokens))
    assert (len(tokens), finish) == (40, "length")
    assert replayed.drawn == tokens
    assert replayed.logits == logits
    assert set(replayed.margins) == {0.0}


OPTIONS = replace(
    SAMPLER,
    repetition_penalty=1.3,
    presence_penalty=0.5,
    frequency_penalty=0.2,
    logit_bias=(TokenBias(token=9, bias=3.0),),
)


async def test_options_change_the_answer_and_are_replayed_and_resumed() -> None:
    request = replace(REQUEST, sampler=OPTIONS)
    async with open_scripted_engine(LONG) as engine:
        plain, _, _ = await _write(engine, REQUEST)
        tokens, _, _ = await _write(engine, request)
        replayed = await engine.replay(_replay(request, tokens))
        ignored = await engine.replay(_replay(request, plain))
        rest = replace(request, prompt=request.prompt + tokens[:13], start=13, max_tokens=27)
        resumed, _, _ = await _write(engine, rest)
        replayed_rest = await engine.replay(_replay(rest, resumed))
    assert tokens != plain
    assert replayed.drawn == tokens
    assert resumed == tokens[13:] == replayed_rest.drawn
    assert sum(a != b for a, b in zip(plain, ignored.drawn, strict=True)) > 5


async def test_a_stop_token_ends_the_answer_and_logprobs_come_when_asked() -> None:
    async with open_scripted_engine(LONG) as engine:
        whole, _, _ = await _write(engine, REQUEST)
        sampler = replace(SAMPLER, stop_tokens=(whole[20],), logprobs=2)
        request = replace(REQUEST, sampler=sampler)
        tokens, _, finish = await _write(engine, request)
        async with engine.generate(request) as chunks:
            told = [chunk.logprobs async for chunk in chunks]
    assert tokens == whole[: whole.index(whole[20]) + 1]
    assert finish == "stop"
    for token, data in zip(tokens, told, strict=True):
        (entry,) = unpack_logprobs(data, (token,), 2)
        assert entry.top[0][1] >= entry.top[1][1]
        assert entry.logprob <= entry.top[0][1]


async def test_a_cheaper_script_is_seen_in_tokens_and_logits() -> None:
    async with (
        open_scripted_engine(replace(LONG, perturbation=1.0)) as cheap,
        open_scripted_engine(LONG) as honest,
    ):
        tokens, logits, _ = await _write(cheap, replace(REQUEST, max_tokens=200))
        replayed = await honest.replay(_replay(REQUEST, tokens))
    wrong = sum(a != b for a, b in zip(tokens, replayed.drawn, strict=True))
    assert wrong > 20
    assert max(replayed.margins) > 0.1
    assert np.mean(np.frombuffer(logits, "<f4") != np.frombuffer(replayed.logits, "<f4")) > 0.9


async def test_another_model_seed_is_another_model() -> None:
    async with (
        open_scripted_engine(LONG) as one,
        open_scripted_engine(replace(LONG, model=bytes(32))) as other,
    ):
        assert (await _write(one, REQUEST))[0] != (await _write(other, REQUEST))[0]


async def test_an_answer_resumed_elsewhere_is_the_same_answer() -> None:
    async with open_scripted_engine(LONG) as engine:
        whole, _, _ = await _write(engine, REQUEST)
        rest = replace(REQUEST, prompt=REQUEST.prompt + whole[:13], start=13, max_tokens=27)
        assert (await _write(engine, rest))[0] == whole[13:]


async def test_the_end_token_stops_an_answer() -> None:
    async with open_scripted_engine(Script(end_bias=6.0)) as engine:
        tokens, _, finish = await _write(engine, replace(REQUEST, max_tokens=2_000))
    assert finish == "stop"
    assert tokens[-1] in engine.info.eog
    assert tokens.count(0) == 1


async def test_death_fails_running_jobs_and_later_jobs_are_served() -> None:
    async with open_scripted_engine(replace(LONG, die_at=5)) as engine:
        with pytest.raises(AssayError) as caught:
            await _write(engine, REQUEST)
        assert caught.value.code == "engine_failed"
        assert engine.load.restarts == 1
        assert len((await _write(engine, REQUEST))[0]) == 40


async def test_slots_limit_and_latency_passes(autojump_clock: trio.abc.Clock) -> None:
    script = replace(LONG, seconds_per_token=0.1)
    async with open_scripted_engine(script, slots=1, waiting_max=1) as engine:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write, engine, replace(REQUEST, max_tokens=10))
            nursery.start_soon(_write, engine, replace(REQUEST, max_tokens=10))
            await trio.sleep(0.05)
            assert (engine.load.running, engine.load.waiting) == (1, 1)
            assert engine.load.free_slots == 0
            with pytest.raises(AssayError) as caught:
                await _write(engine, REQUEST)
            assert caught.value.code == "busy"
        assert trio.current_time() - began == pytest.approx(2.0)
        assert engine.load.free_slots == 1


async def test_leaving_the_context_cancels(autojump_clock: trio.abc.Clock) -> None:
    async with open_scripted_engine(replace(LONG, seconds_per_token=1.0)) as engine:
        async with engine.generate(REQUEST) as chunks:
            await anext(chunks)
            assert engine.load.running == 1
        assert engine.load.running == 0
        assert engine.load.free_slots == engine.info.slots


async def test_benchmark_measures_the_script(autojump_clock: trio.abc.Clock) -> None:
    script = replace(LONG, seconds_per_token=0.1, seconds_per_prompt_token=0.01)
    async with open_scripted_engine(script, slots=2) as engine:
        rates = await engine.benchmark()
    assert rates.prefill_tps == pytest.approx(256 / 2.66, rel=0.01)
    assert rates.decode_tps == pytest.approx(64 / 3.21, rel=0.01)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (replace(REQUEST, prompt=()), "malformed"),
        (replace(REQUEST, prompt=(256,)), "malformed"),
        (replace(REQUEST, prompt=(-1,)), "malformed"),
        (replace(REQUEST, max_tokens=0), "malformed"),
        (replace(REQUEST, seed=b"short"), "malformed"),
        (replace(REQUEST, prompt=(1,) * 2_010), "prompt_too_long"),
        (replace(REQUEST, sampler=replace(SAMPLER, top_p=2.0)), "sampler_refused"),
    ],
)
async def test_bad_requests_are_refused(request_: Generate, code: str) -> None:
    async with open_scripted_engine() as engine:
        with pytest.raises(AssayError) as caught:
            await _write(engine, request_)
        assert caught.value.code == code
        with pytest.raises(AssayError):
            await engine.replay(_replay(request_, (1,) * 40 if request_.max_tokens else ()))


async def test_a_replay_tells_logprobs_if_asked_to() -> None:
    async with open_scripted_engine() as engine:
        output = (7, 8, 9)
        plain = Replay((1, 2), output, 0, SAMPLER, bytes(32))
        raw = await engine.replay(plain)
        told = await engine.replay(replace(plain, normalized=True))
        assert told.drawn == raw.drawn
        for i, token in enumerate(output):
            row = engine.logits((1, 2, *output[:i])).astype(np.float64)
            expected = row[token] - np.log(np.exp(row).sum())
            assert np.frombuffer(told.logits, "<f4")[i] == pytest.approx(expected, abs=1e-5)


async def test_a_grammar_shapes_the_answer_and_is_replayed_and_resumed() -> None:
    grammar = pack_grammar("regex", "([a-f]{3}-){2,4}end")
    request = replace(REQUEST, grammar=grammar)
    async with open_scripted_engine(replace(LONG, grammars=True)) as engine:
        tokens, logits, finish = await _write(engine, request)
        replayed = await engine.replay(replace(_replay(request, tokens), grammar=grammar))
        rest = replace(request, prompt=request.prompt + tokens[:5], start=5, max_tokens=35)
        resumed, _, _ = await _write(engine, rest)
        plain, _, _ = await _write(engine, REQUEST)
        cheated = await engine.replay(replace(_replay(request, plain), grammar=grammar))
    assert finish == "stop"
    assert re.fullmatch(rb"([a-f]{3}-){2,4}end", bytes(tokens[:-1]))
    assert (replayed.drawn, replayed.logits) == (tokens, logits)
    assert resumed == tokens[5:]
    assert cheated.margins[0] == math.inf


async def test_an_engine_without_masks_refuses_a_grammar() -> None:
    async with open_scripted_engine(LONG) as engine:
        for start in (
            _write(engine, replace(REQUEST, grammar=b"regex\na")),
            engine.replay(replace(_replay(REQUEST, (1,)), grammar=b"regex\na")),
        ):
            with pytest.raises(AssayError) as caught:
                await start
            assert caught.value.code == "grammar_refused"


async def _sketches(engine: Engine, request: Generate) -> bytes:
    async with engine.generate(request) as chunks:
        return b"".join([chunk.sketches async for chunk in chunks])


async def test_sketches_are_of_raw_logits_at_output_positions() -> None:
    request = replace(REQUEST, sampler=OPTIONS)
    async with (
        open_scripted_engine(LONG) as engine,
        open_scripted_engine(replace(LONG, perturbation=1.0)) as cheap,
    ):
        tokens, _, _ = await _write(engine, request)
        told = await _sketches(engine, request)
        replayed = await engine.replay(_replay(request, tokens))
        rest = replace(request, prompt=request.prompt + tokens[:13], start=13, max_tokens=27)
        later = await _sketches(engine, rest)
        logprobs = await engine.replay(replace(_replay(request, tokens), normalized=True))
        cheaper = await cheap.replay(_replay(request, tokens))
        row = engine.logits(request.prompt + tokens[:20])
    assert told == replayed.sketches
    assert later == told[SKETCH_BYTES * 13 :]
    assert logprobs.sketches == b""
    asked = sketch_tokens(request.seed, 20, len(row))
    assert told[SKETCH_BYTES * 20 :][:SKETCH_BYTES] == sketch(row[asked][None, :])
    assert min(leaf_distances(told, cheaper.sketches)) > 0.05


async def test_a_replay_tells_gaps_that_explain_what_a_cheaper_script_changed() -> None:
    async with (
        open_scripted_engine(LONG) as engine,
        open_scripted_engine(replace(LONG, perturbation=0.2)) as cheap,
    ):
        tokens, _, _ = await _write(engine, replace(REQUEST, max_tokens=200))
        honest = await engine.replay(_replay(REQUEST, tokens))
        cheaper = await cheap.replay(_replay(REQUEST, tokens))
    changed = [here != there for here, there in zip(tokens, cheaper.drawn, strict=True)]
    gaps = np.array(honest.gaps)
    assert 0 < sum(changed) < 100
    assert gaps[changed].max() <= 0.2 + 1e-6


PICTURES = tuple(Image(width=2, height=2, pixels=bytes([n]) * 12) for n in (1, 2))
SEES = replace(LONG, image_tokens=9)


def _about(picture: Image) -> Generate:
    prompt = (3, *spelled(picture, SEES.image_tokens), *range(10, 20))
    penalized = replace(OPTIONS, repetition_window=64)
    return replace(REQUEST, prompt=prompt, images=(picture,), sampler=penalized)


async def test_answers_depend_on_the_picture_and_a_replay_agrees() -> None:
    one, other = map(_about, PICTURES)
    async with open_scripted_engine(SEES) as engine:
        tokens, logits, _ = await _write(engine, one)
        assert (await _write(engine, other))[0] != tokens
        replayed = await engine.replay(replace(_replay(one, tokens), images=one.images))
        assert (replayed.drawn, replayed.logits) == (tokens, logits)
        lied = await engine.replay(replace(_replay(other, tokens), images=other.images))
        assert lied.drawn != tokens
        with pytest.raises(AssayError, match="image_mismatch"):
            await engine.replay(replace(_replay(one, tokens), images=other.images))


@pytest.mark.parametrize(
    ("script", "changes", "code"),
    [
        (LONG, {}, "image_refused"),
        (LONG, {"images": ()}, "image_refused"),
        (SEES, {"images": ()}, "image_mismatch"),
        (SEES, {"images": PICTURES}, "image_mismatch"),
        (SEES, {"sampler": replace(SAMPLER, prompt_logprobs=0)}, "sampler_refused"),
        (SEES, {"start": 11}, "malformed"),
    ],
)
async def test_pictures_it_cannot_read_are_refused(
    script: Script, changes: dict[str, Any], code: str
) -> None:
    async with open_scripted_engine(script) as engine:
        with pytest.raises(AssayError, match=code):
            await _write(engine, replace(_about(PICTURES[0]), **changes))
