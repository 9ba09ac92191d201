"""What verdicts do: pay, refund, credit and blame auditors, raise evidence, alarm, convict.

A node is convicted by what quorums found in two jobs or more, or by its own two signatures on one
ticket; never by one auditor's word (S2). Conviction forfeits what is in escrow to the clients it
came from and bans the key. Short of that, an alarm or a job found wrong begins an inquiry.
"""

from __future__ import annotations

from dataclasses import replace

from assay_coordinator.core.audits import Audits
from assay_coordinator.core.epochs import Earning, Epochs
from assay_coordinator.core.events import Effect, Log, Notify, Save
from assay_coordinator.core.evidence import (
    JOB_CAP,
    WORD_CAP,
    accumulate,
    capped,
    combined,
    pack,
    unpack,
    weakest,
)
from assay_coordinator.core.findings import Finding
from assay_coordinator.core.inquiry import Inquiries
from assay_coordinator.core.jobs import Job, Jobs, audit_pay
from assay_coordinator.core.ledger import TREASURY, Ledger
from assay_coordinator.core.oversight import ACCUSED, Oversight, Sanction
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import NodeRow
from assay_coordinator.core.registry import Node, Registry
from assay_coordinator.core.standing import CLOSED, moved, weakened
from assay_coordinator.core.verdicts import Verdict, verdict_row
from assay_protocol.messages import StandingChanged
from assay_protocol.splits import AUDITOR


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
        oversight: Oversight,
    ) -> None:
        self._oversight = oversight
        self._policy, self._ledger, self._registry = policy, ledger, registry
        self._epochs, self._jobs, self._audits = epochs, jobs, audits
        self.inquiries = Inquiries(policy, registry, jobs, audits)

    def settle(self, now: int, verdicts: list[Verdict]) -> list[Effect]:
        """Apply verdicts; a conviction may close further cases, which are settled too."""
        effects: list[Effect] = []
        waiting = list(verdicts)
        while waiting:
            verdict = waiting.pop(0)
            if verdict.case.job.state != "drawn":
                continue  # refunded meanwhile by a conviction
            effects += self._apply(now, verdict)
            more, ended = self._follow(now, verdict)
            effects += more
            waiting += ended
        return effects

    def convict(self, now: int, node: Node, reason: str) -> tuple[list[Effect], list[Verdict]]:
        """Banned for good; escrow goes back to the clients; its findings count for nothing."""
        if node.row.state == "convicted":
            return [], []
        node.row = moved(node.row, "convicted", now)
        effects: list[Effect] = [Save(node.row)]
        for job in self._jobs.unpaid(node.key):
            case = self._audits.drop(job.ticket.ticket)
            if case is not None:
                effects.append(Save(verdict_row(now, Verdict(case, "convicted"))))
        effects += self._jobs.refund_all(now, node.key, "convicted")
        more, verdicts = self._audits.distrust(now, node.key)
        notice = StandingChanged(state="convicted", reason=reason)
        fields = (("node", node.key.hex()), ("reason", reason), ("disproved", node.row.disproved))
        return [*effects, *more, Notify(node.key, notice), Log("convicted", fields)], verdicts

    def _follow(self, now: int, verdict: Verdict) -> tuple[list[Effect], list[Verdict]]:
        """What a settled verdict means for the node beyond its job."""
        node = self._registry.nodes[verdict.case.job.ticket.node]
        sanction, outcome = self._oversight.sanction(node.row, verdict.outcome), verdict.outcome
        if sanction is Sanction.CONVICTION:
            return self.convict(now, node, "quorum")
        effects: list[Effect] = []
        if sanction is Sanction.INQUIRY:
            reason = outcome if outcome in ACCUSED else "alarm"
            effects += self.inquiries.begin(now, node, reason)
        if self.inquiries.over(node):
            effects += self.inquiries.conclude(now, node)
        return effects, []

    def _apply(self, now: int, verdict: Verdict) -> list[Effect]:
        job, outcome = verdict.case.job, verdict.outcome
        node = self._registry.nodes[job.ticket.node]
        before = node.row
        effects: list[Effect] = [_log(verdict), Save(verdict_row(now, verdict))]
        if outcome == "passed":
            effects += self._passed(now, job, node, verdict)
        elif outcome in ACCUSED:
            effects += self._failed(now, job, node, verdict)
        elif outcome == "withheld":
            effects += self._withheld(now, job, node)
        elif outcome == "unaudited" and (verdict.sided or self._proven(node)):
            effects += self._jobs.release(now, job, outcome)
            effects += self._pay(now, job, verdict.sided)
        else:  # nobody could say that the work was done
            effects += self._jobs.refund(now, job, outcome)
        kept = self._oversight.kept(before, node.row, outcome)
        if kept is not node.row:
            node.row = kept
            effects.append(Save(kept))
        return effects + self._blame(now, verdict.against)

    def _passed(self, now: int, job: Job, node: Node, verdict: Verdict) -> list[Effect]:
        row = _weighed(node.row, verdict)
        seen = bool(verdict.sided[0].replayed)  # no tokens prove nothing
        counted = seen and row.state not in CLOSED
        row = replace(
            row,
            verified=row.verified + counted,
            audited_at=now if seen else row.audited_at,
            exact=_exact(row.exact, verdict),
        )
        effects: list[Effect] = []
        if row.state == "probation" and row.verified >= self._policy.probation_audits:
            row = replace(moved(row, "active", now), disproved=0)
            notice = StandingChanged(state="active", reason="probation_passed")
            effects.append(Notify(node.key, notice))
        node.row = row
        effects += [Save(row), *self._jobs.release(now, job, "passed")]
        return effects + self._pay(now, job, (*verdict.sided, *verdict.aside))

    def _withheld(self, now: int, job: Job, node: Node) -> list[Effect]:
        """Not proof of a lie, so nobody is convicted. But whoever withholds just what was drawn
        would never be caught, and would risk one job's pay where a liar risks all that is held
        back: so half its record goes, and what is held back is audited, too."""
        before = node.row.state
        row = weakened(self._policy, node.row, now, node.row.verified // 2)
        node.row = replace(row, failed=row.failed + 1)
        effects: list[Effect] = [Save(node.row), *self._jobs.refund(now, job, "withheld")]
        for held in self._jobs.recall(node.key, self._policy.inquiry_jobs_max):
            effects += [Save(held.row()), *self._audits.open(now, held)]
        if node.row.state != before:
            notice = StandingChanged(state=node.row.state, reason="withheld")
            effects.append(Notify(node.key, notice))
        return effects

    def _failed(self, now: int, job: Job, node: Node, verdict: Verdict) -> list[Effect]:
        """Found wrong by two who agree. Other bits than its class's are refunded, too, but only
        what no fault of a machine explains counts towards a conviction."""
        row = _weighed(node.row, verdict)
        wrong = verdict.outcome == "failed"
        node.row = replace(row, failed=row.failed + 1, disproved=row.disproved + wrong, exact=0)
        effects: list[Effect] = [Save(node.row)]
        effects += self._pay(now, job, (*verdict.sided, *verdict.aside))
        return effects + self._jobs.refund(now, job, verdict.outcome)

    def _pay(self, now: int, job: Job, findings: tuple[Finding, ...]) -> list[Effect]:
        """Auditors are paid for the replay, whichever way it went; being contradicted is not."""
        effects: list[Effect] = []
        verified = self._registry.nodes[job.ticket.node].row.verified
        worked = [finding for finding in findings if not finding.withholding]
        for finding in worked:
            treasury = self._ledger.balance("treasury")
            pay = audit_pay(self._policy, job, verified, len(worked), treasury)
            assert finding.auditor != job.ticket.node
            why = Earning("audit", finding.bound.audit, finding.bound.commitment)
            effects += self._epochs.earn(now, TREASURY, finding.auditor, AUDITOR, why, pay)
        return effects

    def _blame(self, now: int, findings: tuple[Finding, ...]) -> list[Effect]:
        """Two others contradict these. Who is often contradicted never audits again, and loses the
        record and the pay held back that it had as an executor: else lying would cost nothing."""
        effects: list[Effect] = []
        for finding in findings:
            auditor = self._registry.nodes[finding.auditor]
            row = auditor.row
            row = replace(row, audit_faults=row.audit_faults + 1, outvoted=row.outvoted + 1)
            auditor.row = row
            if row.outvoted == self._policy.outvoted_max:
                auditor.row = weakened(self._policy, row, now, 0)
                effects += self._jobs.forfeit_held(now, auditor.key, "outvoted")
                notice = StandingChanged(state=auditor.row.state, reason="outvoted")
                effects.append(Notify(auditor.key, notice))
                effects.append(Log("auditor_barred", (("auditor", auditor.key.hex()),)))
            effects.append(Save(auditor.row))
        return effects

    def _proven(self, node: Node) -> bool:
        """A fresh key earns nothing on its word alone (docs/verification.md 4)."""
        return node.row.verified >= self._policy.probation_audits


def _weighed(row: NodeRow, verdict: Verdict) -> NodeRow:
    """The row with the verdict's evidence: a single word is bounded, and is no proof."""
    if not verdict.sided:
        return row
    words = [finding.ratios for finding in verdict.sided]
    said, backed = weakest(words), len(words) > 1
    detectors = accumulate(unpack(row.detectors), said if backed else capped(said, WORD_CAP))
    proof = accumulate(unpack(row.proof), capped(said, JOB_CAP if backed else 0))
    return replace(row, detectors=pack(detectors), evidence=combined(detectors), proof=pack(proof))


def _exact(before: int, verdict: Verdict) -> int:
    """Audits in a row with equal bits, those left out that could not compare any."""
    compared = [f.equal for f in verdict.case.findings if f.equal is not None]
    if not compared:
        return before
    return before + 1 if any(compared) else 0


def _log(verdict: Verdict) -> Log:
    findings = verdict.case.findings
    return Log(
        "verdict",
        (
            ("ticket", verdict.case.ticket.hex()),
            ("executor", verdict.case.job.ticket.node.hex()),
            ("outcome", verdict.outcome),
            ("replays", len(findings)),
            ("bad", sum(finding.wrong for finding in findings)),
            ("mismatches", max((finding.mismatches for finding in findings), default=0)),
            ("tokens", max((finding.replayed for finding in findings), default=0)),
        ),
    )
