"""How often a receipt is audited, and what a verdict means for its node beyond its job.

The two decisions that a whole scheme of verification comes down to, in one object. The coordinator
asks it once when a receipt is booked and once when a verdict is settled. Production's is `Assay`;
simnet hands in those of other networks, to run them on the same core (simnet audit_policies.py).
Whatever it says, an auditor is drawn, replays and is paid alike, and a job found wrong is refunded.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, Protocol

from assay_coordinator.core.evidence import ALARM, CONVICTION, combined, unpack
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import NodeRow
from assay_coordinator.core.standing import CLOSED

ACCUSED: Final = ("failed", "unequal")  # outcomes that begin an inquiry
JOBS_LEAST: Final = 2  # behind a conviction: one may be a machine's fault


class Sanction(Enum):
    """What happens to a node beyond the job that was judged."""

    NONE = auto()
    INQUIRY = auto()  # no jobs, its pay waits, until what is unpaid is audited (inquiry.py)
    CONVICTION = auto()  # its escrow is forfeited, its key is banned


class Oversight(Protocol):
    """A scheme of verification. Pure: the same arguments, the same answer."""

    def rate(self, now: int, row: NodeRow, price: int, at_risk: int) -> tuple[int, int]:
        """The chance that a job of `price` is audited, as (numerator, denominator), from 0 to 1.

        `row` is its node's record, `at_risk` what that has in escrow, `price` included; in
        micro-credits. `now` in microseconds.
        """
        ...

    def kept(self, before: NodeRow, row: NodeRow, outcome: str) -> NodeRow:
        """What stays of the record after a verdict (quorum.py has the outcomes): `before` it, and
        `row` with it counted as production counts."""
        ...

    def sanction(self, row: NodeRow, outcome: str) -> Sanction:
        """What the node's record, with the verdict counted, calls for."""
        ...


class Assay:
    """Production's: docs/verification.md 4 has the reasons."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def rate(self, now: int, row: NodeRow, price: int, at_risk: int) -> tuple[int, int]:
        """Falls with the record, and never so low that cheating pays."""
        return self._policy.audit_due_for(row.verified, price, at_risk)

    def kept(self, before: NodeRow, row: NodeRow, outcome: str) -> NodeRow:
        """All of it."""
        return row

    def sanction(self, row: NodeRow, outcome: str) -> Sanction:
        """Proof convicts; short of it, an alarm or a job found wrong begins an inquiry."""
        if proven(self._policy, row):
            return Sanction.CONVICTION
        accused = outcome in ACCUSED and row.state not in CLOSED
        return Sanction.INQUIRY if accused or alarmed(row) else Sanction.NONE


def alarmed(row: NodeRow) -> bool:
    """Whether evidence calls for an inquiry into a node that still serves."""
    return row.state not in CLOSED and combined(unpack(row.detectors)) >= ALARM


def proven(policy: Policy, row: NodeRow) -> bool:
    """Whether a quorum's findings, of two jobs at least whatever the policy says, convict."""
    jobs = max(JOBS_LEAST, policy.convicting_jobs)
    return row.disproved >= jobs or combined(unpack(row.proof)) >= CONVICTION
