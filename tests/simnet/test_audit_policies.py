"""Others' rules of verification: rates are chances that fall with a record, as their code says."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.coordinator import Coordinator
from assay_coordinator.core.oversight import Assay, Sanction
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import NodeRow
from assay_coordinator.core.standing import fresh_row
from assay_simnet.audit_policies import (
    EPOCH_US,
    EPOCHS_TO_MAX,
    FULL_TRAFFIC,
    SCHEMES,
    Boinc,
    Gonka,
    boinc_rate,
    gonka_invalid,
    gonka_rate,
    gonka_rate_min,
    gonka_reputation,
)
from assay_simnet.drivers.fast import Fast
from assay_simnet.schema import ScenarioError
from simnet.scenario_texts import SMALL, ran, scenario

NOW = 10 * EPOCH_US
COUNTS = st.integers(0, 1 << 40)
PERCENT = st.integers(0, 100)
OUTCOMES = st.sampled_from(["passed", "failed", "unequal", "withheld", "unproven", "unaudited"])


def row(**changes: object) -> NodeRow:
    return replace(fresh_row(bytes(32), bytes(32), NOW), **changes)  # type: ignore[arg-type]


@given(COUNTS, COUNTS)
def test_boincs_rate_is_a_chance_and_falls_with_the_record(one: int, other: int) -> None:
    less, more = sorted((one, other))
    assert 0 < boinc_rate(more) <= boinc_rate(less) <= 1


@given(COUNTS, COUNTS, st.integers(1, 10**9), st.integers(0, 10**9))
def test_ours_is_a_chance_that_falls_with_the_record_and_with_what_is_at_risk(
    one: int, other: int, price: int, more: int
) -> None:
    rules = SCHEMES["assay"].oversight(Policy())
    less, better = (row(verified=count) for count in sorted((one, other)))
    chance = Fraction(*rules.rate(NOW, better, price, price + more))
    assert 0 < chance <= Fraction(*rules.rate(NOW, less, price, price + more)) <= 1
    assert chance <= Fraction(*rules.rate(NOW, better, price, price))


@given(PERCENT, PERCENT, COUNTS, COUNTS)
def test_gonkas_rate_is_a_chance_and_falls_with_reputation_and_traffic(
    one: int, other: int, some: int, many: int
) -> None:
    worse, better = sorted((one, other))
    calm, busy = sorted((some, many))
    assert Fraction(1, 100) <= gonka_rate(better, busy) <= gonka_rate(worse, busy) <= 1
    assert gonka_rate(better, busy) <= gonka_rate(better, calm)


@given(st.integers(0, 1000), st.lists(st.fractions(0, 1), max_size=5))
def test_gonkas_reputation_is_a_share_and_misses_never_raise_it(
    epochs: int, missed: list[Fraction]
) -> None:
    assert 0 <= gonka_reputation(epochs, missed) <= gonka_reputation(epochs) <= 100
    assert gonka_reputation(epochs) <= gonka_reputation(epochs + 1)


def test_the_rates_are_those_of_the_sources() -> None:
    assert [boinc_rate(n) for n in (0, 9, 10, 400)] == [1, 1, Fraction(1, 10), Fraction(1, 400)]
    wanted = {0: 1, 100: 1, 2_550: Fraction(21, 40), 5_000: Fraction(1, 20)}
    wanted |= {7_500: Fraction(3, 100), FULL_TRAFFIC: Fraction(1, 100)}
    assert {n: gonka_rate_min(n) for n in wanted} == wanted
    assert gonka_rate(0, FULL_TRAFFIC) == 1
    assert [gonka_reputation(n) for n in (0, 1, 15, 29, 30, 400)] == [0, 3, 50, 96, 100, 100]
    assert gonka_reputation(30, [Fraction(1, 2), Fraction(1, 100)]) == 98


def test_boinc_forgets_a_host_s_record_and_sends_nobody_away() -> None:
    known = row(state="active", verified=400)
    for outcome in ("failed", "unequal", "withheld"):
        kept = Boinc().kept(known, replace(known, failed=1), outcome)
        assert (kept.verified, kept.state, kept.failed) == (0, "probation", 1)
        assert Boinc().sanction(replace(kept, disproved=99), outcome) is Sanction.NONE
    assert Boinc().kept(known, known, "passed") is known
    assert Boinc().rate(NOW, known, 10, 10**9) == (1, 400)


@given(st.lists(OUTCOMES, max_size=200))
def test_gonkas_test_is_the_one_of_its_code(outcomes: list[str]) -> None:
    """The sequential test by hand, in floating point, as sprt.go has it."""
    rules, known, ratio, streak = Gonka(), row(state="active", verified=400), 0.0, 0
    for outcome in outcomes:
        counted = replace(known, disproved=7, evidence=1, state="probation")
        known = rules.kept(known, counted, outcome)
        if outcome == "passed":
            ratio, streak = ratio - 0.171850, 0
        elif outcome in ("failed", "unequal", "withheld"):
            ratio, streak = ratio + 1.386294, streak + 1
        invalid = streak >= 5 or ratio >= 4.0
        assert (rules.sanction(known, outcome) is Sanction.CONVICTION) == invalid
        assert (known.state, known.verified) == ("active", 400)
    assert known.evidence == pytest.approx(1e6 * ratio, abs=2 * len(outcomes) + 1)


def test_gonka_counts_days_and_not_audits() -> None:
    rules = Gonka()
    assert rules.rate(NOW, row(verified=10**6), 1, 1) == (1, 1)
    old = row(since=NOW - EPOCHS_TO_MAX * EPOCH_US)
    assert rules.rate(NOW, old, 1, 1) == (1, 100)
    assert gonka_invalid(5, 0)
    assert not gonka_invalid(4, 3_999_999)


def test_the_coordinator_s_own_rules_are_production_s() -> None:
    """What is left out is `Assay`; and the scenarios' default is that, on the policy as it is."""
    world = Fast(scenario(), 1)
    assert isinstance(world.coordinator.core.oversight, Assay)
    policy = Policy()
    assert SCHEMES["assay"].terms(policy) is policy
    core = Coordinator(policy, {}, world.coordinator.signer, bytes(32))
    assert isinstance(core.oversight, Assay)


def test_a_cheat_under_each_scheme() -> None:
    """BOINC never stops it, Gonka does after its third failure, ours at once; none pays a job that
    is always audited."""
    cheat = '[[adversary]]\nbehaviour = "lazy"\ncount = 2\n'
    ends = {}
    for name in SCHEMES:
        world = ran(cheat, text=SMALL.replace('"40 s"', f'"120 s"\naudits = "{name}"'))
        assert world.frauds["released"] == 0
        ends[name] = world.summary()["adversaries"]["lazy"]
    assert ends["boinc"]["stopped"] == 0
    assert ends["gonka"]["states"] == {"convicted": 2}
    assert ends["assay"]["stopped"] == ends["gonka"]["stopped"] == 2
    assert ends["assay"]["cheated"] < ends["gonka"]["cheated"] < ends["boinc"]["cheated"]


def test_what_a_scheme_does_not_promise_is_not_checked() -> None:
    checked = {name: Fast(scenario(text=_with(name)), 1).checks.of for name in SCHEMES}
    assert checked["assay"] - checked["gonka"] == {"S2"}
    assert checked["assay"] == checked["boinc"]


def test_an_unknown_scheme_and_too_long_a_run_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"small.toml:4: .*did you mean 'boinc'"):
        scenario(text=SMALL.replace('"small"\n', '"small"\naudits = "bonic"\n'))
    with pytest.raises(ScenarioError, match=r"small.toml:4: .*less than one of Gonka's epochs"):
        scenario(text=_with("gonka").replace('"40 s"', '"24 h"'))


def _with(name: str) -> str:
    return SMALL.replace("[population]", f'audits = "{name}"\n[population]')
