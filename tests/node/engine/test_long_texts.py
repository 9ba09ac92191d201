"""Texts of more than 256 tokens, on several threads: bits are the same however they are decoded.

llama.cpp has a kernel of its own for one row over long memory, which splits it among threads. And
where layers see a window of the text, a saved state has no more than that.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node.engine.costs import lonely, passes
from assay_node.engine.interface import Generate
from assay_node.engine.profiles import FLASH
from assay_protocol.messages import Sampler
from vision_cases import write_seer

pytest.importorskip("llama_cpp")

from assay_node.engine.loop import DecodeLoop
from assay_node.engine.ways import collect, compared, drain

SAMPLER = Sampler(temperature=0.9, top_k=40, top_p=0.95, min_p=0.0)
CONTEXT = 600
LENGTHS = (300, 250, 520, 20)


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose layers see all of a text, and one of which they see a window."""
    return write_seer(tmp_path_factory.mktemp("seer") / "model.gguf", arch=request.param)


def _request(number: int, length: int, max_tokens: int = 20) -> Generate:
    prompt = tuple(265 + (7 * place * place + number) % 50 for place in range(length))
    return Generate(prompt, 0, max_tokens, SAMPLER, bytes([number]) * 32, bytes([number % 2]))


def _loop(model: Path, threads: int, slots: int = 4, **profile: int) -> DecodeLoop:
    road = replace(FLASH, **profile)
    return DecodeLoop(model, bytes(32), slots=slots, context=CONTEXT, threads=threads, profile=road)


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 5), min_size=1))
def test_a_row_more_leaves_no_row_alone(rows: dict[int, int]) -> None:
    alone = lonely(sorted(rows.items()))
    assert len(alone) == passes(sorted(rows.items())).count(1) == len(set(alone))
    for slot in alone:
        rows[slot] += 1
    assert 1 not in passes(sorted(rows.items()))
    assert not lonely(sorted(rows.items()))


@pytest.mark.slow
def test_long_texts_have_the_same_bits_on_any_number_of_threads(model: Path) -> None:
    requests = [_request(number, length) for number, length in enumerate(LENGTHS)]
    one, two = _loop(model, 1), _loop(model, 2, chunk=47, total=90, replay_chunk=29)
    written = []
    for loop in (one, two):
        events = []
        for number, request in enumerate(requests):  # some alone, some with gaps between them
            loop.generate(number, request)
            for _ in range(9):
                events += loop.step()
        written.append(collect(requests, [*events, *drain(loop)]))
    for here, there in zip(*written, strict=True):
        assert (here.tokens, here.logits) == (there.tokens, there.logits)
    for pair in (*compared(one, written[1][:2]), *compared(two, written[0])):
        assert pair.first == pair.second
    one.close()
    two.close()


@pytest.mark.slow
def test_the_last_token_that_fits_finds_company(model: Path) -> None:
    """A text that fills all of its memory."""
    loop = _loop(model, 2, slots=1)
    request = _request(1, CONTEXT - 5, 5)
    loop.generate(0, request)
    (written,) = collect([request], drain(loop))
    assert len(written.tokens) == 5
    for pair in compared(loop, [written]):
        assert pair.first == pair.second
    loop.close()
