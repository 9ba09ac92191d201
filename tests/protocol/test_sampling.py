"""Drawing tokens: published Philox vectors, our own vectors, properties of spec/sampler.md."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assay_protocol import sampling
from assay_protocol.errors import ProtocolError

VECTORS = json.loads(
    (Path(__file__).parents[2] / "protocol/spec/vectors/sampling.json").read_text()
)
SEED = bytes(range(32))


@dataclass(frozen=True)
class Settings:
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05


def _logits(rng_seed: int, size: int) -> sampling.Logits:
    return (np.random.default_rng(rng_seed).standard_normal(size) * 3).astype(np.float32)


def _plain(logits: sampling.Logits, s: Settings, seed: bytes, position: int) -> int:
    """The MUST list of spec/sampler.md, token by token, with nothing clever."""
    order = sorted(range(len(logits)), key=lambda token: (-float(logits[token]), token))
    if s.temperature == 0.0:
        return order[0]
    kept = order[: s.top_k or len(order)]
    best = float(logits[kept[0]])
    weights = [math.exp(float(logits[token]) - best) for token in kept]
    mass, before, inside = math.fsum(weights), 0.0, []
    for token, weight in zip(kept, weights, strict=True):
        if s.top_p == 1.0 or before < s.top_p * mass:
            inside.append(token)
        before += weight
    if s.min_p > 0.0:
        inside = [t for t in inside if float(logits[t]) >= best + math.log(s.min_p)]
    noise = sampling.gumbel(seed, position, np.array(inside))
    scores = [float(logits[t]) + s.temperature * g for t, g in zip(inside, noise, strict=True)]
    best_score = max(scores)
    return min(t for t, score in zip(inside, scores, strict=True) if score == best_score)


@pytest.mark.parametrize("case", VECTORS["philox"], ids=lambda case: case["counter"][:8])
def test_philox_vectors(case: dict[str, str]) -> None:
    words = [int(case["counter"][i : i + 8], 16) for i in range(0, 32, 8)]
    key = [int(case["key"][i : i + 8], 16) for i in range(0, 16, 8)]
    out = sampling.philox(
        np.array(words, np.uint64).reshape(4, 1), np.array(key, np.uint64).reshape(2, 1)
    )
    assert "".join(f"{int(word):08x}" for word in out[:, 0]) == case["out"]


@pytest.mark.parametrize("case", VECTORS["noise"], ids=lambda case: f"at {case['position']}")
def test_noise_vectors(case: dict[str, object]) -> None:
    noise = sampling.gumbel(
        bytes.fromhex(str(case["seed"])), int(str(case["position"])), np.array(case["tokens"])
    )
    expected = [float.fromhex(value) for value in case["noise"]]  # type: ignore[attr-defined]  # JSON
    np.testing.assert_array_max_ulp(noise, np.array(expected), maxulp=4)


@pytest.mark.parametrize("case", VECTORS["draws"], ids=lambda case: case["name"])
def test_draw_vectors(case: dict[str, object]) -> None:
    logits = np.array(case["logits"], np.float32)
    sampler = Settings(**case["sampler"])  # type: ignore[arg-type]  # JSON
    seed, position = bytes.fromhex(str(case["seed"])), int(str(case["position"]))
    assert sampling.draw(logits, sampler, seed, position) == case["token"]
    assert _plain(logits, sampler, seed, position) == case["token"]


_SAMPLERS = st.builds(
    Settings,
    temperature=st.sampled_from([0.0, 0.3, 0.8, 1.5]),
    top_k=st.sampled_from([0, 1, 2, 40, 600, 5_000]),
    top_p=st.sampled_from([0.1, 0.5, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)


@given(
    rng=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1, 3, 97, 1_024, 1_500]),
    sampler=_SAMPLERS,
    position=st.integers(0, 10_000),
    ties=st.booleans(),
)
def test_draw_is_the_spec(
    rng: int, size: int, sampler: Settings, position: int, ties: bool
) -> None:
    logits = _logits(rng, size)
    if ties:
        logits = np.round(logits)
    assert sampling.draw(logits, sampler, SEED, position) == _plain(logits, sampler, SEED, position)


@given(rng=st.integers(0, 2**32 - 1), samplers=st.lists(_SAMPLERS, min_size=1, max_size=6))
def test_rows_are_drawn_as_if_alone(rng: int, samplers: list[Settings]) -> None:
    logits = np.stack([_logits(rng + row, 1_500) for row in range(len(samplers))])
    seeds = [bytes([row]) * 32 for row in range(len(samplers))]
    positions = [7 * row for row in range(len(samplers))]
    alone = [
        sampling.draw(logits[row], samplers[row], seeds[row], positions[row])
        for row in range(len(samplers))
    ]
    assert sampling.draw_rows(logits, samplers, seeds, positions) == alone


def test_draws_follow_the_softmax() -> None:
    logits = np.array([2.0, 1.0, 0.0, -1.0], np.float32)
    sampler = Settings(temperature=0.7, top_k=0, top_p=1.0, min_p=0.0)
    count = 4_000
    drawn = sampling.draw_rows(
        np.tile(logits, (count, 1)), [sampler] * count, [SEED] * count, range(count)
    )
    weights = np.exp(logits.astype(np.float64) / 0.7)
    expected = weights / weights.sum() * count
    chi_square = float((((np.bincount(drawn, minlength=4) - expected) ** 2) / expected).sum())
    assert chi_square < 16.27  # 3 degrees of freedom, p = 0.001; the seed is fixed


def test_noise_depends_on_seed_position_and_token() -> None:
    tokens = np.arange(1_000)
    base = sampling.gumbel(SEED, 3, tokens)
    assert len(np.unique(base)) == 1_000
    assert not np.any(base == sampling.gumbel(SEED, 4, tokens))
    assert not np.any(base == sampling.gumbel(bytes(32), 3, tokens))
    assert np.array_equal(base[::-1], sampling.gumbel(SEED, 3, tokens[::-1]))


def test_replay_of_own_draws_has_no_margin() -> None:
    rows = np.stack([_logits(row, 2_000) for row in range(20)])
    own = [sampling.draw(rows[row], Settings(), SEED, 5 + row) for row in range(20)]
    result = sampling.replay(rows, own, Settings(), SEED, 5)
    assert result.drawn == tuple(own)
    assert result.margins == (0.0,) * 20


@example(rng=102, sampler=Settings(temperature=0.3, top_k=0, top_p=0.1, min_p=0.0), amplitude=0.5)
@given(rng=st.integers(0, 2**32 - 1), sampler=_SAMPLERS, amplitude=st.floats(0.001, 1.0))
def test_drift_below_the_margin_cannot_explain_a_token(
    rng: int, sampler: Settings, amplitude: float
) -> None:
    """rho is a lower bound: if drift of this amplitude changed the token, rho is no larger."""
    logits = _logits(rng, 700)
    noise = np.random.default_rng(rng ^ 1).uniform(-amplitude, amplitude, 700)
    drifted = (logits + noise).astype(np.float32)
    token = sampling.draw(drifted, sampler, SEED, 9)
    if token != sampling.draw(logits, sampler, SEED, 9):
        assert sampling.margin(logits, token, sampler, SEED, 9) <= amplitude + 1e-4


def test_margin_of_an_impossible_token_is_large() -> None:
    logits = np.zeros(100, np.float32)
    logits[7] = 12.0
    assert sampling.margin(logits, 50, Settings(), SEED, 0) > 2.0
    assert sampling.margin(logits, 50, Settings(temperature=0.0), SEED, 0) == 6.0


@pytest.mark.parametrize(
    "sampler",
    [
        Settings(temperature=-0.1),
        Settings(temperature=math.nan),
        Settings(temperature=math.inf),
        Settings(top_k=-1),
        Settings(top_k=1 << 30),
        Settings(top_p=0.0),
        Settings(top_p=1.01),
        Settings(min_p=-0.01),
        Settings(min_p=1.5),
    ],
)
def test_out_of_range_is_refused(sampler: Settings) -> None:
    with pytest.raises(ProtocolError) as caught:
        sampling.validate(sampler)
    assert caught.value.code == "sampler_refused"


def test_defaults_and_switched_off_filters_are_accepted() -> None:
    sampling.validate(Settings())
    sampling.validate(Settings(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0))
