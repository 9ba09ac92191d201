"""Drawing tokens: published Philox vectors, our own vectors, properties of spec/sampler.md."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol import margins, noise, samplers, sampling
from assay_protocol.adjustments import Logits, asked_logprobs
from assay_protocol.errors import ProtocolError
from assay_protocol.logprobs import unpack_logprobs
from assay_protocol.messages import TokenBias

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
    repetition_penalty: float | None = None
    repetition_window: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: tuple[TokenBias, ...] | None = None
    stop_tokens: tuple[int, ...] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None


def _logits(rng_seed: int, size: int) -> Logits:
    return (np.random.default_rng(rng_seed).standard_normal(size) * 3).astype(np.float32)


def _adjusted(logits: Logits, s: Settings, position: int, text: list[int]) -> list[float]:
    """Rule 3 of spec/sampler.md, token by token."""
    values = [float(value) for value in logits]
    window = 64 if s.repetition_window is None else s.repetition_window
    answer = text[len(text) - position :]
    for token in set(text[len(text) - min(window, len(text)) :]):
        penalty = s.repetition_penalty or 1.0
        value = values[token]
        values[token] = value / penalty if value > 0 else value * penalty
    for token in set(answer):
        times = answer.count(token)
        values[token] -= times * (s.frequency_penalty or 0.0) + (s.presence_penalty or 0.0)
    for entry in s.logit_bias or ():
        values[entry.token] += entry.bias
    return values


def _plain(
    logits: Logits, s: Settings, seed: bytes, position: int, text: list[int] | None = None
) -> int:
    """The MUST list of spec/sampler.md, token by token, with nothing clever."""
    values = _adjusted(logits, s, position, text or [])
    order = sorted(range(len(values)), key=lambda token: (-values[token], token))
    if s.temperature == 0.0:
        return order[0]
    kept = order[: s.top_k or len(order)]
    best = values[kept[0]]
    weights = [math.exp(values[token] - best) for token in kept]
    mass, before, inside = math.fsum(weights), 0.0, []
    for token, weight in zip(kept, weights, strict=True):
        if s.top_p == 1.0 or before < s.top_p * mass:
            inside.append(token)
        before += weight
    if s.min_p > 0.0:
        inside = [t for t in inside if values[t] >= best + math.log(s.min_p)]
    gumbels = noise.gumbel(seed, position, np.array(inside))
    scores = [values[t] + s.temperature * g for t, g in zip(inside, gumbels, strict=True)]
    best_score = max(scores)
    return min(t for t, score in zip(inside, scores, strict=True) if score == best_score)


@pytest.mark.parametrize("case", VECTORS["philox"], ids=lambda case: case["counter"][:8])
def test_philox_vectors(case: dict[str, str]) -> None:
    words = [int(case["counter"][i : i + 8], 16) for i in range(0, 32, 8)]
    key = [int(case["key"][i : i + 8], 16) for i in range(0, 16, 8)]
    out = noise.philox(
        np.array(words, np.uint64).reshape(4, 1), np.array(key, np.uint64).reshape(2, 1)
    )
    assert "".join(f"{int(word):08x}" for word in out[:, 0]) == case["out"]


@given(rng=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 90), min_size=1, max_size=5))
def test_noise_of_few_is_the_noise_of_many(rng: int, sizes: list[int]) -> None:
    random = np.random.default_rng(rng)
    seeds = [random.bytes(32) for _ in sizes]
    positions = [int(random.integers(2**31)) for _ in sizes]
    rows = [random.integers(0, 2**20, size) for size in sizes]
    expected = []
    for seed, position, row in zip(seeds, positions, rows, strict=True):
        ascending, place = np.unique(row, return_inverse=True)
        found = noise.gumbel_of(noise.words_of_many(seed, position, ascending))
        expected.append(found[place])
    assert np.array_equal(noise.noise_of_rows(seeds, positions, rows), np.concatenate(expected))


@pytest.mark.parametrize("case", VECTORS["noise"], ids=lambda case: f"at {case['position']}")
def test_noise_vectors(case: dict[str, object]) -> None:
    drawn = noise.gumbel(
        bytes.fromhex(str(case["seed"])), int(str(case["position"])), np.array(case["tokens"])
    )
    expected = [float.fromhex(value) for value in case["noise"]]  # type: ignore[attr-defined]  # JSON
    np.testing.assert_array_max_ulp(drawn, np.array(expected), maxulp=4)


@pytest.mark.parametrize("case", VECTORS["draws"], ids=lambda case: case["name"])
def test_draw_vectors(case: dict[str, object]) -> None:
    logits = np.array(case["logits"], np.float32)
    sampler = Settings(**case["sampler"])  # type: ignore[arg-type]  # JSON
    seed, position = bytes.fromhex(str(case["seed"])), int(str(case["position"]))
    assert sampling.draw(logits, sampler, seed, position) == case["token"]
    assert _plain(logits, sampler, seed, position) == case["token"]


@pytest.mark.parametrize("case", VECTORS["options"], ids=lambda case: case["name"])
def test_option_vectors(case: dict[str, Any]) -> None:
    logits = np.array(case["logits"], np.float32)
    settings = dict(case["sampler"])
    if "logit_bias" in settings:
        settings["logit_bias"] = tuple(TokenBias(**entry) for entry in settings["logit_bias"])
    sampler, seed = Settings(**settings), bytes.fromhex(case["seed"])
    position, text = case["position"], case["text"]
    assert sampling.draw(logits, sampler, seed, position, text) == case["token"]
    assert _plain(logits, sampler, seed, position, text) == case["token"]


@pytest.mark.parametrize("case", VECTORS["masked"], ids=lambda case: case["name"])
def test_mask_vectors(case: dict[str, Any]) -> None:
    logits, allowed = np.array(case["logits"], np.float32), case["allowed"]
    sampler, seed = Settings(**case["sampler"]), bytes.fromhex(case["seed"])
    position, text = case["position"], case["text"]
    drawn = sampling.draw(logits, sampler, seed, position, text, np.array(allowed))
    assert drawn == case["token"]
    outside = np.setdiff1d(np.arange(len(logits)), allowed)
    logits[outside] = -1e30
    assert _plain(logits, sampler, seed, position, text) == case["token"]


@given(
    st.integers(0, 1 << 32),
    st.sampled_from([0.0, 0.8, 2.0]),
    st.sampled_from([0, 1, 3, 40]),
    st.sampled_from([0.5, 0.95, 1.0]),
    st.sampled_from([0.0, 0.2]),
    st.floats(0.01, 1.0),
)
def test_a_mask_draws_as_if_nothing_else_were_in_the_vocabulary(
    rng_seed: int, temperature: float, top_k: int, top_p: float, min_p: float, share: float
) -> None:
    """All three ways: one row, many rows, and an oracle in which other tokens are hopeless."""
    rng = np.random.default_rng(rng_seed)
    logits = _logits(rng_seed, 2000)
    allowed = np.flatnonzero(rng.random(2000) < share)
    allowed = allowed if len(allowed) else np.array([1999])
    sampler = Settings(temperature, top_k, top_p, min_p)
    drawn = sampling.draw(logits, sampler, SEED, 3, (), allowed)
    hopeless = np.full_like(logits, -1e30)
    hopeless[allowed] = logits[allowed]
    assert drawn in allowed
    assert drawn == sampling.draw(hopeless, sampler, SEED, 3)
    both = sampling.draw_rows(
        np.stack([logits, logits]), [sampler] * 2, [SEED] * 2, [3, 3], None, [None, allowed]
    )
    assert both == [sampling.draw(logits, sampler, SEED, 3), drawn]
    everything = np.arange(2000)
    for token in (drawn, int(allowed[0]), 5):
        plain = margins.margin(logits, token, sampler, SEED, 3)
        assert margins.margin(logits, token, sampler, SEED, 3, (), everything) == plain


_BIASES = st.lists(
    st.tuples(st.integers(0, 96), st.sampled_from([-100.0, -1.5, 0.25, 4.0])),
    max_size=3,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: tuple(TokenBias(token=t, bias=by) for t, by in sorted(pairs)) or None)
_OPTIONS = st.builds(
    Settings,
    temperature=st.sampled_from([0.0, 0.8, 1.5]),
    top_k=st.sampled_from([0, 2, 40]),
    top_p=st.sampled_from([0.5, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([None, 0.5, 1.0, 1.1, 2.0]),
    repetition_window=st.sampled_from([None, 0, 1, 7, 4_096]),
    presence_penalty=st.sampled_from([None, -2.0, 0.6]),
    frequency_penalty=st.sampled_from([None, -0.3, 0.0, 1.5]),
    logit_bias=_BIASES,
)
_TEXTS = st.lists(st.integers(0, 96), max_size=90)
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


@given(
    rng=st.integers(0, 2**32 - 1),
    size=st.sampled_from([97, 1_500]),
    sampler=_OPTIONS,
    text=_TEXTS,
    answered=st.integers(0, 90),
)
def test_options_are_the_spec(
    rng: int, size: int, sampler: Settings, text: list[int], answered: int
) -> None:
    logits = _logits(rng, size)
    position = min(answered, len(text))
    expected = _plain(logits, sampler, SEED, position, text)
    assert sampling.draw(logits, sampler, SEED, position, text) == expected


@given(rng=st.integers(0, 2**32 - 1), sampler=_OPTIONS, prompt=_TEXTS)
def test_a_replay_in_pieces_draws_what_was_drawn(
    rng: int, sampler: Settings, prompt: list[int]
) -> None:
    rows = np.stack([_logits(rng + row, 97) for row in range(12)])
    text = list(prompt)
    for row in range(12):
        text.append(sampling.draw(rows[row], sampler, SEED, row, text))
    output = text[len(prompt) :]
    for begin, end in ((0, 5), (5, 12)):
        before = text[: len(prompt) + begin]
        result = sampling.replay(rows[begin:end], output[begin:end], sampler, SEED, begin, before)
        assert result.drawn == tuple(output[begin:end])
        assert result.margins == (0.0,) * (end - begin)


@given(
    rng=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.0, 0.5, 3.0, 8.0]),
    temperature=st.sampled_from([1e-9, 0.1, 0.8, 2.0, 4.0]),
    offset=st.sampled_from([0.0, -1e6, 1e6]),
    top_p=st.sampled_from([1.0, 0.999, 0.7]),
)
def test_ruling_candidates_out_changes_no_draw(
    rng: int, spread: float, temperature: float, offset: float, top_p: float
) -> None:
    """The full computation: noise for every candidate, one argmax."""
    logits = (np.random.default_rng(rng).standard_normal(6_000) * spread + offset).astype(
        np.float32
    )
    sampler = Settings(temperature=temperature, top_k=0, top_p=top_p, min_p=0.0)
    order = np.argsort(-logits, kind="stable")
    weights = np.exp(logits[order].astype(np.float64) - float(logits.max()))
    inside = order[np.cumsum(weights) - weights < top_p * weights.sum()] if top_p < 1 else order
    scores = logits[inside] + temperature * noise.gumbel(SEED, 3, inside)
    assert sampling.draw(logits, sampler, SEED, 3) == inside[scores == scores.max()].min()


def test_noise_by_blocks_is_the_noise_token_by_token() -> None:
    tokens = np.flatnonzero(np.random.default_rng(5).random(5_000) < 0.3)
    expected = noise.gumbel(SEED, 77, tokens)
    assert np.array_equal(noise.gumbel_of(noise.words_of_many(SEED, 77, tokens)), expected)
    whole = noise.words_of_all(SEED, 77, 5_000)
    assert len(whole) == 5_000
    assert np.array_equal(noise.gumbel_of(whole[tokens]), expected)
    assert noise.gumbel(SEED, 0, tokens).max() < noise.GUMBEL_MOST
    assert -math.log(-math.log(1 - 2.0**-33)) < noise.GUMBEL_MOST


@given(least=st.floats(-40.0, 30.0))
def test_words_below_the_least_give_less_noise(least: float) -> None:
    word = noise.least_word(least)
    around = np.unique(np.clip(np.arange(word - 9, word + 10), 0, 2**32 - 1)).astype(np.uint32)
    found = noise.gumbel_of(around)
    assert np.all(np.diff(found) >= 0.0)
    assert np.all(found[around < word] < least)
    if word + 9 < 2**32:
        assert found[-1] >= least


def test_a_float32_row_is_compared_with_real_floors() -> None:
    floor = 1.0 + math.log(0.05)
    below = np.float32(floor)
    below = below if float(below) < floor else np.nextafter(below, np.float32(-np.inf))
    logits = np.array([1.0, below, np.nextafter(below, np.float32(9))], np.float32)
    sampler = Settings(temperature=4.0, top_k=0, top_p=1.0)
    drawn = {sampling.draw(logits, sampler, SEED, position) for position in range(200)}
    assert drawn == {0, 2}


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
    base = noise.gumbel(SEED, 3, tokens)
    assert len(np.unique(base)) == 1_000
    assert not np.any(base == noise.gumbel(SEED, 4, tokens))
    assert not np.any(base == noise.gumbel(bytes(32), 3, tokens))
    assert np.array_equal(base[::-1], noise.gumbel(SEED, 3, tokens[::-1]))


def test_replay_of_own_draws_has_no_margin() -> None:
    rows = np.stack([_logits(row, 2_000) for row in range(20)])
    own = [sampling.draw(rows[row], Settings(), SEED, 5 + row) for row in range(20)]
    result = sampling.replay(rows, own, Settings(), SEED, 5)
    assert result.drawn == tuple(own)
    assert result.margins == (0.0,) * 20


@given(rng=st.integers(0, 2**32 - 1), sampler=_SAMPLERS, amplitude=st.floats(0.001, 1.0))
def test_drift_below_the_margin_cannot_explain_a_token(
    rng: int, sampler: Settings, amplitude: float
) -> None:
    """rho is a lower bound: if drift of this amplitude changed the token, rho is no larger."""
    logits = _logits(rng, 700)
    drift = np.random.default_rng(rng ^ 1).uniform(-amplitude, amplitude, 700)
    drifted = (logits + drift).astype(np.float32)
    token = sampling.draw(drifted, sampler, SEED, 9)
    if token != sampling.draw(logits, sampler, SEED, 9):
        assert margins.margin(logits, token, sampler, SEED, 9) <= amplitude + 1e-4


@given(
    rng=st.integers(0, 2**32 - 1),
    sampler=_OPTIONS,
    amplitude=st.floats(0.001, 1.0),
    text=_TEXTS,
)
def test_drift_through_options_stays_below_the_margin(
    rng: int, sampler: Settings, amplitude: float, text: list[int]
) -> None:
    logits = _logits(rng, 300)
    drift = np.random.default_rng(rng ^ 1).uniform(-amplitude, amplitude, 300)
    drifted = (logits + drift).astype(np.float32)
    token = sampling.draw(drifted, sampler, SEED, len(text), text)
    if token != sampling.draw(logits, sampler, SEED, len(text), text):
        rho = margins.margin(logits, token, sampler, SEED, len(text), text)
        assert rho <= amplitude + 1e-4


def test_logprobs_are_of_the_raw_logits() -> None:
    logits = _logits(1, 97)
    sampler = Settings(logprobs=3, presence_penalty=2.0, temperature=0.1)
    told = unpack_logprobs(asked_logprobs(logits, 50, sampler), (50,), 3)[0]
    wide = logits.astype(np.float64)
    expected = wide - np.log(np.exp(wide).sum())
    assert told.token == 50
    assert told.logprob == pytest.approx(expected[50], abs=1e-5)
    assert [token for token, _ in told.top] == np.argsort(-logits, kind="stable")[:3].tolist()
    assert [value for _, value in told.top] == pytest.approx(np.sort(expected)[:-4:-1], abs=1e-5)
    assert asked_logprobs(logits, 50, Settings()) == b""


@pytest.mark.parametrize(
    "data",
    [b"", struct.pack("<If", 5, 0.5), struct.pack("<If", 5, math.nan), struct.pack("<If", 6, -1)],
)
def test_logprobs_of_another_shape_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_logprobs(data, (5,), 0)


def test_margin_of_an_impossible_token_is_large() -> None:
    logits = np.zeros(100, np.float32)
    logits[7] = 12.0
    assert margins.margin(logits, 50, Settings(), SEED, 0) > 2.0
    assert margins.margin(logits, 50, Settings(temperature=0.0), SEED, 0) == 6.0


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
        Settings(repetition_penalty=0.49),
        Settings(repetition_penalty=math.nan),
        Settings(repetition_window=4_097),
        Settings(presence_penalty=2.1),
        Settings(frequency_penalty=-2.1),
        Settings(logprobs=21),
        Settings(stop_tokens=tuple(range(33))),
        Settings(stop_tokens=(3, 3)),
        Settings(stop_tokens=(100,)),
        Settings(logit_bias=(TokenBias(token=0, bias=100.5),)),
        Settings(logit_bias=(TokenBias(token=2, bias=0.0), TokenBias(token=1, bias=0.0))),
        Settings(logit_bias=(TokenBias(token=100, bias=0.0),)),
        Settings(logit_bias=tuple(TokenBias(token=t, bias=0.0) for t in range(257))),
    ],
)
def test_out_of_range_is_refused(sampler: Settings) -> None:
    with pytest.raises(ProtocolError) as caught:
        samplers.validate(sampler, 100)
    assert caught.value.code == "sampler_refused"


def test_defaults_and_switched_off_filters_are_accepted() -> None:
    samplers.validate(Settings())
    samplers.validate(Settings(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0))
    samplers.validate(Settings(stop_tokens=(0, 99), logit_bias=()), 100)
