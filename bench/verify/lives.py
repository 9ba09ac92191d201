"""A node's life as the coordinator sees it: its own functions, fed with recorded findings.

What several auditors say of one answer was recorded from real audits of it. Two who find it wrong
are taken to agree with one another, which is as hard on the node as can be.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, cast

from assay_coordinator.core import settlement
from assay_coordinator.core.evidence import FRESH, Levels, combined, unpack
from assay_coordinator.core.findings import Bound, Finding
from assay_coordinator.core.oversight import alarmed, proven
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.quorum import Decision, conclude, decide
from assay_coordinator.core.standing import fresh_row, moved
from assay_coordinator.core.verdicts import Verdict
from assay_protocol.limits import LEAF_TOKENS

_BOUND: Final = Bound(auditor=b"", class_id="", audit=b"", commitment=b"", statement=b"")


class Life:
    """One key, from its first audit on. `state` is as in standing.py."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.row = fresh_row(bytes(32), bytes(32), 0)
        self.inquiries = 0

    @property
    def state(self) -> str:
        return self.row.state

    @property
    def level(self) -> int:
        """Micro-nats of the alarm's detectors together."""
        return combined(unpack(self.row.detectors))

    def audited(self, words: Iterable[Finding], wanted: int) -> str:
        """The outcome of one drawn job, asking one auditor after another; its consequences."""
        findings: list[Finding] = []
        decision: Decision | None = None
        for word in words:
            findings.append(word)
            decision = decide(findings, wanted, self._policy.replays_max, _agreeing)
            if decision is not None:
                break
        decision = decision or conclude(findings, _agreeing)
        self._settle(decision)
        return decision.outcome

    def suspended(self) -> None:
        """The inquiry proved nothing: it begins anew."""
        row = moved(moved(self.row, "suspended", 0), "probation", 0)
        self.row = replace(row, verified=0, evidence=0, detectors=b"")

    def _settle(self, decision: Decision) -> None:
        """As Settlement does it, but for money."""
        verdict = Verdict(cast(Any, None), decision.outcome, decision.sided, decision.against)
        row = settlement._weighed(self.row, verdict)
        failed = decision.outcome == "failed"
        if failed:
            row = replace(row, failed=row.failed + 1, disproved=row.disproved + 1)
        elif decision.outcome == "passed" and row.state != "inquiry":
            row = replace(row, verified=row.verified + 1)
            if row.state == "probation" and row.verified >= self._policy.probation_audits:
                row = replace(moved(row, "active", 0), disproved=0)
        if proven(self._policy, row):
            row = moved(row, "convicted", 0)
        elif row.state != "inquiry" and (failed or alarmed(row)):
            row = moved(row, "inquiry", 0)
            self.inquiries += 1
        self.row = row


def finding(ratios: Levels = FRESH, *, hard: bool = False) -> Finding:
    """One auditor's word; by default one who hides what it saw."""
    return Finding(_BOUND, b"", replayed=LEAF_TOKENS, ratios=ratios, hard=hard)


def _agreeing(one: Finding, other: Finding) -> bool:
    return True
