"""The published statistics of other checks on cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from anchors import DIFR_CLIP, GONKA_TOP, difr_margin, gonka_distance
from assay_protocol.messages import Sampler
from assay_protocol.noise import gumbel
from assay_protocol.sampling import draw

SAMPLER = Sampler(temperature=0.8, top_k=4, top_p=1.0, min_p=0.0)
SEED = bytes(32)


def _listed(values: list[float], tokens: int = 100) -> tuple[np.ndarray, np.ndarray]:
    ids = np.tile(np.arange(len(values), dtype=np.int32), (tokens, 1))
    return ids, np.tile(np.array(values), (tokens, 1))


def test_equal_logprobs_are_at_no_distance() -> None:
    listed = _listed([-0.1, -1.0, -2.0, -3.0, -4.0])
    assert gonka_distance(listed, listed) == 0.0


def test_a_distance_is_relative_and_spread_over_a_hundred_tokens_at_least() -> None:
    ours, theirs = _listed([-1.0] * 4 + [-2.0]), _listed([-1.0] * 4 + [-1.0])
    of_one = 1 / 3 / 2 / GONKA_TOP  # |2 - 1| / (2 + 1) / 2, one of five
    assert gonka_distance(theirs, ours) == pytest.approx(of_one, abs=1e-5)
    few = [(ids[:50], values[:50]) for ids, values in (theirs, ours)]
    assert gonka_distance(*few) == pytest.approx(of_one / 2, abs=1e-5)


def test_a_token_that_is_not_listed_counts_as_the_next_step_down() -> None:
    ids, values = _listed([-1.0, -2.0, -3.0, -4.0, -5.0])
    others = ids.copy()
    others[:, 4] = 9  # in place of token 4: the least two are -5 and -4, so -6 is assumed
    expected = 1 / 11 / 2 / GONKA_TOP
    assert gonka_distance((others, values), (ids, values)) == pytest.approx(expected, abs=1e-5)


def test_the_margin_is_how_far_a_score_is_behind() -> None:
    logits = np.array([1.0, 0.9, 0.8, 0.7, -5.0, -6.0], np.float32)
    drawn = draw(logits, SAMPLER, SEED, 3)
    scores = logits + 0.8 * gumbel(SEED, 3, np.arange(6))
    for token in range(4):
        behind = min(DIFR_CLIP, float(scores[drawn] - scores[token]))
        margin = difr_margin(logits, token, drawn, SAMPLER, SEED, 3)
        assert margin == pytest.approx(behind if token != drawn else 0.0)
    assert difr_margin(logits, 5, drawn, SAMPLER, SEED, 3) == DIFR_CLIP, "filtered out"
