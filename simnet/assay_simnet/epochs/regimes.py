"""What a scheme of verification comes to where single jobs are not followed (audit_policies.py).

    assay   records are passed audits; a cheat that is noticed begins an inquiry
    boinc   records are valid results in a row; one that is invalid sets them to nothing, and that
            is all, so a host that cheats on goes round: `Round` is what it then does in the mean
    gonka   records are epochs completed; who is invalid is out, and unpaid, until the day ends

Rates are those modules' own functions; what follows from a finding is told in their words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay_coordinator.core.policy import Policy
from assay_simnet.audit_policies import (
    EPOCHS_TO_MAX,
    FAIL,
    FULL_TRAFFIC,
    PASS,
    SCHEMES,
    UNREPLICATED_FROM,
    boinc_rate,
    gonka_invalid,
    gonka_rate,
    gonka_reputation,
)
from assay_simnet.epochs.standings import RECORDS_MAX, Due

INQUIRY: Final = "inquiry"
STREAK: Final = "streak"
INVALID: Final = "invalid"


@dataclass(frozen=True)
class Round:
    """Of a host that goes from streak to streak. Shares are of its jobs; `refunded` of the bad."""

    bad: float
    refunded: float
    audited: float


@dataclass(frozen=True)
class Regime:
    """`proven`: the record from which on a node's jobs are drawn rarely, and cheats that wait for
    that begin. `by_audits`: whether records grow by audits; else by epochs."""

    policy: Policy
    due: Due
    proven: int
    by_audits: bool
    follows: str  # what a finding leads to

    def round(self, cheat: float, seen: float, *, waits: bool) -> Round:
        """`cheat`: the share of jobs it cheats on, if it `waits` then only once proven; `seen`: the
        share of audits of such jobs that find them wrong."""
        stays = 1 - cheat * seen
        honest = self.proven if waits else 0
        audits, jobs, passed = 0.0, 0.0, 1.0
        for record in range(honest, RECORDS_MAX):
            numerator, denominator = self.due(record, 1, 1)
            audits += passed
            jobs += passed * denominator / numerator
            passed *= stays
        bad = cheat * jobs
        refunded = (1 - passed) / bad if bad else 0.0
        whole = jobs + honest
        return Round(bad / whole, min(1.0, refunded), (audits + honest) / whole)


def regime(name: str, policy: Policy) -> Regime:
    """The scheme of that name, on a scenario's policy."""
    terms = SCHEMES[name].terms(policy)
    if name == "boinc":
        return Regime(terms, _boinc_due, UNREPLICATED_FROM, True, STREAK)
    if name == "gonka":
        return Regime(terms, _gonka_due, EPOCHS_TO_MAX, False, INVALID)
    return Regime(terms, policy.audit_due_for, policy.probation_audits, True, INQUIRY)


class Sequential:
    """Gonka's test of one participant in one epoch."""

    def __init__(self) -> None:
        self._streak = self._likelihood = 0

    def over(self, wrong: bool) -> bool:
        """Whether it is invalid after one more answer."""
        self._streak = self._streak + 1 if wrong else 0
        self._likelihood += FAIL if wrong else PASS
        return gonka_invalid(self._streak, self._likelihood)


def _boinc_due(record: int, price: int, at_risk: int) -> tuple[int, int]:
    return boinc_rate(record).as_integer_ratio()


def _gonka_due(record: int, price: int, at_risk: int) -> tuple[int, int]:
    return gonka_rate(gonka_reputation(min(record, EPOCHS_TO_MAX)), FULL_TRAFFIC).as_integer_ratio()
