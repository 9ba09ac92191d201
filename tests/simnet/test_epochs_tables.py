"""The tables that production fills say what production says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.policy import Policy
from assay_coordinator.core.standing import IDLE_US
from assay_simnet.epochs.asks import sample, ticket
from assay_simnet.epochs.chances import Reals
from assay_simnet.epochs.dispatch import Dispatch
from assay_simnet.epochs.lives import lives
from assay_simnet.epochs.regimes import regime
from assay_simnet.epochs.standings import Standings
from assay_simnet.population import PROFILES, speed
from assay_simnet.scenario import Model, Workload
from assay_simnet.seeds import Streams

POLICY, MODEL = Policy(), Model()
ASKS = sample(Workload(), MODEL, Streams(1).stream("asks"))
TABLES = Standings(POLICY, ASKS.prices, ticket(MODEL, *ASKS.mean), POLICY.audit_due_for)


def test_with_much_in_escrow_the_rate_is_the_record_s_alone() -> None:
    busy = int(TABLES.paces(np.array([500.0]))[0])
    for record in (0, 5, 19, 25, 60, 200, 400, 10_000):
        numerator, denominator = POLICY.audit_due(record)
        known = min(record, TABLES.records)
        assert TABLES.rate[busy, known] == pytest.approx(numerator / denominator, rel=0.03)


def test_who_has_nothing_in_escrow_is_audited_as_production_says() -> None:
    idle = int(TABLES.paces(np.array([0.0]))[0])
    numerator, denominator = POLICY.audit_due_for(TABLES.records, 40, 40)
    assert TABLES.rate[idle, TABLES.records] == pytest.approx(numerator / denominator, rel=0.01)
    assert TABLES.ramp[0, TABLES.records] == pytest.approx(numerator / denominator, rel=0.01)


@given(st.floats(0, 1e4), st.integers(0, 1_000), st.integers(0, 5_000), st.integers(0, 5_000))
def test_records_grow_in_two_steps_as_in_one(pace: float, record: int, a: int, b: int) -> None:
    places = TABLES.paces(np.array([pace]))
    at = TABLES.after(places, np.array([record]), np.array([float(a + b)]))
    assert at[0] >= record
    assert at[0] <= record + a + b + 1e-6
    half = TABLES.after(places, np.array([record]), np.array([float(a)]))
    more = TABLES.after(places, half.astype(np.int64), np.array([float(b)]))
    assert abs(more[0] - at[0]) < 2 + 0.01 * at[0]


def test_rates_fall_with_the_record_and_with_what_is_at_risk() -> None:
    assert (np.diff(TABLES.rate[:, POLICY.probation_audits :], axis=1) <= 1e-9).all()
    assert (np.diff(TABLES.rate[:, -1]) <= 1e-6).all()
    assert ((TABLES.rate > 0) & (TABLES.rate <= 1)).all()


def test_records_fade_as_production_lets_them() -> None:
    assert [TABLES.forgotten(k * IDLE_US) for k in range(4)] == [0, 1, 2, 3]


def _spread(rate: float, names: tuple[str, ...], present: Reals) -> tuple[Dispatch, Reals, float]:
    speeds = {name: speed(PROFILES[name], MODEL.parameters, MODEL.size) for name in names}
    dispatch = Dispatch(POLICY, speeds, *ASKS.mean)
    flow = dispatch.spread(present, rate)
    return dispatch, flow.per_node, flow.lost


def test_every_job_has_one_node_and_fast_machines_get_more() -> None:
    present = np.array([200.0, 100.0, 50.0])
    names = ("rtx3080-10g", "rtx4090-24g", "apple-m1-max-64g")
    for rate in (1.0, 100.0, 300.0):
        _, per_node, lost = _spread(rate, names, present)
        assert float((per_node * present).sum()) == pytest.approx(rate, rel=1e-3)
        assert lost == 0.0
        assert per_node[1] > per_node[0] > per_node[2]


def test_short_answers_fill_machines_up_to_what_they_compute() -> None:
    """Six machines offered 60 short jobs a second: the fast driver was seen to serve all of them.
    Offered twice what they compute, they get what they compute, and the rest has no room."""
    machines = np.array([6.0])
    dispatch, per_node, lost = _spread(60.0, ("rtx4090-24g",), machines)
    assert per_node[0] == pytest.approx(10.0, rel=1e-3)
    assert lost == 0.0
    most = float(dispatch.slots[0] / dispatch.job_s[0])
    _, per_node, lost = _spread(12 * most, ("rtx4090-24g",), machines)
    assert per_node[0] == pytest.approx(most, rel=0.01)
    assert lost == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("condition", "cheat", "low", "high"),
    [("made_up", 1.0, 1, 1), ("Q2_K", 1.0, 1, 1), ("Q2_K", 0.1, 5, 15), ("made_up", 0.1, 5, 10)],
)
def test_a_cheat_lasts_as_many_audits_as_its_share_lets_it(
    condition: str, cheat: float, low: int, high: int
) -> None:
    rules = regime("assay", POLICY)
    found = lives(rules, condition, cheat, ASKS.n_out, Streams(1).stream("lives"))
    assert low <= float(np.median(found.audits)) <= high
    assert found.found > 0.95


def test_a_host_that_goes_round_is_replicated_as_its_streaks_last() -> None:
    """Who always cheats is always replicated; who waits for ten valid results cheats on ten more in
    the mean before one is looked at."""
    boinc = regime("boinc", POLICY)
    always = boinc.round(1.0, 1.0, waits=False)
    assert (always.bad, always.refunded, always.audited) == (1.0, 1.0, 1.0)
    patient = boinc.round(1.0, 1.0, waits=True)
    assert patient.bad == pytest.approx(0.5)
    assert patient.refunded == pytest.approx(0.1)
