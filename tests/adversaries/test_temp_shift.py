"""Another temperature (`temp_shift`)."""

from __future__ import annotations

from adversary_page import seen
from assay_simnet.behaviours.draws import TempShift
from assay_simnet.trials import Trial, try_executor


def test_a_tenth_more_temperature_is_found_by_many_audits_or_not() -> None:
    result = seen("temp_shift")
    assert result.profit <= 0


def test_an_exact_class_shows_it_by_its_draws() -> None:
    exact = Trial(TempShift, class_id="scripted/E", auditor_class="scripted/E", jobs_max=12)
    result = try_executor(exact)
    assert result.stopped == len(result.runs)
    assert result.jobs <= 8
