"""Made models with made projectors: what an answer about an image depends on, and what not."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from numpy.typing import NDArray

from assay_node.engine.interface import Chunk, Generate, Replay, Replayed
from assay_node.engine.profiles import FLASH
from assay_node.engine.supervisor import LlamaEngine, open_llama_engine
from assay_protocol.errors import AssayError
from assay_protocol.grammars import pack_grammar
from assay_protocol.limits import IMAGE_SIDE_MAX, IMAGES_BYTES_MAX
from assay_protocol.messages import Image, Sampler
from vision_cases import SIDES, TOKENS, WIDTH, image, shown, write_projector, write_seer

pytest.importorskip("llama_cpp")

from assay_node.engine import llama
from assay_node.engine.loop import DecodeLoop
from assay_node.engine.projector import Projector
from assay_node.engine.selfcheck import selfcheck
from assay_node.engine.ways import Written, collect, compared, drain

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 60.0
CONTEXT = 512
KINDS = tuple(SIDES)
SAMPLER = Sampler(
    temperature=0.9,
    top_k=40,
    top_p=0.95,
    min_p=0.0,
    repetition_penalty=1.3,
    repetition_window=100,
    presence_penalty=0.2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A projector of each kind, and a model of the architecture it is for."""
    made = tmp_path_factory.mktemp("seer")
    for kind in KINDS:
        write_seer(_model(made, kind), arch="gemma3" if kind == "gemma3" else "llama")
        write_projector(made / f"{kind}.gguf", kind)
    return made


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _model(folder: Path, kind: str) -> Path:
    return folder / f"{kind}-model.gguf"


def _loop(folder: Path, kind: str, **options: Any) -> DecodeLoop:
    settings = {"slots": 4, "context": CONTEXT, "threads": 1} | options
    projector = folder / f"{kind}.gguf"
    return DecodeLoop(_model(folder, kind), bytes(32), projector=projector, **settings)


@pytest.fixture
def loop(folder: Path, kind: str) -> Iterator[DecodeLoop]:
    opened = _loop(folder, kind)
    yield opened
    opened.close()


def _words(number: int, count: int) -> tuple[int, ...]:
    return tuple(265 + (7 * place + 11 * number) % 50 for place in range(count))


def _request(number: int, *seeds: int, between: int = 3, max_tokens: int = 16) -> Generate:
    """A prompt with these images, of shapes of their own."""
    images = tuple(image(seed, 5 + seed, 9) for seed in seeds)
    prompt = (1, *_words(number, between))
    for one in images:
        prompt += (*shown(one, marked=number % 2 == 0), *_words(number, between))
    seed = bytes([number]) * 32
    return Generate(prompt, 0, max_tokens, SAMPLER, seed, bytes([number % 3]), images=images)


def _written(loop: DecodeLoop, *requests: Generate) -> list[Written]:
    for number, request in enumerate(requests):
        loop.generate(number, request)
    return collect(list(requests), drain(loop))


def _replayed(loop: DecodeLoop, written: Written) -> Replayed:
    request = written.request
    replay = Replay(request.prompt, written.tokens, 0, request.sampler, request.seed)
    loop.replay(0, replace(replay, images=request.images))
    (event,) = [event for _, event in drain(loop)]
    assert isinstance(event, Replayed)
    return event


def test_answers_depend_on_the_image_and_on_nothing_else_of_it(loop: DecodeLoop) -> None:
    first, other = _request(0, 1), _request(0, 2)
    assert loop.info.image_tokens == TOKENS
    (one,) = _written(loop, first)
    (two,) = _written(loop, other)
    (again,) = _written(loop, first)
    assert one.logits != two.logits
    assert (one.tokens, one.logits) == (again.tokens, again.logits)
    nearly = first.images[0].pixels[:-1] + bytes([first.images[0].pixels[-1] ^ 0x80])
    changed = replace(first.images[0], pixels=nearly)
    prompt = (*first.prompt[:4], *shown(changed), *_words(0, 3))
    (third,) = _written(loop, replace(first, prompt=prompt, images=(changed,)))
    assert third.logits != one.logits, "one color of one pixel was not seen"


def test_bits_are_the_same_by_every_way(folder: Path, kind: str, loop: DecodeLoop) -> None:
    """Beside each other and alone, replayed, resumed, preempted within images and after, drafted,
    in an engine with smaller pieces."""
    requests = [
        _request(0, 1),
        _request(1, 1, 1, between=0),
        _request(2, 3, 4),
        _request(3, max_tokens=30),
        _request(4, 1, 2, 3, between=1),
        _request(5, 5, between=60),
        _request(0, 1),
    ]
    written = _written(loop, *requests)
    found = compared(loop, written)
    small = replace(FLASH, chunk=20, total=48, replay_chunk=13)
    cold = _loop(folder, kind, profile=small, slots=2, saved_bytes_max=0)
    found += compared(cold, written[:4])
    assert len(found) > 3 * len(written)
    for pair in found:
        assert pair.first == pair.second
        assert pair.margin == 0.0
    for one, request in zip(written, requests, strict=True):
        (alone,) = _written(cold, request)
        assert (alone.tokens, alone.logits) == (one.tokens, one.logits)
    cold.close()
    assert loop.preemptions > 0
    assert (loop.restores > 0) == (kind != "gemma3"), "a window's state is not the whole one"


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_what_libmtmd_s_own_way_gives(folder: Path, kind: str) -> None:
    """Its helper decodes the image after our tokens and before them; the logits are the same."""
    from llama_cpp import mtmd_cpp

    request = _request(0, 1)
    before, after = request.prompt[:5], request.prompt[5 + TOKENS :]
    loop = _loop(folder, kind)
    (written,) = _written(loop, request)
    model = llama.Model(_model(folder, kind), FLASH)
    eyes = Projector(folder / f"{kind}.gguf", model, threads=1, flash=True, gpu=False)
    context = llama.Context(
        model, sequences=1, context=CONTEXT, batch=TOKENS, threads=1, profile=FLASH
    )
    context.batch.add(before, 0, 0, wanted=0)
    context.decode()
    reached = ctypes.c_int32(0)
    with eyes.chunks(request.images[0]) as chunks:
        place = (chunks.only(), len(before), 0, 48 if kind == "mlp" else TOKENS, False)
        code = mtmd_cpp.mtmd_helper_eval_chunk_single(
            eyes.handle, context.handle, *place, ctypes.byref(reached)
        )
    assert (code, reached.value) == (0, len(before) + TOKENS)
    context.batch.clear()
    context.batch.add(after, reached.value, 0, wanted=1)
    logits = context.decode()[0]
    assert logits[written.tokens[0]].tobytes() == written.logits[:4]
    for each in (context, eyes, model, loop):
        each.close()


def test_an_image_that_ends_the_prompt_is_answered_after(loop: DecodeLoop) -> None:
    only = shown(image(1), marked=False)
    request = replace(_request(0), prompt=only, images=(image(1),), max_tokens=4)
    (written,) = _written(loop, request)
    assert _replayed(loop, written).logits == written.logits


def test_an_answer_about_an_image_keeps_to_a_grammar(loop: DecodeLoop) -> None:
    pytest.importorskip("llguidance")
    asked = replace(_request(0, 1), grammar=pack_grammar("regex", "(yes|no) it is"))
    (written,) = _written(loop, asked)
    pieces = loop._model.pieces()
    said = b"".join(pieces[token] for token in written.tokens)
    assert said.decode() in ("yes it is", "no it is")
    replay = Replay(asked.prompt, written.tokens, 0, SAMPLER, asked.seed, grammar=asked.grammar)
    loop.replay(0, replace(replay, images=asked.images))
    (event,) = [event for _, event in drain(loop)]
    assert isinstance(event, Replayed)
    assert event.logits == written.logits
    assert loop.idle
    broken = replace(asked, grammar=pack_grammar("regex", "((("))
    loop.generate(1, broken)
    ((job, refusal),) = drain(loop)
    assert job == 1
    assert isinstance(refusal, AssayError)
    assert loop._gallery is not None
    assert not loop._gallery._holders


def test_a_picture_is_encoded_once(loop: DecodeLoop) -> None:
    written = _written(loop, _request(0, 1), _request(1, 1), _request(2, 1, 2))
    _replayed(loop, written[2])
    assert loop._gallery is not None
    assert loop._gallery.encoded == 2
    assert not loop._gallery._holders, "images of jobs that are over are held"


def test_neighbours_without_images_keep_their_bits(
    folder: Path, kind: str, loop: DecodeLoop
) -> None:
    plain = _request(3, max_tokens=30)
    blind = DecodeLoop(_model(folder, kind), bytes(32), slots=4, context=CONTEXT, threads=1)
    (alone,) = _written(blind, plain)
    beside = _written(loop, plain, *(_request(number, number) for number in range(1, 6)))[0]
    assert (alone.tokens, alone.logits) == (beside.tokens, beside.logits)
    with pytest.raises(AssayError, match="image_refused"):
        blind.generate(0, _request(0, 1))
    blind.close()


def test_given_up_images_are_held_no_longer(loop: DecodeLoop) -> None:
    for steps in range(6):
        loop.generate(1, _request(0, 20 + steps, 1))
        for _ in range(steps):
            loop.step()
        loop.cancel(1)
    assert loop._gallery is not None
    assert not loop._gallery._holders
    assert not loop._gallery
    (written,) = _written(loop, _request(0, 1))
    assert _replayed(loop, written).logits == written.logits


def test_embeddings_are_the_same_bits_on_any_number_of_threads(folder: Path, kind: str) -> None:
    model = llama.Model(_model(folder, kind), FLASH)
    file = folder / f"{kind}.gguf"
    eyes = [Projector(file, model, threads=n, flash=True, gpu=False) for n in (1, 2, 3)]
    for shape in ((8, 8), (300, 40), (1, 1)):
        found = {one.encode(image(7, *shape)).tobytes() for one in eyes}
        assert len(found) == 1
        between: list[NDArray[np.float32]] = [one.encode(image(8)) for one in eyes]
        assert between[0].shape == (TOKENS, WIDTH)
        assert {one.encode(image(7, *shape)).tobytes() for one in eyes} == found
    for one in eyes:
        one.close()
    model.close()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"kind": "mlp", "width": 32}, "cannot load the projector"),
        ({"kind": "qwen9"}, "cannot load the projector"),
        ({"kind": "mlp", "values": {"clip.vision.image_grid_pinpoints": [64, 32]}}, "several"),
        ({"kind": "gemma3", "values": {"clip.vision.image_size": 1024}}, "engine_failed"),
    ],
)
def test_projectors_that_cannot_be_served_are_refused_at_opening(
    folder: Path, tmp_path: Path, made: dict[str, Any], said: str
) -> None:
    model = llama.Model(_model(folder, "mlp"), FLASH)
    with pytest.raises(AssayError) as refused:
        file = write_projector(tmp_path / "other.gguf", **made)
        Projector(file, model, threads=1, flash=True, gpu=False)
    assert refused.value.code == "engine_failed"
    assert said in str(refused.value)
    with pytest.raises(AssayError, match="cannot load the projector"):
        Projector(_model(folder, "mlp"), model, threads=1, flash=True, gpu=False)
    model.close()


async def _answer(engine: LlamaEngine, request: Generate) -> tuple[tuple[int, ...], bytes]:
    tokens: tuple[int, ...] = ()
    logits = b""
    async with engine.generate(request) as chunks:
        async for chunk in chunks:
            assert isinstance(chunk, Chunk)
            tokens, logits = tokens + chunk.tokens, logits + chunk.logits
    return tokens, logits


def _shapes() -> Iterator[tuple[int, int]]:
    """The edges, and some of what lies between: one pixel wide up to as long as may be."""
    most = IMAGES_BYTES_MAX // 3
    yield from ((1, 1), (1, IMAGE_SIDE_MAX), (IMAGE_SIDE_MAX, 1), (512, 512))
    yield from ((IMAGE_SIDE_MAX, most // IMAGE_SIDE_MAX), (most // IMAGE_SIDE_MAX, IMAGE_SIDE_MAX))
    numbers = np.random.default_rng(17)
    for _ in range(25):
        width = int(np.exp(numbers.uniform(0, np.log(IMAGE_SIDE_MAX))))
        height = int(np.exp(numbers.uniform(0, np.log(min(IMAGE_SIDE_MAX, most // width)))))
        yield max(1, width), max(1, height)


async def test_no_size_of_an_image_ends_the_process(folder: Path, kind: str) -> None:
    with trio.fail_after(TIMEOUT_SECONDS):
        async with open_llama_engine(
            _model(folder, "mlp"),
            bytes(32),
            slots=2,
            context=CONTEXT,
            threads=1,
            projector=folder / f"{kind}.gguf",
        ) as engine:
            child = engine.pid
            for number, shape in enumerate(_shapes()):
                one = image(number, *shape)
                await _answer(engine, _about(one))
            assert (engine.pid, engine.load.restarts) == (child, 0)
            before = await _answer(engine, _request(0, 1))
            assert child is not None
            os.kill(child, signal.SIGKILL)
            while engine.pid in (None, child):
                await trio.sleep(0.01)
            assert await _answer(engine, _request(0, 1)) == before


def _about(one: Image) -> Generate:
    prompt = (1, *shown(one), 270)
    return Generate(prompt, 0, 1, SAMPLER, bytes(32), images=(one,))


async def test_a_model_that_its_projector_does_not_fit_is_not_served(
    folder: Path, tmp_path: Path
) -> None:
    narrow = write_projector(tmp_path / "narrow.gguf", "mlp", width=32)
    with pytest.raises(AssayError) as refused:
        async with open_llama_engine(_model(folder, "mlp"), bytes(32), projector=narrow):
            pass
    assert refused.value.code == "engine_failed"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_trial_is_made_of_answers_about_images_too(
    folder: Path, kind: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"threads": threads, "rates": False, "sequences": 3}
    options["projector"] = folder / f"{kind}.gguf"
    assert selfcheck(_model(folder, kind), **options).exact
    encode, times = Projector.encode, iter(range(99))

    def unsteady(self: Projector, one: Image) -> NDArray[np.float32]:
        return encode(self, one) + np.float32(next(times) / 50)

    monkeypatch.setattr(Projector, "encode", unsteady)
    assert not selfcheck(_model(folder, kind), **options).exact
