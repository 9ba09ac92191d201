"""Lives of nodes by the coordinator's own functions."""

from __future__ import annotations

from assay_coordinator.core.evidence import FRESH, WORD_CAP
from assay_coordinator.core.policy import Policy
from lives import Life, finding

POLICY = Policy()
GOOD = finding(tuple(-1_000_000 for _ in FRESH))
BAD = finding(tuple(20_000_000 for _ in FRESH))
ODD = finding(tuple(1_500_000 for _ in FRESH))


def test_an_honest_node_becomes_active() -> None:
    life = Life(POLICY)
    for _ in range(POLICY.probation_audits):
        assert life.audited([GOOD], 1) == "passed"
    assert (life.state, life.level) == ("active", 0)


def test_one_accuser_convicts_nobody() -> None:
    life = Life(POLICY)
    for _ in range(10):
        assert life.audited([BAD, GOOD, GOOD], 1) == "passed"
    assert life.state == "probation"


def test_two_jobs_found_wrong_by_two_each_convict() -> None:
    life = Life(POLICY)
    assert life.audited([BAD, BAD, GOOD], 1) == "failed"
    assert life.state == "inquiry"
    life.audited([BAD, BAD], 2)
    assert life.state == "convicted"


def test_a_weak_sign_in_every_audit_is_an_alarm_in_the_end_and_no_conviction() -> None:
    life, audits = Life(POLICY), 0
    while life.state != "inquiry":
        assert life.audited([ODD], 1) == "passed"
        audits += 1
        assert audits < 50
    assert WORD_CAP > 1_500_000
    life.suspended()
    assert (life.state, life.level) == ("probation", 0)
