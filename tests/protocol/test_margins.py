"""Gaps: drift below one never changes the draw, and drift a little above one may."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol import margins, sampling
from assay_protocol.adjustments import Logits, amplification
from assay_protocol.messages import Sampler, TokenBias

SEED = bytes(range(32))
PLAIN = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
OPEN = Sampler(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)

_SAMPLERS = st.builds(
    Sampler,
    temperature=st.sampled_from([0.0, 0.1, 0.8, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 5, 40]),
    top_p=st.sampled_from([0.1, 0.5, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.3]),
    repetition_penalty=st.sampled_from([None, 0.8, 1.3]),
    presence_penalty=st.sampled_from([None, 0.7]),
    logit_bias=st.sampled_from([None, (TokenBias(token=3, bias=-2.5),)]),
)


def logits_of(rng: int, size: int, spread: float = 3.0) -> Logits:
    return (np.random.default_rng(rng).standard_normal(size) * spread).astype(np.float32)


def drifts(rng: int, logits: Logits, amplitude: float) -> list[Logits]:
    """Drifts of one sup norm: at random, of one sign or the other, all as far as may be."""
    random = np.random.default_rng(rng)
    signs = random.choice([-1.0, 1.0], len(logits))
    order = np.argsort(-logits)
    against = np.ones(len(logits))
    against[order[: random.integers(1, 9)]] = -1.0
    found = [signs, against, -against, random.uniform(-1, 1, len(logits))]
    return [(logits + one * amplitude).astype(np.float32) for one in found]


@given(
    rng=st.integers(0, 2**32 - 1),
    sampler=_SAMPLERS,
    spread=st.sampled_from([0.3, 1.0, 3.0]),
    size=st.sampled_from([2, 30, 300, 1_300]),
    text=st.lists(st.integers(0, 1), max_size=6),
)
def test_drift_below_the_gap_never_changes_the_draw(
    rng: int, sampler: Sampler, spread: float, size: int, text: list[int]
) -> None:
    if sampler.logit_bias and size <= 3:
        sampler = replace(sampler, logit_bias=None)
    logits = logits_of(rng, size, spread)
    position = len(text)
    gap = margins.gap(logits, sampler, SEED, position, text)
    token = sampling.draw(logits, sampler, SEED, position, text)
    amplitude = min(gap, 30.0) * 0.999 - 1e-5
    if amplitude > 0:
        for drifted in drifts(rng, logits, amplitude):
            assert sampling.draw(drifted, sampler, SEED, position, text) == token


@given(rng=st.integers(0, 2**32 - 1), sampler=_SAMPLERS, count=st.integers(1, 60))
def test_drift_below_the_gap_stays_in_the_grammar(rng: int, sampler: Sampler, count: int) -> None:
    logits = logits_of(rng, 80)
    allowed = np.sort(np.random.default_rng(rng).choice(80, count, replace=False))
    gap = margins.gap(logits, sampler, SEED, 3, [1, 5, 1], allowed)
    token = sampling.draw(logits, sampler, SEED, 3, [1, 5, 1], allowed)
    assert gap == math.inf if count == 1 and sampler.temperature == 0 else gap >= 0
    amplitude = min(gap, 30.0) * 0.999 - 1e-5
    if amplitude > 0:
        for drifted in drifts(rng, logits, amplitude):
            assert sampling.draw(drifted, sampler, SEED, 3, [1, 5, 1], allowed) == token


@given(rng=st.integers(0, 2**32 - 1), sampler=_SAMPLERS)
def test_drift_that_made_another_token_is_no_less_than_the_gap(rng: int, sampler: Sampler) -> None:
    """A token's margin is what makes it win: no smaller than what makes the drawn one lose.

    Both are bounds; the gap's is closer where min-p could drop the best token, so not with it.
    """
    sampler = replace(sampler, min_p=0.0)
    logits = logits_of(rng, 200, 1.0)
    drawn = sampling.draw(logits, sampler, SEED, 0)
    gap = margins.gap(logits, sampler, SEED, 0)
    for token in np.argsort(-logits)[:12].tolist():
        if token != drawn:
            assert gap <= margins.margin(logits, token, sampler, SEED, 0) + 1e-4


@pytest.mark.parametrize("sampler", [OPEN, replace(OPEN, temperature=0.0)])
def test_without_filters_the_gap_is_half_the_lead(sampler: Sampler) -> None:
    for rng in range(20):
        logits = logits_of(rng, 3_000, 1.0)
        token = sampling.draw(logits, sampler, SEED, 0)
        gap = margins.gap(logits, sampler, SEED, 0)
        against = logits.copy()
        against += np.float32(gap * 1.01)
        against[token] = logits[token] - np.float32(gap * 1.01)
        assert sampling.draw(against, sampler, SEED, 0) != token


def test_a_lone_token_can_lose_only_to_one_that_is_let_in() -> None:
    logits = np.zeros(50, np.float32)
    logits[7], logits[9] = 9.0, 5.0
    sampler = replace(OPEN, min_p=math.exp(-3.0))
    token = sampling.draw(logits, sampler, SEED, 0)
    assert token == 7
    assert margins.gap(logits, sampler, SEED, 0) >= 0.499  # 1 logit outside the floor
    logits[9] = 0.0
    assert margins.gap(logits, sampler, SEED, 0) >= 2.99  # nobody near enough to raise the floor
    alone = np.array([7])
    assert margins.gap(logits, sampler, SEED, 0, (), alone) > 1


@pytest.mark.parametrize(
    "sampler", [PLAIN, OPEN, replace(PLAIN, top_k=0), replace(OPEN, top_p=0.9)]
)
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_a_replay_tells_the_gaps_of_its_rows(sampler: Sampler, spread: float) -> None:
    rows = np.stack([logits_of(rng, 2_000, spread) for rng in range(12)])
    own = [sampling.draw(rows[row], sampler, SEED, 5 + row) for row in range(12)]
    replayed = sampling.replay(rows, own, sampler, SEED, 5)
    alone = [margins.gap(rows[row], sampler, SEED, 5 + row) for row in range(12)]
    assert replayed.drawn == tuple(own)
    assert replayed.gaps == pytest.approx(alone, abs=1e-9)
    assert max(replayed.gaps) > 0.01


def test_a_repetition_penalty_makes_gaps_smaller() -> None:
    logits = logits_of(4, 300)
    plain = replace(PLAIN, temperature=0.0)
    penalized = replace(plain, repetition_penalty=1.5)
    assert amplification(penalized) == 1.5
    gap = margins.gap(logits, plain, SEED, 0)
    assert margins.gap(logits, penalized, SEED, 0) == pytest.approx(gap / 1.5)
