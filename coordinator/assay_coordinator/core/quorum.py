"""From findings to an outcome: two auditors who agree with each other decide, one never does.

    passed    what was found speaks for the answer: one finding, or two if any doubted
    failed    two find it wrong and agree with one another: they computed the same
    unequal   two of its exact class agree on the bits, and they are not the executor's
    withheld  two saw another transcript than was signed for
    unproven  it was found wrong, by nobody that another confirms, and right by nobody
    unaudited nobody could say

Agreement is of what auditors computed (sketches, logprobs, bits), which was committed to before
anything was shown: two who made their words up agree with nobody, each other included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from assay_coordinator.core.findings import Finding

Agree = Callable[[Finding, Finding], bool]


@dataclass(frozen=True, slots=True)
class Decision:
    """An outcome, whose findings carry it, and whom they contradict."""

    outcome: str
    sided: tuple[Finding, ...] = ()
    against: tuple[Finding, ...] = ()


def decide(findings: Sequence[Finding], wanted: int, most: int, agree: Agree) -> Decision | None:
    """The decision, or None while another auditor should be asked.

    `wanted`: how many have to find it right where all do; `most`: how many are asked at all.
    """
    decision = _proven(findings, agree)
    if decision is not None:
        return decision
    fine = tuple(finding for finding in findings if not finding.wrong)
    clear = len(fine) == len(findings) and not any(finding.doubtful for finding in fine)
    if fine and len(fine) >= (wanted if clear else max(2, wanted)):
        return _passed(findings, fine)
    return conclude(findings, agree) if len(findings) >= most else None


def conclude(findings: Sequence[Finding], agree: Agree) -> Decision:
    """The decision where nobody else can be asked."""
    decision = _proven(findings, agree)
    if decision is not None:
        return decision
    fine = tuple(finding for finding in findings if not finding.wrong)
    if len(fine) > len(findings) - len(fine):
        return _passed(findings, fine)
    if findings and not fine:
        return Decision("unproven")
    return Decision("unaudited", fine)


def _proven(findings: Sequence[Finding], agree: Agree) -> Decision | None:
    """What two agree on against the executor."""
    wrong = [finding for finding in findings if finding.wrong]
    for pair in combinations(wrong, 2):
        if agree(*pair):
            outcome = "withheld" if pair[0].withholding else "failed"
            return Decision(outcome, pair, _contradicting(findings, outcome))
    unequal = [finding for finding in findings if finding.equal is False]
    for one, other in combinations(unequal, 2):
        if one.replayed == other.replayed and one.raws == other.raws:
            return Decision("unequal", (one, other))
    return None


def _contradicting(findings: Sequence[Finding], outcome: str) -> tuple[Finding, ...]:
    if outcome == "withheld":
        return ()
    return tuple(f for f in findings if not f.wrong and not f.doubtful)


def _passed(findings: Sequence[Finding], fine: tuple[Finding, ...]) -> Decision:
    """An executor can hand one auditor another transcript: who says so is not contradicted."""
    return Decision("passed", fine, tuple(f for f in findings if f.wrong and not f.withholding))
