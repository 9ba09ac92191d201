"""What may be said of an answer for its node's record: a bound, what is at stake, and no more.

Of v audited jobs drawn at random none was bad; then at 95 % fewer than 3 / v of all its jobs are
(the rule of three: (1 - 3/v)^v < 5 %). That is about the jobs the draws came from. One failed audit
ends the claim, as does a node nobody audited yet. The record is the coordinator's word with the
ticket, not signed by it; `assay audit recheck` holds the coordinator to its draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay.records import ReceiptRecord
from assay_protocol.messages import Receipt, Ticket
from assay_protocol.signing import peek

RULE_OF_THREE: Final = 3
CREDIT: Final = 1_000_000  # micro-credits


@dataclass(frozen=True, slots=True)
class AnswerStanding:
    """What spoke for the node of one record when its ticket was given.

    `at_risk` is in micro-credits. `known` is false if the coordinator said nothing; the numbers
    are then 0. `exact`: auditors of its own class found its answers equal bit for bit.
    """

    node: bytes
    seed_hash: bytes
    class_id: str
    known: bool
    state: str
    audits_passed: int
    audits_failed: int
    audit_bps: int
    at_risk: int
    exact: bool

    @property
    def bad_share_most(self) -> float | None:
        """At 95 %, more than the share of the node's jobs that are bad; None if nothing is known.

        Three or fewer audits say nothing: the bound would be 1.
        """
        if self.audits_failed or self.audits_passed <= RULE_OF_THREE:
            return None
        return RULE_OF_THREE / self.audits_passed

    @property
    def lines(self) -> tuple[str, ...]:
        """The statement, one sentence a line."""
        seed = self.seed_hash.hex()[:16]
        drawn = f"drawn under seed {seed}… by node {self.node.hex()[:16]}… ({self.class_id})"
        return (drawn, self._record(), *self._stakes(), self._replay())

    def _record(self) -> str:
        v, failed = self.audits_passed, self.audits_failed
        if not self.known:
            return "the coordinator said nothing of the node's audits: nothing is claimed for it"
        if failed:
            return f"{failed} of its audits failed and {v} passed: no bound is claimed for it"
        if not v:
            return "none of its jobs was audited yet: nothing is claimed for it"
        if self.bad_share_most is None:
            return f"its {v} audits all passed: too few for a bound"
        share = f"{100 * self.bad_share_most:.2g} %"
        return f"its last {v} audits all passed: at 95 %, less than {share} of its jobs are bad"

    def _stakes(self) -> tuple[str, ...]:
        if not self.known:
            return ()
        rate = f"{self.audit_bps / 100:g} % of its jobs are audited"
        told = [f"{rate}; it loses {self.at_risk / CREDIT:.6f} credits of held pay if convicted"]
        if self.exact:
            told.append("auditors of its own class found its answers equal bit for bit")
        if self.state != "active":
            told.append(f"its state was {self.state!r}")
        return tuple(told)

    def _replay(self) -> str:
        said = "the record is the coordinator's word, unsigned; " if self.known else ""
        return f"{said}with the model's file you can replay the answer: assay receipt verify"


def standing_of(record: ReceiptRecord) -> AnswerStanding:
    """What a record says of its node. Raises ProtocolError if its blobs are not what they must be;
    signatures are `verify`'s business."""
    receipt, said = peek(Receipt, record.receipt), record.standing
    return AnswerStanding(
        node=peek(Ticket, record.ticket).node,
        seed_hash=receipt.seed_hash,
        class_id=receipt.class_id,
        known=said is not None,
        state=said.state if said else "",
        audits_passed=said.audits_passed if said else 0,
        audits_failed=said.audits_failed if said else 0,
        audit_bps=said.audit_bps if said else 0,
        at_risk=said.at_risk if said else 0,
        exact=bool(said and said.exact),
    )
