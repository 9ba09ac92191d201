"""Channel S: the drift of a job's sketches, in standard deviations of the honest one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from assay_coordinator.core.calibration import Noise
from assay_coordinator.core.sketch_evidence import (
    NO_SKETCHES,
    SHIFTS,
    last_share,
    near,
    sketch_ratios,
)

NOISE = Noise((0.1,) * 16, drift=0.13, leaf_sd=0.02, job_sd=0.006)


def job(rng: np.random.Generator, leaves: int, shift: float = 0.0) -> list[float]:
    """Leaf distances of a job whose mean is off by `shift` of its standard deviations."""
    mean = NOISE.drift + shift * NOISE.sd(leaves) + NOISE.job_sd * rng.standard_normal()
    return [abs(mean + NOISE.leaf_sd * rng.standard_normal()) for _ in range(leaves)]


@pytest.mark.parametrize("leaves", [1, 2, 6, 32])
def test_each_ratio_has_mean_at_most_one_under_the_table(leaves: int) -> None:
    rng = np.random.default_rng(leaves)
    ratios = np.array([sketch_ratios(NOISE, job(rng, leaves)) for _ in range(4_000)])
    means = np.exp(ratios).mean(axis=0)
    assert (means < 2).all(), means


def test_a_shift_of_a_cheat_is_seen_and_drift_below_the_mean_speaks_for_the_node() -> None:
    rng = np.random.default_rng(1)
    gross = np.array([sketch_ratios(NOISE, job(rng, 6, 12.0)) for _ in range(200)])
    assert (gross[:, 2] > 20).all()
    assert max(sketch_ratios(NOISE, [0.1] * 6)[: len(SHIFTS)]) < 0


def test_a_mild_shift_adds_up_over_jobs() -> None:
    """An 8-bit cache: about one standard deviation a job."""
    rng = np.random.default_rng(2)
    gained = [sketch_ratios(NOISE, job(rng, 6, 1.08))[0] for _ in range(60)]
    honest = [sketch_ratios(NOISE, job(rng, 6))[0] for _ in range(60)]
    assert sum(gained) > 17 > 0 > sum(honest)


def test_a_cheat_in_one_stretch_shows_in_its_span() -> None:
    leaves = [0.13] * 30 + [0.30, 0.30]
    ratios = sketch_ratios(NOISE, leaves)
    assert max(ratios[3:]) > 20


def test_what_cannot_be_compared() -> None:
    assert sketch_ratios(NOISE, ()) == NO_SKETCHES
    assert sketch_ratios(NOISE, (0.1, math.inf)) == (math.inf,) * 6


def test_two_auditors_are_near_where_honest_noise_explains_it() -> None:
    assert near(NOISE, ())
    assert near(NOISE, [0.14] * 6)
    assert not near(NOISE, [0.2] * 6)
    assert not near(NOISE, [math.inf])


@pytest.mark.parametrize("tokens", [1, 2, 4, 17, 40])
def test_a_leaf_of_few_tokens_says_as_little_as_they_do(tokens: int) -> None:
    """Honest jobs of one token each: their distances scatter four times as much as whole leaves',
    and made honest nodes convicts by a table that was fitted from whole ones."""
    rng, last = np.random.default_rng(tokens), last_share(tokens)
    whole, spread = (tokens - 1) // 16, NOISE.leaf_sd * math.sqrt(1 / last)
    found = []
    for _ in range(4_000):
        mean = NOISE.drift + NOISE.job_sd * rng.standard_normal()
        leaves = [*(mean + NOISE.leaf_sd * rng.standard_normal(whole))]
        leaves.append(mean + spread * rng.standard_normal())
        found.append(sketch_ratios(NOISE, [abs(one) for one in leaves], last))
    assert (np.exp(np.array(found)).mean(axis=0) < 2).all()
    assert not near(NOISE, [1.2] * (whole + 1), last), "liars agree no more than before"


def test_the_last_leaf_s_share() -> None:
    assert [last_share(n) for n in (1, 8, 16, 17, 32)] == [1 / 16, 0.5, 1.0, 1 / 16, 1.0]
    assert sketch_ratios(NOISE, [0.2, 0.3], 1.0) == sketch_ratios(NOISE, [0.2, 0.3])
