"""Whose jobs are audited how often, and what a finding leads to: ours beside two others' rules.

    assay   production's own code, with nothing in between
    boinc   adaptive replication. Commit c5c6cb79 of BOINC/boinc: sched/sched_send.cpp set_trust,
            sched/sched_config.h CONS_VALID_UNREPLICATED, sched/validator.cpp is_valid, is_invalid
    gonka   validation by reputation. gonka-ai/gonka, under inference-chain/x/inference: commit
            312044d2 of calculations/should_validate.go, min_validation_average.go, reputation.go
            and types/params.go; and who is invalid by what is deployed since its v0.2.5, status.go
            (0b2d0e5a) and sprt.go (86836be4), with that code's own parameters

All three run on the production coordinator: rules are an `Oversight`, and money is a `Policy`. What
the core does for all, and why that is fair to the others, is in docs/decisions/0021: a replay by
prefill stands for BOINC's second result and for Gonka's validators, and our quorum says what is
wrong. A run is shorter than a day, which is one of Gonka's epochs.

The functions of a standing alone (`boinc_rate`, `gonka_rate`, `gonka_reputation`, `gonka_invalid`)
are what a level that knows no single job reads its tables from. Rates are exact, from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from math import floor, log
from typing import Final

from assay_coordinator.core.oversight import ACCUSED, Assay, Oversight, Sanction
from assay_coordinator.core.policy import SECOND, Policy
from assay_coordinator.core.records import NodeRow

DAY_US: Final = 86_400 * SECOND
_BAD: Final = (*ACCUSED, "withheld")  # verdicts that count against a node here

# ---- BOINC -------------------------------------------------------------------------------------

UNREPLICATED_FROM: Final = 10  # CONS_VALID_UNREPLICATED: valid results in a row


def boinc_rate(consecutive_valid: int) -> Fraction:
    """The chance that a result is replicated: all of a host that is not trusted yet, then one in as
    many as were found valid in a row. Only replicated results count for that."""
    return Fraction(1, consecutive_valid if consecutive_valid >= UNREPLICATED_FROM else 1)


class Boinc:
    """`NodeRow.verified` is consecutive_valid. Nobody is ever turned away."""

    def rate(self, now: int, row: NodeRow, price: int, at_risk: int) -> tuple[int, int]:
        return boinc_rate(row.verified).as_integer_ratio()

    def kept(self, before: NodeRow, row: NodeRow, outcome: str) -> NodeRow:
        """A result that is invalid, or never comes, sets consecutive_valid to 0."""
        return replace(row, verified=0, state="probation") if outcome in _BAD else row

    def sanction(self, row: NodeRow, outcome: str) -> Sanction:
        return Sanction.NONE


def _boinc_terms(policy: Policy) -> Policy:
    """Credit is granted at once and never taken back."""
    return replace(policy, probation_audits=UNREPLICATED_FROM, holdback_jobs=0, holdback_epochs=0)


# ---- Gonka -------------------------------------------------------------------------------------

EPOCH_US: Final = DAY_US  # 17,280 blocks of five seconds
EPOCHS_TO_MAX: Final = 30
FULL_TRAFFIC: Final = 10_000  # requests an epoch, from which on the rate is lowest
_HALF_TRAFFIC: Final = FULL_TRAFFIC // 2
_LEAST_TRAFFIC: Final = 100  # up to which everything is validated
_RATE_MIN, _RATE_HALFWAY, _RATE_MAX = Fraction(1, 100), Fraction(5, 100), Fraction(1)
_MISSED_CUTOFF: Final = Fraction(1, 100)
_GOOD, _BAD_RATE, _DECIDES, _QUICK = 0.05, 0.20, 4.0, 1e-6  # invalid shares; H; p^n of a streak
MICRO: Final = 1_000_000
FAIL: Final = floor(MICRO * log(_BAD_RATE / _GOOD))  # what a verdict adds to the log-likelihood
PASS: Final = floor(MICRO * log((1 - _BAD_RATE) / (1 - _GOOD)))


def gonka_rate_min(requests: int) -> Fraction:
    """The rate for full reputation, by the requests of an epoch: the busier, the lower."""
    if requests >= FULL_TRAFFIC:
        return _RATE_MIN
    if requests >= _HALF_TRAFFIC:
        left = Fraction(FULL_TRAFFIC - requests, _HALF_TRAFFIC)
        return _RATE_MIN + (_RATE_HALFWAY - _RATE_MIN) * left
    if requests > _LEAST_TRAFFIC:
        left = Fraction(_HALF_TRAFFIC - requests, _HALF_TRAFFIC - _LEAST_TRAFFIC)
        return _RATE_HALFWAY + (_RATE_MAX - _RATE_HALFWAY) * left
    return _RATE_MAX


@cache
def gonka_rate(reputation: int, requests: int) -> Fraction:
    """The chance that an answer is validated, at a reputation in percent."""
    assert 0 <= reputation <= 100
    least = gonka_rate_min(requests)
    return _RATE_MAX - (_RATE_MAX - least) * Fraction(reputation, 100)


def gonka_reputation(epochs_completed: int, missed: Sequence[Fraction] = ()) -> int:
    """In percent: full after EPOCHS_TO_MAX epochs. `missed`: the share of requests not served in
    each; above a hundredth it costs as much of an epoch."""
    counted = epochs_completed - sum(one for one in missed if one > _MISSED_CUTOFF)
    return min(100, max(0, floor(100 * counted / EPOCHS_TO_MAX)))


def gonka_invalid(consecutive: int, likelihood: int) -> bool:
    """Whether a participant is INVALID: after so many invalid answers in a row that honest ones
    would not have, or by the sequential test of 5 % against 20 % invalid, which begins anew with
    each epoch (`likelihood`: its log-likelihood ratio, in millionths)."""
    return _GOOD**consecutive < _QUICK or likelihood >= floor(MICRO * _DECIDES)


class Gonka:
    """`NodeRow.since` is when its epochs began to count, `evidence` the sequential test's ratio,
    `disproved` the invalid answers in a row. Whoever is INVALID is out until the epoch ends, which
    is after the run, and forfeits what the epoch has earned it: here, a conviction."""

    def rate(self, now: int, row: NodeRow, price: int, at_risk: int) -> tuple[int, int]:
        reputation = gonka_reputation(max(0, now - row.since) // EPOCH_US)
        return gonka_rate(reputation, FULL_TRAFFIC).as_integer_ratio()

    def kept(self, before: NodeRow, row: NodeRow, outcome: str) -> NodeRow:
        likelihood, streak = before.evidence, before.disproved
        if outcome == "passed":
            likelihood, streak = likelihood + PASS, 0
        elif outcome in _BAD:
            likelihood, streak = likelihood + FAIL, streak + 1
        verified = max(before.verified, row.verified)  # nothing hangs on it but who audits
        row = replace(row, state=before.state, since=before.since, verified=verified)
        return replace(row, evidence=likelihood, disproved=streak)

    def sanction(self, row: NodeRow, outcome: str) -> Sanction:
        invalid = gonka_invalid(row.disproved, row.evidence)
        return Sanction.CONVICTION if invalid else Sanction.NONE


def _gonka_terms(policy: Policy) -> Policy:
    """What an epoch earned is paid when it closes; audits make no reputation, epochs do."""
    most = (1 << 31) - 1
    return replace(
        policy, probation_audits=most, holdback_jobs=most, holdback_epochs=1, epoch_us=EPOCH_US
    )


# ---- by name -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One network's rules for a run.

    `terms` are its money, on the scenario's policy; `oversight` its rules, under those terms.
    `age_us`: how long nodes with a record have been there before the run. `unpromised`: invariants
    that it does not promise, which its runs do not check.
    """

    says: str
    terms: Callable[[Policy], Policy]
    oversight: Callable[[Policy], Oversight]
    age_us: int = 0
    unpromised: tuple[str, ...] = ()


SCHEMES: Final[dict[str, Scheme]] = {
    "assay": Scheme(says="production's own", terms=lambda policy: policy, oversight=Assay),
    "boinc": Scheme(
        says="BOINC's adaptive replication; replays stand for second results",
        terms=_boinc_terms,
        oversight=lambda _: Boinc(),
    ),
    "gonka": Scheme(
        says="Gonka's validation by reputation, on a network at full traffic",
        terms=_gonka_terms,
        oversight=lambda _: Gonka(),
        age_us=EPOCHS_TO_MAX * EPOCH_US,
        unpromised=("S2",),
    ),
}
