"""Rows to one vector: the three poolings, its length, and what is no direction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from assay_node.engine.embedding import POOLINGS, Pooling
from assay_node.engine.pooling import pooled
from assay_protocol.errors import AssayError

ROWS = np.array([[3, 4], [0, 0], [0, -2]], np.float32)

_ROWS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 9)),
    elements=st.floats(-100, 100, width=32),
)


def _vector(rows: NDArray[np.float32], pooling: Pooling) -> list[float]:
    return list(np.frombuffer(pooled(rows, pooling), "<f4"))


def test_each_pooling_takes_its_rows() -> None:
    assert _vector(ROWS, "cls") == pytest.approx([0.6, 0.8])
    assert _vector(ROWS, "last") == [0.0, -1.0]
    assert _vector(ROWS, "mean") == pytest.approx(np.array([3, 2]) / np.sqrt(13))


@given(_ROWS, st.sampled_from(POOLINGS))
def test_a_vector_has_length_one(rows: NDArray[np.float32], pooling: Pooling) -> None:
    assume(np.linalg.norm({"mean": rows.mean(0), "cls": rows[0], "last": rows[-1]}[pooling]) > 1e-3)
    vector = np.frombuffer(pooled(rows, pooling), "<f4").astype(float)
    assert vector.shape == rows.shape[1:]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


@given(_ROWS, st.sampled_from(POOLINGS))
def test_the_same_rows_give_the_same_bits_wherever_they_lie(
    rows: NDArray[np.float32], pooling: Pooling
) -> None:
    assume(np.linalg.norm({"mean": rows.mean(0), "cls": rows[0], "last": rows[-1]}[pooling]) > 1e-3)
    batch = np.concatenate([rows + 1, rows, rows - 1])
    inside = batch[len(rows) : 2 * len(rows)]
    transposed = np.asfortranarray(rows)
    assert pooled(inside, pooling) == pooled(transposed, pooling) == pooled(rows, pooling)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_is_not_finite_is_refused_where_it_counts(wrong: float, pooling: Pooling) -> None:
    for row in range(3):
        rows = ROWS.copy()
        rows[row, 1] = wrong
        if pooling == "mean" or row == {"cls": 0, "last": 2}[pooling]:
            with pytest.raises(AssayError) as caught:
                pooled(rows, pooling)
            assert caught.value.code == "not_finite"
        else:
            assert pooled(rows, pooling) == pooled(ROWS, pooling)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_nothing_has_no_direction(pooling: Pooling) -> None:
    with pytest.raises(AssayError) as caught:
        pooled(np.zeros((2, 3), np.float32), pooling)
    assert caught.value.code == "not_finite"
