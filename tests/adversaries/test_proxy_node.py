"""Answers of somebody else's (`proxy_node`)."""

from __future__ import annotations

from adversary_page import seen
from assay_simnet.behaviours.answers import ProxyNode
from assay_simnet.trials import Trial, try_executor


def test_an_api_that_knows_no_seed_is_seen_at_once() -> None:
    result = seen("proxy_node")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 3
    assert all(run.paid == 0 for run in result.runs)


def test_passing_the_whole_job_on_is_honest_work() -> None:
    result = try_executor(Trial(lambda: ProxyNode(forwards=True), jobs_max=12))
    assert result.stopped == 0
    assert all(run.paid == run.jobs for run in result.runs)
