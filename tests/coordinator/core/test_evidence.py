"""Evidence over a life: what honest noise adds up to, and what slow cheats do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.calibration import BUILT_IN, Noise, gap_bin
from assay_coordinator.core.evidence import (
    ALARM,
    ALTERNATIVES,
    FAILURE,
    FRESH,
    MICRO,
    SUSPICION,
    Levels,
    accumulate,
    combined,
    pack,
    unpack,
    whole,
)
from assay_coordinator.core.sketch_evidence import sketch_ratios
from assay_coordinator.core.token_evidence import token_ratios

NOISE: Noise = BUILT_IN.noise(b"", "", "")
_LEVELS = st.tuples(*[st.integers(-(10**12), 10**12)] * ALTERNATIVES)


def audits(rng: np.random.Generator, count: int, shift: float = 0.0) -> list[Levels]:
    """Ratios of honest jobs of 32 to 96 tokens by the table's own model: flips by gap, normal drift
    (moved by `shift` standard deviations)."""
    found = []
    for _ in range(count):
        leaves = int(rng.integers(2, 7))
        gaps = rng.integers(0, 256, 16 * leaves).astype(np.uint8)
        chance = np.array(NOISE.flips)[gaps // 16]
        wrong = np.flatnonzero(rng.random(len(gaps)) < chance).tolist()
        mean = NOISE.drift + shift * NOISE.sd(leaves) + NOISE.job_sd * rng.standard_normal()
        distances = np.abs(mean + NOISE.leaf_sd * rng.standard_normal(leaves)).tolist()
        tokens = token_ratios(NOISE, gaps.tobytes(), wrong)
        found.append(whole((*tokens, *sketch_ratios(NOISE, distances))))
    return found


def test_an_honest_node_stays_low_over_a_hundred_thousand_audits() -> None:
    """Resampled from 1,000 audits drawn by the table's model: no alarm, and no job fails."""
    rng = np.random.default_rng(2026)
    drawn = np.array(audits(rng, 1_000), np.int64)
    per_job = [combined(tuple(row)) for row in drawn.tolist()]
    assert max(per_job) < FAILURE
    assert sum(one >= SUSPICION for one in per_job) < 0.05 * len(per_job)
    level = np.zeros((20, ALTERNATIVES), np.int64)  # twenty nodes, 5,000 audits each
    highest = 0.0
    for _ in range(5_000):
        level = np.maximum(0, level + drawn[rng.integers(0, len(drawn), 20)])
        highest = max(highest, float(np.exp(level / MICRO).mean(axis=1).max()))
    assert MICRO * math.log(highest) < ALARM
    assert highest > 10, "the detectors are alive"


def test_a_slow_cheat_raises_the_alarm_within_sixty_audits() -> None:
    rng = np.random.default_rng(5)
    delays = []
    for _ in range(5):
        levels, count = FRESH, 0
        while combined(levels) < ALARM:
            levels = accumulate(levels, audits(rng, 1, 1.5)[0])
            count += 1
        delays.append(count)
    assert np.median(delays) < 60


def test_good_history_is_no_credit() -> None:
    """An honest past makes no difference to how soon a cheat is seen."""
    rng = np.random.default_rng(6)
    past = FRESH
    for ratios in audits(rng, 200):
        past = accumulate(past, ratios)
    cheat = audits(rng, 1, 20.0)[0]
    assert combined(accumulate(past, cheat)) >= combined(accumulate(FRESH, cheat))


@given(_LEVELS, _LEVELS)
def test_levels_never_fall_below_their_start(levels: Levels, ratios: Levels) -> None:
    after = accumulate(levels, ratios)
    assert min(after) >= 0
    assert unpack(pack(after)) == after


@given(_LEVELS)
def test_the_combination_lies_between_the_alternatives(levels: Levels) -> None:
    log_count = math.ceil(MICRO * math.log(ALTERNATIVES)) + 1
    assert max(levels) - log_count <= combined(levels) <= max(levels) + 1


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_is_bounded_and_never_good(odd: float) -> None:
    levels = whole((odd, *[0.0] * (ALTERNATIVES - 1)))
    assert abs(levels[0]) <= 10**12
    assert math.isnan(odd) <= (levels[0] > 0)


def test_fresh_nodes_take_no_room() -> None:
    assert pack(FRESH) == b""
    assert unpack(b"") == FRESH
    assert gap_bin(255) == 15
