"""A model that nobody else serves (`sole_provider`): what is not audited is paid."""

from __future__ import annotations

from adversary_page import seen
from assay_simnet.behaviours.answers import SoleProvider
from assay_simnet.trials import Trial, try_executor


def test_a_node_with_a_record_and_no_auditors_is_paid_for_anything() -> None:
    result = seen("sole_provider")
    assert result.stopped == 0
    assert all(run.paid == run.cheated for run in result.runs)
    assert result.profit > 0


def test_a_fresh_key_without_auditors_is_paid_for_nothing() -> None:
    result = try_executor(Trial(SoleProvider, auditors=0, jobs_max=4))
    assert all(run.paid == 0 for run in result.runs)
