"""An owner who buys from himself, simulated (bench/verify/own_money.py): which rule he minds."""

from __future__ import annotations

from random import Random

import pytest

from own_money import DRAWN_AFTER_US, RULES, Owner, Plan, Rule

WORTH, _, NOW = RULES.values()
SAVED = 0.6  # of a job's price, by cheating on it: economics.Threat


def lost(rule: Rule, plan: Plan, pace: float) -> float:
    owner = Owner(rule, plan, pace, 1.0, Random(5))
    owner.live(2_000)
    return owner.lost / owner.asked


@pytest.mark.parametrize(
    ("plan", "pace"),
    [(Plan(purse=8), 2), (Plan(purse=8), 4), (Plan(purse=20, flush=16), 64)],
)
def test_what_paid_where_pay_was_held_by_worth_alone_is_a_loss_now(plan: Plan, pace: float) -> None:
    assert lost(WORTH, plan, pace) < SAVED < lost(NOW, plan, pace)


def test_an_honest_node_has_all_of_it_in_bounded_time() -> None:
    for pace in (0.5, 4, 64):
        owner = Owner(NOW, Plan(), pace, 1.0, Random(5))
        owner.live(500, honest=True)
        epochs = NOW.policy.holdback_epochs + 1
        assert max(owner.held_us) <= epochs * NOW.policy.epoch_us + DRAWN_AFTER_US
        assert min(owner.held_us) >= NOW.policy.holdback_us
