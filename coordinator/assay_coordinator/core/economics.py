"""Why cheating does not pay: the formulas behind the policy's numbers (docs/verification.md 4).

Money is counted in prices of one job. A cheat is caught with the same chance at every cheated job,
so what it gains on average has one sign whatever its pattern: how often, how long, from when on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay_coordinator.core.policy import Policy

CONFIDENCE: Final = 0.95
MARGIN: Final = 3.0  # hold back so many times what suffices: estimates of power are estimates


@dataclass(frozen=True, slots=True)
class Threat:
    """What is assumed of a cheat: it saves `gain` of a job's price, an audit of a cheated job finds
    it with chance `power`, and a share `collusion` of auditors is on its side."""

    gain: float = 0.6
    power: float = 0.99
    collusion: float = 0.1


def hazard(rate: float, threat: Threat) -> float:
    """The chance that one cheated job convicts, at an audit rate."""
    return rate * threat.power * (1 - threat.collusion)


def survival(hazard_per_job: float, jobs: int) -> float:
    """The chance to cheat in so many jobs and not be caught."""
    return float((1 - hazard_per_job) ** jobs)


def expected_gain(hazard_per_job: float, jobs: int, gain: float, at_risk: float) -> float:
    """What cheating in `jobs` jobs brings on average, with `at_risk` lost when caught."""
    return (1 - survival(hazard_per_job, jobs)) * (gain / hazard_per_job - at_risk)


def holdback_needed(rate: float, threat: Threat, stake: float = 0.0) -> float:
    """Jobs whose pay must be held back so that cheating loses by the margin."""
    return max(0.0, MARGIN * threat.gain / hazard(rate, threat) - stake)


def rate_needed(threat: Threat, at_risk: float) -> float:
    """The least audit rate that does so with `at_risk` held back or staked; more than 1: none."""
    return MARGIN * threat.gain / (threat.power * (1 - threat.collusion) * at_risk)


def bad_share_bound(audits: int, power: float = 1.0, confidence: float = CONFIDENCE) -> float:
    """At this confidence at most so large a share of a node's jobs is bad, after that many audits
    without a failure: about 3 in `audits` at 95 %."""
    return float(1 - (1 - confidence) ** (1 / (audits + 1))) / power


def deterrence(policy: Policy, threat: Threat | None = None) -> float:
    """How many times what is held back is what suffices; below 1 cheating pays."""
    assumed = threat or Threat()
    rate = policy.audit_bps_min / 10_000
    return policy.holdback_jobs * hazard(rate, assumed) / assumed.gain
