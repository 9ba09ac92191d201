"""What verdicts do: pay, refund, credit auditors, raise evidence, suspend.

A node is suspended by a quorum's evidence (evidence.py) or by its own two signatures on one
ticket, never by one auditor's word (S2). Suspension forfeits what is in escrow to the clients it
came from.
"""

from __future__ import annotations

from assay_coordinator.core.audits import Audits, Verdict
from assay_coordinator.core.epochs import Epochs
from assay_coordinator.core.events import Effect, Log, Notify, Save
from assay_coordinator.core.evidence import CONVICTION, Finding, accumulate, convicting_evidence
from assay_coordinator.core.jobs import Job, Jobs, audit_pay
from assay_coordinator.core.ledger import TREASURY, Ledger, Purse
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.registry import Node, Registry
from assay_protocol.messages import StandingChanged


class Settlement:
    """Carries verdicts into the ledger and the registry."""

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        registry: Registry,
        epochs: Epochs,
        jobs: Jobs,
        audits: Audits,
    ) -> None:
        self._policy, self._ledger, self._registry = policy, ledger, registry
        self._epochs, self._jobs, self._audits = epochs, jobs, audits

    def settle(self, now: int, verdicts: list[Verdict]) -> list[Effect]:
        """Apply verdicts; a suspension may close further cases, which are settled too."""
        effects: list[Effect] = []
        waiting = list(verdicts)
        while waiting:
            verdict = waiting.pop(0)
            job = verdict.case.job
            if job.state != "drawn":
                continue  # refunded meanwhile by a suspension
            effects += self._apply(now, verdict)
            node = self._registry.nodes[job.ticket.node]
            if node.row.evidence >= CONVICTION and node.row.state != "suspended":
                more, ended = self.suspend(now, node, "token_replay")
                effects += more
                waiting += ended
        return effects

    def suspend(self, now: int, node: Node, reason: str) -> tuple[list[Effect], list[Verdict]]:
        """No more jobs; escrow goes back to the clients; its findings count for nothing."""
        effects: list[Effect] = [Save(self._registry.update(node, state="suspended"))]
        for job in self._jobs.unpaid(node.key):
            self._audits.drop(job.ticket.ticket)
        effects += self._jobs.refund_all(now, node.key, "suspended")
        more, verdicts = self._audits.distrust(now, node.key)
        notice = StandingChanged(state="suspended", reason=reason)
        fields = (("node", node.key.hex()), ("reason", reason), ("evidence", node.row.evidence))
        return [*effects, *more, Notify(node.key, notice), Log("suspended", fields)], verdicts

    def _apply(self, now: int, verdict: Verdict) -> list[Effect]:
        job, outcome = verdict.case.job, verdict.outcome
        node = self._registry.nodes[job.ticket.node]
        effects: list[Effect] = [_log(verdict)]
        if outcome == "passed":
            effects += self._passed(now, job, node, verdict)
        elif outcome == "failed":
            effects += self._failed(now, job, node, verdict)
        elif outcome == "withheld":
            effects += self._withheld(now, job, node)
        elif outcome == "unaudited" and (verdict.good or self._proven(node)):
            effects += self._jobs.release(now, job, outcome)
            effects += self._pay(now, job, verdict.good)
        else:  # nobody could say that the work was done
            effects += self._jobs.refund(now, job, outcome)
        return effects

    def _passed(self, now: int, job: Job, node: Node, verdict: Verdict) -> list[Effect]:
        verified = node.row.verified + bool(verdict.good[0].replayed)  # no tokens prove nothing
        evidence = accumulate(node.row.evidence, min(0, verdict.good[0].evidence))
        state = node.row.state
        if state == "probation" and verified >= self._policy.probation_audits:
            state = "active"
        row = self._registry.update(
            node,
            verified=verified,
            evidence=evidence,
            state=state,
            exact=self._exact(job, node, verdict),
        )
        effects: list[Effect] = [Save(row), *self._jobs.release(now, job, "passed")]
        effects += self._pay(now, job, verdict.good)
        return effects + self._blame(verdict.bad)

    def _exact(self, job: Job, node: Node, verdict: Verdict) -> int:
        """How often in a row the node's own class computed the very bits it had."""
        count = node.row.exact
        for finding in verdict.good:
            auditor = self._registry.nodes[finding.auditor]
            if finding.replayed and auditor.classes.get(job.ticket.model) == job.receipt.class_id:
                count = count + 1 if finding.equal_logits == finding.replayed else 0
        return count

    def _withheld(self, now: int, job: Job, node: Node) -> list[Effect]:
        """Not proof of a lie, so nothing is forfeited. But whoever withholds just what was drawn
        would never be caught: half its record goes, and with it the rare audits."""
        verified, state = node.row.verified // 2, node.row.state
        if state == "active" and verified < self._policy.probation_audits:
            state = "probation"
        changed = state != node.row.state
        row = self._registry.update(
            node, failed=node.row.failed + 1, verified=verified, state=state
        )
        effects: list[Effect] = [Save(row), *self._jobs.refund(now, job, "withheld")]
        if changed:
            effects.append(Notify(node.key, StandingChanged(state=state, reason="withheld")))
        return effects

    def _failed(self, now: int, job: Job, node: Node, verdict: Verdict) -> list[Effect]:
        more = convicting_evidence(list(verdict.bad))
        evidence = accumulate(node.row.evidence, more)
        row = self._registry.update(node, failed=node.row.failed + 1, evidence=evidence)
        effects: list[Effect] = [Save(row), *self._pay(now, job, verdict.bad)]
        effects += self._jobs.refund(now, job, "failed")
        return effects + self._blame(verdict.good)

    def _pay(self, now: int, job: Job, findings: tuple[Finding, ...]) -> list[Effect]:
        """Auditors are paid for the replay, whichever way it went; being outvoted is not paid."""
        effects: list[Effect] = []
        verified = self._registry.nodes[job.ticket.node].row.verified
        for finding in findings:
            treasury = self._ledger.balance("treasury")
            pay = audit_pay(self._policy, job, verified, len(findings), treasury)
            assert finding.auditor != job.ticket.node
            purse = Purse("earned", finding.auditor)
            effects += self._ledger.transfer(now, TREASURY, purse, pay, "audit", finding.audit)
            effects += self._epochs.add_line(
                finding.auditor, "audit", finding.audit, finding.commitment, pay
            )
        return effects

    def _blame(self, findings: tuple[Finding, ...]) -> list[Effect]:
        effects: list[Effect] = []
        for finding in findings:
            auditor = self._registry.nodes[finding.auditor]
            row = self._registry.update(auditor, audit_faults=auditor.row.audit_faults + 1)
            effects.append(Save(row))
        return effects

    def _proven(self, node: Node) -> bool:
        """A fresh key earns nothing on its word alone (docs/verification.md 4)."""
        return node.row.verified >= self._policy.probation_audits


def _log(verdict: Verdict) -> Log:
    findings = (*verdict.bad, *verdict.good)
    return Log(
        "verdict",
        (
            ("ticket", verdict.case.job.ticket.ticket.hex()),
            ("executor", verdict.case.job.ticket.node.hex()),
            ("outcome", verdict.outcome),
            ("replays", len(findings)),
            ("bad", len(verdict.bad)),
            ("mismatches", max((finding.mismatches for finding in findings), default=0)),
            ("tokens", max((finding.replayed for finding in findings), default=0)),
        ),
    )
