"""The economy's arithmetic: whatever happens, nothing appears, vanishes, or runs over."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_protocol.messages import ModelSplit, Pricing, Share
from assay_protocol.splits import PUBLISHER, Splits
from assay_simnet.epochs.asks import MODEL
from assay_simnet.epochs.purses import PURSE_MAX, Booked, Purses, exact_sum
from assay_simnet.invariants import Violated

NODES = 4
COUNTS = st.lists(st.integers(0, 10**6), min_size=NODES, max_size=NODES)
SHARES = st.lists(st.floats(0, 1), min_size=NODES, max_size=NODES)
WEIGHTS = st.lists(st.floats(0, 1e12), min_size=NODES, max_size=NODES)


def _rules(fee_bps: int, publisher_bps: int) -> Splits:
    shares = (Share(account=bytes([1]) * 32, role=PUBLISHER, bps=publisher_bps),)
    return Splits(Pricing(fee_bps=fee_bps, splits=(ModelSplit(model=MODEL, shares=shares),)))


@st.composite
def _epochs(draw: st.DrawFn) -> list[tuple[int, Splits, list[int], list[float], list[float]]]:
    size = draw(st.integers(1, 5))
    return [
        (
            draw(st.integers(1, 10**9)),
            _rules(draw(st.integers(0, 10_000)), draw(st.integers(1, 4_000))),
            draw(COUNTS),
            draw(SHARES),
            draw(SHARES),
        )
        for _ in range(size)
    ]


@settings(max_examples=60, deadline=None)
@given(_epochs(), st.integers(0, 10**15), WEIGHTS, st.integers(0, 10**15))
def test_purses_add_up_whatever_happens(
    epochs: list[tuple[int, Splits, list[int], list[float], list[float]]],
    wanted: int,
    weights: list[float],
    subsidy: int,
) -> None:
    purses = Purses(NODES)
    for price, rules, charged, back, kept in epochs:
        jobs = np.array(charged, np.int64)
        refunded = np.floor(jobs * np.array(back)).astype(np.int64)
        held = np.floor((jobs - refunded) * np.array(kept)).astype(np.int64)
        before = np.floor(purses.held * np.array(back)).astype(np.int64)
        purses.book(price, rules, Booked(jobs, before, refunded, held))
        treasury = purses.treasury
        paid = purses.pay_auditors(wanted, np.array(weights))
        assert 0 <= exact_sum(paid) <= min(wanted, treasury)
        got = purses.subsidise(subsidy, np.array(weights))
        assert 0 <= exact_sum(got) <= subsidy
        purses.check()
        assert min(purses.escrow.min(), purses.earned.min(), purses.treasury) >= 0


@given(st.lists(st.integers(-PURSE_MAX, PURSE_MAX), max_size=50))
def test_sums_are_exact_beyond_an_array_s_own(values: list[int]) -> None:
    assert exact_sum(np.array(values, np.int64)) == sum(values)


def test_what_no_purse_holds_is_refused() -> None:
    purses = Purses(1)
    nothing = np.zeros(1, np.int64)
    with pytest.raises(AssertionError):
        purses.book(PURSE_MAX, _rules(0, 1), Booked(nothing + 2, nothing, nothing, nothing))
    purses.granted[0] = PURSE_MAX + 1
    with pytest.raises(Violated, match="more than a purse holds"):
        purses.check()


@pytest.mark.parametrize(
    ("refunded", "held"),
    [(-1, 0), (0, 5)],
)
def test_more_held_or_refunded_than_there_is_shows(refunded: int, held: int) -> None:
    """Counts that contradict themselves make a purse negative, or a sum that is none."""
    purses = Purses(1)
    one = np.ones(1, np.int64)
    purses.book(10, _rules(1_000, 500), Booked(one, 0 * one, refunded * one, held * one))
    with pytest.raises(Violated, match="L1"):
        purses.check()
