"""An 8-bit attention cache (`kv_q8`): one standard deviation of honest noise."""

from __future__ import annotations

from adversary_page import seen
from assay_simnet.behaviours.weights import KvQ8
from assay_simnet.trials import Trial, try_executor


def test_an_eight_bit_cache_is_found_by_many_audits_or_not() -> None:
    result = seen("kv_q8")
    assert "convicted" not in result.states, "it is within the noise of a float class"
    assert result.profit <= 0.03 * 80


def test_an_exact_class_shows_it_at_once() -> None:
    exact = Trial(KvQ8, class_id="scripted/E", auditor_class="scripted/E", jobs_max=6)
    result = try_executor(exact)
    assert result.stopped == len(result.runs)
    assert result.jobs <= 4
    assert all(run.paid == 0 for run in result.runs)
