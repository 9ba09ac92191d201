"""all-MiniLM-L6-v2 against sentence-transformers, and a chat model as it is. Needs the models.

What sentence-transformers computed lies in minilm_vectors.json, which tells how it was made.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import trio
from tokenizers import Tokenizer

from assay_node.engine.embedder import LlamaEmbedder, open_embedding_engine
from assay_node.engine.embedding import Embed
from assay_node.engine.profiles import FLASH, PLAIN, Profile
from assay_node.engine.quantize import requantize
from assay_node.models import minilm
from assay_node.models.bert import convert_bert
from assay_protocol.errors import AssayError

pytestmark = [pytest.mark.model, pytest.mark.slow]

TIMEOUT_SECONDS = 120.0
COSINE_MIN = 0.999
WORST = {"F16": 0.99999, "Q8_0": 0.9992}  # seen: 0.999997 and 0.99930

needs_plain = pytest.mark.skipif(
    not PLAIN.available, reason="scripts/build_engine.sh exact was not run"
)
ROADS = [pytest.param(FLASH), pytest.param(PLAIN, marks=needs_plain)]


@dataclass(frozen=True)
class Case:
    """A text of the reference."""

    name: str
    text: str
    tokens: tuple[int, ...]
    vector: np.ndarray


def _cases() -> list[Case]:
    page = json.loads(Path(__file__).with_name("minilm_vectors.json").read_text())
    found = []
    for case in page["cases"]:
        vector = np.frombuffer(base64.b64decode(case["vector"]), "<f4").astype(float)
        found.append(Case(case["name"], case["text"], tuple(case["tokens"]), vector))
    return found


CASES = _cases()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    assert minilm.PATH.is_file(), "run python -m assay_node.models.minilm"
    folder = tmp_path_factory.mktemp("minilm")
    whole = convert_bert(minilm.FOLDER, folder / "f32.gguf", kind="f32")
    small = folder / "q8_0.gguf"
    requantize(whole, small, "Q8_0")
    return {"F16": minilm.PATH, "Q8_0": small}


async def _embed(engine: LlamaEmbedder, texts: list[tuple[int, ...]]) -> list[bytes]:
    """All asked at once."""
    found: dict[int, bytes] = {}

    async def ask(number: int) -> None:
        found[number] = (await engine.embed(Embed(texts[number]))).vector

    async with trio.open_nursery() as nursery:
        for number in range(len(texts)):
            nursery.start_soon(ask, number)
    return [found[number] for number in range(len(texts))]


def test_the_reference_is_varied_and_of_this_model() -> None:
    page = json.loads(Path(__file__).with_name("minilm_vectors.json").read_text())
    assert page["model"]["safetensors_sha256"] == minilm.FILES["model.safetensors"][1]
    lengths = {len(case.tokens) for case in CASES}
    assert len(CASES) >= 12
    assert {3, 63, 64, 512} <= lengths
    assert all(np.linalg.norm(case.vector) == pytest.approx(1, abs=1e-5) for case in CASES)


def test_texts_are_cut_into_the_same_tokens() -> None:
    tokenizer = Tokenizer.from_file(str(minilm.FOLDER / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for case in CASES:
        assert tuple(tokenizer.encode(case.text).ids) == case.tokens, case.name


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
async def test_vectors_are_those_of_sentence_transformers(
    models: dict[str, Path], kind: str, road: Profile
) -> None:
    with trio.fail_after(TIMEOUT_SECONDS):
        async with open_embedding_engine(
            models[kind], bytes(32), threads=1, profile=road
        ) as engine:
            together = await _embed(engine, [case.tokens for case in CASES])
            alone = [(await engine.embed(Embed(case.tokens))).vector for case in CASES]
    assert together == alone
    vectors = {
        case.name: np.frombuffer(data, "<f4").astype(float)
        for case, data in zip(CASES, together, strict=True)
    }
    cosines = {case.name: float(vectors[case.name] @ case.vector) for case in CASES}
    worst = min(cosines, key=lambda name: cosines[name])
    print(f"{kind} {road.road}: worst cosine {cosines[worst]:.7f} ({worst})")
    assert cosines[worst] > max(COSINE_MIN, WORST[kind]), cosines
    likeness = vectors["short"] @ vectors["paraphrase"], vectors["short"] @ vectors["unrelated"]
    assert likeness[0] > 0.5 > 0.2 > likeness[1]


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
async def test_arbitrary_texts_have_their_bits_whatever_is_beside_them(
    models: dict[str, Path], kind: str
) -> None:
    numbers = np.random.default_rng(5)
    texts = [
        (101, *map(int, numbers.integers(1000, 30_000, length)), 102)
        for length in numbers.integers(0, 30, 60)
    ]
    texts += [(2_000,), (2_001,)]
    with trio.fail_after(TIMEOUT_SECONDS):
        async with open_embedding_engine(models[kind], bytes(32), threads=1) as engine:
            alone = [(await engine.embed(Embed(text))).vector for text in texts]
            for _ in range(3):
                order = list(map(int, numbers.permutation(len(texts))))
                together = await _embed(engine, [texts[number] for number in order])
                assert together == [alone[number] for number in order]


def _chat_model() -> Path:
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    found = Path(os.environ.get("ASSAY_TEST_MODEL") or Path.home() / ".cache/assay/models" / name)
    assert found.is_file(), f"put {name} at {found}, or its path into ASSAY_TEST_MODEL"
    return found


async def test_a_chat_model_embeds_by_the_mean_if_asked() -> None:
    chat = _chat_model()
    texts = [tuple(500 + (37 * i + n) % 40_000 for i in range(n)) for n in (5, 60, 130)]
    with trio.fail_after(TIMEOUT_SECONDS):
        with pytest.raises(AssayError) as refused:
            async with open_embedding_engine(chat, bytes(32), threads=1):
                raise AssertionError("opened")
        assert refused.value.code == "pooling_missing"
        async with open_embedding_engine(chat, bytes(32), threads=1, pooling="mean") as engine:
            assert (engine.info.dims, engine.info.context) == (576, 512)
            together = await _embed(engine, texts)
            assert together == [(await engine.embed(Embed(text))).vector for text in texts]
            assert len(set(together)) == len(texts)
