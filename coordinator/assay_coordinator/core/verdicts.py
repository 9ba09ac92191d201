"""A case's verdict, and its record: all it rests on, for anybody to check; no text, no tokens."""

from __future__ import annotations

from dataclasses import dataclass

from assay_coordinator.core.cases import Case
from assay_coordinator.core.findings import Finding
from assay_coordinator.core.records import VerdictRow
from assay_protocol.codec import encode
from assay_protocol.limits import AUDITORS_PER_JOB_MAX
from assay_protocol.messages import FindingRecord, VerdictRecord


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a case ended (quorum.py has the outcomes), which findings carry that, and which other
    findings they contradict."""

    case: Case
    outcome: str
    sided: tuple[Finding, ...] = ()
    against: tuple[Finding, ...] = ()

    @property
    def aside(self) -> tuple[Finding, ...]:
        """Findings that neither carry the outcome nor are contradicted by it."""
        judged = (*self.sided, *self.against)
        return tuple(finding for finding in self.case.findings if finding not in judged)


def verdict_row(now: int, verdict: Verdict) -> VerdictRow:
    """The row that keeps the record for whoever asks (GetPart "verdict")."""
    case = verdict.case
    record = VerdictRecord(
        ticket=case.job.blob,
        receipt=case.job.receipt_blob,
        outcome=verdict.outcome,
        findings=tuple(_said(finding) for finding in case.findings[:AUDITORS_PER_JOB_MAX]),
        opened=None if case.opened is None else encode(case.opened),
    )
    return VerdictRow(case.ticket, verdict.outcome, now, encode(record))


def _said(finding: Finding) -> FindingRecord:
    bound = finding.bound
    return FindingRecord(
        auditor=bound.auditor,
        statement=bound.statement,
        reveal=finding.reveal,
        class_id=bound.class_id,
    )
