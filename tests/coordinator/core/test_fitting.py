"""Fitting recovers what the traces were drawn from, on the safe side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.calibration import MILLION, Table
from assay_coordinator.core.fitting import (
    PAIR_JOBS_MIN,
    Trace,
    fit,
    flip_bounds,
    noisy_classes,
    spread,
    upper,
)

MODEL = b"\x03" * 32
COUNTS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=16, max_size=16)


def traces(
    rng: np.random.Generator, executor: str, auditor: str, jobs: int, drift: float = 0.1
) -> list[Trace]:
    made = []
    for _ in range(jobs):
        gaps = rng.integers(0, 256, 96).astype(np.uint8)
        wrong = np.flatnonzero(rng.random(96) < 0.4 * np.exp(gaps / -32.0)).tolist()
        mean = drift * (1 + 0.05 * rng.standard_normal())
        distances = tuple((mean + 0.1 * drift * rng.standard_normal(6)).tolist())
        made.append(Trace(MODEL, executor, auditor, gaps.tobytes(), tuple(wrong), distances))
    return made


def test_it_recovers_the_noise_and_errs_to_the_safe_side() -> None:
    rng = np.random.default_rng(11)
    table = Table(fit(1, 0, traces(rng, "x/F", "y/F", 400)))
    noise = table.noise(MODEL, "x/F", "y/F")
    for i, bound in enumerate(noise.flips[:8]):
        true = 0.4 * float(np.exp(-np.arange(16 * i, 16 * i + 16) / 32.0).mean())
        assert true < bound < true + 0.06
    assert list(noise.flips) == sorted(noise.flips, reverse=True)
    assert 0.1 < noise.drift < 0.103
    assert 0.01 < noise.leaf_sd < 0.012
    assert 0.004 < noise.job_sd < 0.008


def test_few_jobs_count_for_their_model_only_and_fewer_not_at_all() -> None:
    rng = np.random.default_rng(12)
    some = [
        *traces(rng, "x/F", "y/F", PAIR_JOBS_MIN - 1),
        *traces(rng, "y/F", "x/F", 10),
    ]
    pairs = {(p.model, p.executor, p.auditor) for p in fit(1, 0, some).pairs}
    assert pairs == {(MODEL, "", ""), (b"", "", "")}
    assert len(fit(1, 0, some[:9]).pairs) == 1


def test_pairs_of_one_exact_class_are_not_noise() -> None:
    rng = np.random.default_rng(13)
    assert len(fit(1, 0, traces(rng, "x/E", "x/E", 200)).pairs) == 1
    assert len(fit(1, 0, traces(rng, "x/E", "y/F", 200)).pairs) == 3


def test_a_class_in_whose_noise_a_cheat_could_hide_is_refused() -> None:
    rng = np.random.default_rng(14)
    seen = [
        trace
        for name, drift in (("a/F", 0.10), ("b/F", 0.11), ("c/F", 0.10), ("loud/F", 0.2))
        for trace in traces(rng, name, "a/F", 60, drift)
    ]
    assert noisy_classes(seen) == {(MODEL, "loud/F")}
    table = Table(fit(1, 0, seen))
    assert table.refuses(MODEL, "loud/F")
    assert not table.refuses(MODEL, "b/F")
    few = [trace for trace in seen if trace.executor in ("a/F", "loud/F")]
    assert noisy_classes(few) == set(), "of two classes nobody can say which is noisy"


@given(COUNTS)
def test_bounds_never_rise_and_hold_for_every_bin(counts: list[tuple[int, int]]) -> None:
    flips = [min(pair) for pair in counts]
    tokens = [max(pair) for pair in counts]
    bounds = flip_bounds(flips, tokens)
    assert len(bounds) == 16
    assert bounds == sorted(bounds, reverse=True)
    assert all(0 < bound < 1 for bound in bounds)


@pytest.mark.parametrize(
    ("hits", "trials", "expected"), [(0, 0, 1.0), (0, 1000, 0.0066), (30, 1000, 0.0476)]
)
def test_upper_bounds(hits: int, trials: int, expected: float) -> None:
    assert upper(hits, trials) == pytest.approx(expected, abs=5e-4)


def test_the_spread_between_jobs_is_not_that_within() -> None:
    rng = np.random.default_rng(15)
    calm = [tuple((0.1 + 0.02 * rng.standard_normal(8)).tolist()) for _ in range(300)]
    _, leaf, between = spread(calm)
    assert leaf > 0.02 > 3 * between
    assert all(one > 0 for one in spread([(0.1,)])[::2])
    assert fit(1, 0, traces(rng, "x/F", "y/F", 50)).pairs[0].job_sd < MILLION
