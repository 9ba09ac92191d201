"""Draws from a list of the likeliest tokens: the whole row's draw, or none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_node.engine.rankings import draw, ranking, ranks_needed
from assay_protocol import sampling
from assay_protocol.adjustments import logprobs_of
from assay_protocol.errors import AssayError
from assay_protocol.messages import Sampler, TokenBias

VOCAB = 400
SEED = bytes(range(32))


def row_of(number: int, spread: float) -> np.ndarray:
    return np.random.default_rng(number).normal(0, spread, VOCAB).astype(np.float32)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 1 << 30),
    st.sampled_from([0.3, 2.0, 6.0]),
    st.sampled_from([0.0, 0.3, 0.8, 2.0]),
    st.sampled_from([0, 1, 5, 40]),
    st.sampled_from([0.1, 0.5, 0.95, 1.0]),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.sampled_from([2, 8, 64, VOCAB]),
)
def test_a_list_that_decides_gives_the_draw_of_the_whole_row(
    number: int,
    spread: float,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    listed: int,
) -> None:
    row = row_of(number, spread)
    sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    order = np.argsort(-row, kind="stable")[:listed]
    logprobs = logprobs_of(np.stack([row] * listed), order.tolist())
    ranked = ranking(list(zip(order.tolist(), logprobs.tolist(), strict=True)), VOCAB)
    drawn = draw(ranked, VOCAB, sampler, SEED, number % 1000)
    if listed == VOCAB or temperature == 0.0 or 0 < top_k <= listed:
        assert drawn is not None
    if drawn is not None:
        assert drawn[0] == sampling.draw(row, sampler, SEED, number % 1000)
        assert drawn[1][order] == pytest.approx(logprobs, abs=1e-6)


def test_a_short_list_under_a_flat_row_does_not_decide() -> None:
    ranked = ranking([(0, -5.0), (1, -5.1)], VOCAB)
    wide = Sampler(temperature=1.0, top_k=0, top_p=0.99, min_p=0.0)
    assert draw(ranked, VOCAB, wide, SEED, 0) is None
    ranked = ranking([(0, -0.001), (1, -60.0)], VOCAB)
    decided = draw(ranked, VOCAB, wide, SEED, 0)
    assert decided is not None
    assert decided[0] == 0


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(1, -0.5), (1, -0.7)],
        [(VOCAB, -0.5)],
        [(-1, -0.5)],
        [(1, float("nan"))],
        [(1, float("-inf"))],
        [(1, 12.5)],
        [(1, -0.1), (2, -0.1)],
    ],
)
def test_what_is_no_list_of_logprobs_is_refused(pairs: list[tuple[int, float]]) -> None:
    with pytest.raises(AssayError) as caught:
        ranking(pairs, VOCAB)
    assert caught.value.code == "engine_failed"


@pytest.mark.parametrize(
    "sampler",
    [
        Sampler(temperature=0.8, top_k=0, top_p=1.0, min_p=0.0),
        Sampler(temperature=0.8, top_k=9_999, top_p=1.0, min_p=0.0),
        Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, presence_penalty=0.5),
        Sampler(
            temperature=0.0,
            top_k=0,
            top_p=1.0,
            min_p=0.0,
            logit_bias=(TokenBias(token=1, bias=5.0),),
        ),
    ],
)
def test_what_cannot_be_drawn_from_a_list_is_refused_before_anything(sampler: Sampler) -> None:
    with pytest.raises(AssayError) as caught:
        ranks_needed(sampler, 50_000)
    assert caught.value.code == "sampler_refused"


def test_as_many_are_asked_for_as_the_sampler_can_draw_or_wants_told() -> None:
    assert ranks_needed(Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0), VOCAB) == 2
    asked = Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, logprobs=5)
    assert ranks_needed(asked, VOCAB) == 6
    assert ranks_needed(Sampler(temperature=1.0, top_k=40, top_p=1.0, min_p=0.0), VOCAB) == 40
    assert ranks_needed(Sampler(temperature=1.0, top_k=0, top_p=0.9, min_p=0.0), VOCAB) == 64
