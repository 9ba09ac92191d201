"""Passes as llama.cpp makes them, and costs learned from machines that are made up."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assay_node.engine.costs import ROWS_MAX, DecodeCosts, passes


def _split_equal(feeds: list[tuple[int, int]]) -> list[int]:
    """llama_batch_allocr::split_equal with `sequential`, until nothing is left: token by token."""
    batch = [slot for slot, tokens in feeds for _ in range(tokens)]
    used = [False] * len(batch)
    rows = []
    while not all(used):
        chosen: list[int] = []
        for slot, done in zip(batch, used, strict=True):
            if not done and slot not in chosen and (not chosen or slot == chosen[-1] + 1):
                chosen.append(slot)
        taken = 0
        while True:
            nexts = [
                next((i for i, s in enumerate(batch) if s == slot and not used[i]), None)
                for slot in chosen
            ]
            if None in nexts:
                break
            for i in nexts:
                assert i is not None
                used[i] = True
            taken += len(nexts)
        rows.append(taken)
    return rows


@given(st.dictionaries(st.integers(0, 12), st.integers(1, 6), min_size=1))
def test_passes_are_those_of_the_library(feeds: dict[int, int]) -> None:
    ordered = sorted(feeds.items())
    assert passes(ordered) == _split_equal(ordered)


def test_a_gap_or_another_length_is_another_pass() -> None:
    assert passes([(0, 1), (1, 1), (2, 1)]) == [3]
    assert passes([(0, 1), (2, 1)]) == [1, 1]
    assert passes([(0, 4), (1, 4)]) == [8]
    assert passes([(0, 1), (1, 4), (2, 1)]) == [3, 3]


_TRUE = {1: 0.030, 2: 0.047, 4: 0.062, 8: 0.115, 16: 0.230}


@pytest.mark.parametrize("busy", [1.0, 3.0])
def test_costs_become_those_of_the_machine(busy: float) -> None:
    costs = DecodeCosts()
    assert not costs.known
    for _ in range(20):
        for rows, seconds in _TRUE.items():
            costs.took([rows], busy * seconds)
    for rows, seconds in _TRUE.items():
        assert costs.seconds([rows]) == pytest.approx(busy * seconds, rel=0.1)
    assert costs.seconds([8, 4]) == pytest.approx(busy * (_TRUE[8] + _TRUE[4]), rel=0.1)
    assert costs.seconds([1]) < costs.seconds([3]) < costs.seconds([8])


def test_a_busier_machine_makes_all_of_them_dearer() -> None:
    costs = DecodeCosts()
    for _ in range(20):
        for rows, seconds in _TRUE.items():
            costs.took([rows], seconds)
    for _ in range(20):
        costs.took([1], 2 * _TRUE[1])
    assert costs.seconds([4]) > 1.5 * _TRUE[4]


def test_one_disturbed_decode_hardly_counts() -> None:
    costs = DecodeCosts()
    for _ in range(20):
        costs.took([1], 0.03)
    costs.took([1], 30.0)
    assert costs.seconds([1]) < 0.05


@example([([1, 1], 5e-324)])
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 2 * ROWS_MAX), min_size=1, max_size=4), st.floats(0.0, 1e4)
        ),
        max_size=40,
    )
)
def test_whatever_decodes_take_costs_stay_positive(
    decodes: list[tuple[list[int], float]],
) -> None:
    costs = DecodeCosts()
    for rows, seconds in decodes:
        costs.took(rows, seconds)
    if costs.known:
        assert all(costs.seconds([rows]) > 0.0 for rows in range(1, 20))
    assert len(costs._rows) <= ROWS_MAX
