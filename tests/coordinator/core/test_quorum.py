"""Who decides: two who agree with each other; one never does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from assay_coordinator.core.findings import Finding
from assay_coordinator.core.quorum import conclude, decide
from coordinator.core.finding_cases import plain

A, B, C = 1, 2, 3


def good(name: int) -> Finding:
    return plain(name, -1.0)


def doubt(name: int) -> Finding:
    return plain(name, 4.0)


def wrong(name: int) -> Finding:
    return plain(name, 20.0)


def unequal(name: int, raws: bytes = b"r" * 32) -> Finding:
    return plain(name, -1.0, equal=False, raws=raws)


def equal(name: int) -> Finding:
    return plain(name, -1.0, equal=True, raws=b"x" * 32)


def fault(name: int, kind: str) -> Finding:
    return plain(name, fault=kind)


CASES: list[tuple[list[Finding], str | None]] = [
    ([good(A)], "passed"),
    ([doubt(A)], None),
    ([doubt(A), good(B)], "passed"),
    ([doubt(A), doubt(B)], "passed"),
    ([wrong(A)], None),
    ([wrong(A), wrong(B)], "failed"),
    ([wrong(A), good(B)], None),
    ([wrong(A), good(B), good(C)], "passed"),
    ([wrong(A), good(B), wrong(C)], "failed"),
    ([wrong(A), doubt(B), good(C)], "passed"),
    ([unequal(A)], None),
    ([unequal(A), unequal(B)], "unequal"),
    ([unequal(A), unequal(B, b"s" * 32)], "passed"),
    ([unequal(A), equal(B)], "passed"),
    ([unequal(A), good(B)], "passed"),
    ([fault(A, "finish"), fault(B, "finish")], "failed"),
    ([fault(A, "transcript_output"), fault(B, "transcript_output")], "withheld"),
    ([fault(A, "transcript_output"), good(B), good(C)], "passed"),
]


def _agree(a: Finding, b: Finding) -> bool:
    return a.fault == b.fault


@pytest.mark.parametrize(("findings", "outcome"), CASES)
def test_decisions(findings: Sequence[Finding], outcome: str | None) -> None:
    decision = decide(findings, 1, 3, _agree)
    assert (None if decision is None else decision.outcome) == outcome


def test_where_two_are_wanted_one_does_not_pass() -> None:
    assert decide([good(A)], 2, 3, _agree) is None
    decision = decide([good(A), good(B)], 2, 3, _agree)
    assert decision is not None
    assert decision.outcome == "passed"


@pytest.mark.parametrize(
    ("findings", "outcome"),
    [
        ([], "unaudited"),
        ([good(A)], "passed"),
        ([doubt(A)], "passed"),
        ([wrong(A)], "unproven"),
        ([wrong(A), good(B)], "unaudited"),
        ([wrong(A), wrong(B)], "failed"),
    ],
)
def test_where_nobody_is_left_to_ask(findings: Sequence[Finding], outcome: str) -> None:
    assert conclude(findings, _agree).outcome == outcome


def test_two_wrong_findings_that_do_not_agree_fail_nothing() -> None:
    decision = decide([wrong(A), wrong(B), good(C)], 1, 3, lambda a, b: False)
    assert decision is not None
    assert decision.outcome == "unaudited"
    assert conclude([wrong(A), wrong(B)], lambda a, b: False).outcome == "unproven"


def test_who_is_contradicted() -> None:
    liar = wrong(A)
    passed = decide([liar, good(B), good(C)], 1, 3, _agree)
    assert passed is not None
    assert passed.against == (liar,)
    friend, unsure = good(A), doubt(A)
    failed = decide([friend, wrong(B), wrong(C)], 1, 3, _agree)
    assert failed is not None
    assert (failed.against, len(failed.sided)) == ((friend,), 2)
    honest = decide([unsure, wrong(B), wrong(C)], 1, 3, _agree)
    assert honest is not None
    assert honest.against == (), "who doubted was not contradicted"


def test_an_executor_cannot_frame_an_auditor_with_another_transcript() -> None:
    framed = fault(A, "transcript_output")
    decision = decide([framed, good(B), good(C)], 1, 3, _agree)
    assert decision is not None
    assert decision.against == ()
