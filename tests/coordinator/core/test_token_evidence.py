"""Channel T: its e-values have mean 1 or less under the table, and tell cheats from noise."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.calibration import BUILT_IN, Noise, gap_bin
from assay_coordinator.core.token_evidence import SPAN, STRENGTHS, average, token_ratios, windows

NOISE = BUILT_IN.noise(b"", "", "")
FLIPS = st.lists(st.floats(0.001, 0.9), min_size=16, max_size=16)


def noise(flips: list[float]) -> Noise:
    return Noise(tuple(sorted(flips, reverse=True)), 0.1, 0.01, 0.01)


@given(FLIPS, st.lists(st.integers(0, 255), min_size=1, max_size=5))
def test_under_the_tables_own_chances_each_ratio_has_mean_at_most_one(
    flips: list[float], gaps: list[int]
) -> None:
    """Exactly, over all outcomes of a short answer."""
    table = noise(flips)
    means = [0.0] * (2 * len(STRENGTHS))
    for outcome in product((False, True), repeat=len(gaps)):
        wrong = [i for i, flipped in enumerate(outcome) if flipped]
        chance = math.prod(
            table.flips[gap_bin(gap)] if flipped else 1 - table.flips[gap_bin(gap)]
            for gap, flipped in zip(gaps, outcome, strict=True)
        )
        for i, ratio in enumerate(token_ratios(table, bytes(gaps), wrong)):
            means[i] += chance * math.exp(ratio)
    assert all(mean <= 1 + 1e-9 for mean in means)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=200), st.data())
def test_a_node_that_flips_less_than_the_table_says_is_not_suspect_for_it(
    gaps: list[int], data: st.DataObject
) -> None:
    """Taking one mismatch away never raises a ratio."""
    wrong = sorted(data.draw(st.sets(st.integers(0, len(gaps) - 1), min_size=1, max_size=20)))
    less = [i for i in wrong if i != data.draw(st.sampled_from(wrong))]
    before, after = (token_ratios(NOISE, bytes(gaps), w) for w in (wrong, less))
    assert all(a <= b + 1e-9 for a, b in zip(after, before, strict=True))


def test_near_ties_carry_hardly_any_weight() -> None:
    """A prompt made of ties (every second draw flips) accuses nobody."""
    ratios = token_ratios(NOISE, bytes(96), range(0, 96, 2))
    assert max(ratios) < 2
    clear = token_ratios(NOISE, bytes([200]) * 96, range(0, 96, 2))
    assert clear[2] > 100


def test_a_cheat_in_one_stretch_shows_in_its_span() -> None:
    gaps, wrong = bytes([140]) * 512, [*range(256, 288, 4)]
    ratios = token_ratios(NOISE, gaps, wrong)
    whole, spans = ratios[2], ratios[5]
    assert spans > 5 > whole


@pytest.mark.parametrize(("tokens", "count"), [(1, 1), (16, 1), (32, 1), (33, 2), (96, 5)])
def test_spans_begin_at_leaves_and_cover_the_answer(tokens: int, count: int) -> None:
    sums = [float(i) for i in range(1 + -(-tokens // 16))]
    spans = windows(sums)
    assert len(spans) == count
    assert (spans[0][0], spans[-1][1]) == (0.0, sums[-1])
    assert all(b - a <= SPAN / 16 for a, b in spans)


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=20))
def test_the_average_is_that_of_e_values(logs: list[float]) -> None:
    top = max(logs)
    assert top - math.log(len(logs)) - 1e-9 <= average(logs) <= top + 1e-9


def test_mean_of_mixtures_by_simulation() -> None:
    rng = np.random.default_rng(7)
    gaps = rng.integers(0, 256, 64).astype(np.uint8)
    chance = np.array([NOISE.flips[gap_bin(int(gap))] for gap in gaps])
    total = np.zeros(2 * len(STRENGTHS))
    runs = 800
    for _ in range(runs):
        wrong = np.flatnonzero(rng.random(64) < chance).tolist()
        total += np.exp(np.minimum(20, token_ratios(NOISE, gaps.tobytes(), wrong)))
    assert (total / runs < 1.25).all()
