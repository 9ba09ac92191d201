"""One drawn job on its way to a verdict, and the auditor at work on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from assay_coordinator.core.calibration import Table
from assay_coordinator.core.findings import Finding, agree
from assay_coordinator.core.jobs import Job
from assay_protocol.messages import LeavesOpened


@dataclass(slots=True)
class Replay:
    """One auditor at work on a case."""

    audit: bytes
    auditor: bytes
    class_id: str
    stage: str
    deadline_at: int
    resend_at: int = 0
    box_key: bytes = b""
    commitment: bytes = b""
    statement: bytes = b""


@dataclass(slots=True)
class Case:
    """One drawn job.

    `tokens` of it are replayed by every auditor; `wanted` findings that all speak for it pass it.
    `table` is None if the noise it is to be judged by is not known here.
    """

    job: Job
    deadline_at: int
    tokens: int
    table: Table | None
    wanted: int = 1
    inquiry: bool = False  # one of those that an alarm brought (inquiry.py)
    by_class: bool = False  # an auditor was chosen for its class already
    alone_since: int = 0  # since when nobody is left to ask; 0 = somebody is
    replay: Replay | None = None
    findings: list[Finding] = field(default_factory=list)
    asked: set[bytes] = field(default_factory=set)  # auditors' keys and operators already used
    opened: LeavesOpened | None = None

    @property
    def ticket(self) -> bytes:
        return self.job.ticket.ticket

    def agree(self, a: Finding, b: Finding) -> bool:
        """Whether two auditors of it computed the same."""
        assert self.table is not None, "a case without a table has no findings"
        return agree(self.table, self.job.ticket.model, a, b)
