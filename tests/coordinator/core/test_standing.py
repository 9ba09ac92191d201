"""A record fades with time, new models and new classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import NodeRow
from assay_coordinator.core.standing import (
    IDLE_US,
    OFFERED_MAX,
    aged,
    fresh_row,
    may_audit,
    offering,
    weakened,
)
from assay_protocol.messages import Offer

POLICY = Policy()
MODEL = b"\x03" * 32


def row(**changes: object) -> NodeRow:
    plain = replace(fresh_row(b"n" * 32, b"o" * 32, 0), state="active", verified=400)
    return replace(plain, **changes)  # type: ignore[arg-type]  # names are NodeRow's


def offer(class_id: str, model: bytes = MODEL) -> Offer:
    return Offer(model=model, class_id=class_id, slots=1, context=1, prefill_rate=1, decode_rate=1)


@pytest.mark.parametrize(
    ("idle", "verified", "state"),
    [
        (IDLE_US - 1, 400, "active"),
        (IDLE_US, 200, "active"),
        (5 * IDLE_US, 12, "probation"),
        (500 * IDLE_US, 0, "probation"),
    ],
)
def test_half_a_record_is_gone_after_a_month_unused(idle: int, verified: int, state: str) -> None:
    old = aged(POLICY, row(), idle)
    assert (old.verified, old.state) == (verified, state)


@given(st.lists(st.integers(0, 3 * IDLE_US), max_size=6))
def test_it_makes_no_difference_how_often_one_looks(gaps: list[int]) -> None:
    now, often = 0, row(verified=10**6)
    for gap in gaps:
        now += gap
        often = aged(POLICY, often, now)
    assert often == aged(POLICY, row(verified=10**6), now)


def test_a_new_class_or_model_halves_the_record_once() -> None:
    first = offering(POLICY, row(), (offer("x/F"),), 5)
    assert first.verified == 400, "the first offer is no change"
    assert offering(POLICY, first, (offer("x/F"),), 6) == first
    other = offering(POLICY, first, (offer("y/F"),), 6)
    assert other.verified == 200
    back = offering(POLICY, other, (offer("x/F"),), 7)
    assert back.verified == 200, "both have been offered"
    more = offering(POLICY, back, (offer("x/F"), offer("x/F", b"\x04" * 32)), 8)
    assert more.verified == 100


def test_fewer_models_than_before_are_no_change() -> None:
    two = offering(POLICY, row(), (offer("x/F"), offer("x/F", b"\x04" * 32)), 5)
    assert offering(POLICY, two, (offer("x/F"),), 6).verified == 400


def test_what_is_remembered_of_offers_is_bounded() -> None:
    seen = row()
    for i in range(3 * OFFERED_MAX):
        seen = offering(POLICY, seen, (offer(f"class {i}"),), i)
    assert len(seen.offered) == 8 * OFFERED_MAX


def test_too_few_passed_audits_are_probation_again() -> None:
    assert weakened(POLICY, row(), 9, 19).state == "probation"
    assert weakened(POLICY, row(), 9, 20).state == "active"
    assert weakened(POLICY, row(state="inquiry"), 9, 0).state == "inquiry"


def test_who_may_audit() -> None:
    assert may_audit(POLICY, row())
    assert not may_audit(POLICY, row(outvoted=POLICY.outvoted_max, audits_done=10**6))
    assert may_audit(POLICY, row(audit_faults=16))
    assert not may_audit(POLICY, row(audit_faults=17))
    assert may_audit(POLICY, row(audit_faults=17, audits_done=8))
