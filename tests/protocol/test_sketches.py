"""Sketches: what they tell apart, what they survive, and what they cost on the wire."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol.errors import ProtocolError
from assay_protocol.limits import LEAF_TOKENS, SKETCH_BYTES
from assay_protocol.sketches import (
    gap_code,
    gap_of,
    leaf_distances,
    sketch,
    sketch_rows,
    sketch_tokens,
)

VOCABULARY = 49_152
SEED = bytes(range(32))


def logits(seed: int, tokens: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (tokens, VOCABULARY)).astype(np.float32)


def sketches(rows: np.ndarray) -> bytes:
    ids = np.stack([sketch_tokens(SEED, at, VOCABULARY) for at in range(len(rows))])
    return sketch(np.take_along_axis(rows, ids, axis=1))


def test_the_tokens_asked_for_follow_from_seed_and_position() -> None:
    ids = sketch_tokens(SEED, 7, VOCABULARY)
    assert list(ids) == list(sketch_tokens(SEED, 7, VOCABULARY))
    assert list(ids) != list(sketch_tokens(SEED, 8, VOCABULARY))
    assert list(ids) != list(sketch_tokens(bytes(32), 7, VOCABULARY))
    many = np.concatenate([sketch_tokens(SEED, at, 64) for at in range(400)])
    assert set(many) == set(range(64))


def test_distance_is_the_share_of_noise() -> None:
    rows = logits(1, 96)
    noise = np.random.default_rng(2).normal(0, 0.09, rows.shape).astype(np.float32)
    apart = leaf_distances(sketches(rows + noise), sketches(rows))
    assert len(apart) == 6
    assert all(0.02 < leaf < 0.045 for leaf in apart)  # 3 %
    assert leaf_distances(sketches(rows), sketches(rows)) == (0.0,) * 6
    assert min(leaf_distances(sketches(logits(3, 96)), sketches(rows))) > 1


def test_a_leaf_alone_is_told_apart() -> None:
    rows = logits(1, 40)
    other = rows.copy()
    other[LEAF_TOKENS : 2 * LEAF_TOKENS] = logits(9, LEAF_TOKENS)
    first, second, third = leaf_distances(sketches(other), sketches(rows))
    assert (first, third) == (0.0, 0.0)
    assert second > 1


def test_flat_logits_have_sketches_of_nothing() -> None:
    flat = sketch(np.full((3, 16), 2.5, np.float32))
    assert flat == bytes(3 * SKETCH_BYTES)
    assert leaf_distances(flat, flat) == (0.0,)
    assert leaf_distances(sketches(logits(1, 3)), flat) == (math.inf,)
    assert leaf_distances(b"", b"") == ()


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_any_bytes_give_distances_or_a_protocol_error(a: bytes, b: bytes) -> None:
    try:
        apart = leaf_distances(a, b)
    except ProtocolError:
        return
    assert all(leaf >= 0 for leaf in apart)
    assert len(apart) == -(-(len(b) // SKETCH_BYTES) // LEAF_TOKENS)


def test_a_step_that_is_no_number_is_infinitely_far() -> None:
    good = sketches(logits(1, 2))
    bad = good[: SKETCH_BYTES - 2] + b"\x00\x7e" + good[SKETCH_BYTES:]
    assert leaf_distances(bad, good) == (math.inf,)
    with pytest.raises(ProtocolError):
        leaf_distances(good, bad)


@given(st.floats(0, 100))
def test_gap_codes_are_lower_bounds_within_three_percent(gap: float) -> None:
    code = gap_code(gap)
    assert 0 <= code <= 255
    assert gap_of(code) <= gap * (1 + 1e-9)
    if 0.01 <= gap < 18:
        assert gap < gap_of(code) * 1.03 * (1 + 1e-9)


def test_what_is_no_gap_has_the_least_code() -> None:
    assert gap_code(math.nan) == 0
    assert gap_code(math.inf) == 255


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**31), max_size=9))
def test_many_rows_at_once_have_the_sketches_of_each_alone(rng: int, positions: list[int]) -> None:
    random = np.random.default_rng(rng)
    rows = (random.normal(0, 3, (len(positions), 1_000))).astype(np.float32)
    seeds = [random.bytes(32) for _ in positions]
    alone = [
        sketch(row[sketch_tokens(seed, position, 1_000)][None, :])
        for row, seed, position in zip(rows, seeds, positions, strict=True)
    ]
    assert sketch_rows(rows, seeds, positions) == b"".join(alone)


@given(st.lists(st.floats(-40, 40, width=32), min_size=16, max_size=16))
def test_a_sketch_is_off_by_half_a_step_at_most(values: list[float]) -> None:
    told = np.frombuffer(sketch(np.array([values], np.float32)), np.int8, 8)
    step = float(np.frombuffer(sketch(np.array([values], np.float32))[8:], "<f2")[0])
    apart = np.array(values[::2]) - np.array(values[1::2])
    if step > 1e-4:  # below, half precision is coarser than a hundredth
        assert np.abs(told * step - apart).max() <= step * 0.51 + 1e-6
        assert np.abs(told).max() == 127
