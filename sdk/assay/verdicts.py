"""What auditors said of an answer, checked: nobody's word is taken that is not signed and bound.

`check_statements` is what a waiting client does with a JobVerdict; `check_record` walks through a
whole VerdictRecord offline. Both trust the coordinator's key for its ticket and nothing else. What
a reader cannot recompute without the model is whether the numbers in a reveal are right; that they
were fixed before the executor's were opened, and who vouches for them, is checked here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from assay.steps import Step, Verification
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.hashing import commitment
from assay_protocol.leaves import digests, opened_root
from assay_protocol.limits import SKETCH_BYTES
from assay_protocol.messages import (
    AuditReveal,
    AuditStatement,
    FindingRecord,
    JobVerdict,
    LeavesOpened,
    Receipt,
    Ticket,
    VerdictRecord,
)
from assay_protocol.receipts import check_receipt
from assay_protocol.signing import open_signed, peek
from assay_protocol.tickets import open_ticket

PASSED: Final = "passed"
UNTOLD: Final = "untold"  # nobody said in time how it ended
UNSIGNED: Final = "unsigned"  # a node that drew a part signed nothing for it: no audit can be
# Outcomes that speak against the node: found wrong, or could not or would not show its work.
AGAINST: Final = frozenset({"failed", "unequal", "withheld", "suspended", "convicted"})
VERDICT_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the audits of an answer ended, as the coordinator says, and which auditors signed.

    `outcome` is passed, failed, unequal (not the bits of its class), withheld, unproven, unaudited,
    untold (not decided in time), unsigned (a part of the answer has no receipt), or why there never
    was an audit. `auditors` are the keys under which a statement about this very answer was
    checked; with none the outcome is the coordinator's word alone.
    """

    outcome: str
    tickets: tuple[bytes, ...]
    auditors: tuple[bytes, ...]

    @property
    def passed(self) -> bool:
        return self.outcome == PASSED

    @property
    def error(self) -> AssayError | None:
        """Why the answer is not to be taken as verified; None if it passed."""
        if self.passed:
            return None
        code = "audit_failed" if self.outcome in AGAINST else "audit_missing"
        return AssayError(code, f"the audit ended as {self.outcome!r}")


def check_statements(verdict: JobVerdict, ticket: bytes, receipt: bytes) -> tuple[bytes, ...]:
    """The auditors whose signed statements are about the answer of these two checked blobs.

    Without the keys (an older coordinator) there are none. Raises ProtocolError if one is not what
    it must be: "bad_signature", or "unexpected_message" for another answer, a repeated auditor, or
    one that is the executor or the client.
    """
    if verdict.auditors is None:
        return ()
    if len(verdict.auditors) != len(verdict.statements):
        raise ProtocolError("malformed", "one auditor for each statement")
    issued, signed = peek(Ticket, ticket), peek(Receipt, receipt)
    for key, blob in zip(verdict.auditors, verdict.statements, strict=True):
        _check_statement(open_signed(AuditStatement, blob, key), key, issued, signed)
    if len(set(verdict.auditors)) != len(verdict.auditors):
        raise ProtocolError("unexpected_message", "an auditor is there twice")
    return verdict.auditors


def check_record(record: VerdictRecord, coordinator: bytes) -> Verification:
    """Every check of a VerdictRecord, under the coordinator's key."""
    try:
        ticket = open_ticket(record.ticket, coordinator)
    except ProtocolError as error:
        return _result([Step("ticket signature", False, str(error))])
    steps = [Step("ticket signature", True, f"signed by coordinator {coordinator.hex()[:16]}")]
    try:
        receipt = open_signed(Receipt, record.receipt, ticket.node)
        check_receipt(receipt, ticket)
    except ProtocolError as error:
        return _result([*steps, Step("receipt", False, str(error))])
    tokens = f"{receipt.n_out} tokens in class {receipt.class_id}"
    steps.append(Step("receipt", True, f"signed by node {ticket.node.hex()[:16]}: {tokens}"))
    opened, step = _opened(record, receipt)
    steps.append(step)
    for number, finding in enumerate(record.findings, 1):
        steps += _finding_steps(number, finding, ticket, receipt, opened)
    steps.append(_independence(record.findings))
    steps.append(_outcome_step(record))
    return _result(steps)


def _opened(record: VerdictRecord, receipt: Receipt) -> tuple[LeavesOpened | None, Step]:
    """The executor's leaves, if they are those its receipt committed to."""
    name = "opened leaves"
    if record.opened is None:
        return None, Step(name, None, "the executor opened none")
    try:
        opened = decode_as(LeavesOpened, record.opened)
        if opened_root(opened, receipt) != receipt.root:
            return None, Step(name, False, "they do not hash to the receipt's root")
    except ProtocolError as error:
        return None, Step(name, False, str(error))
    count = len(opened.hashes) // 32
    return opened, Step(name, True, f"{count} leaves hash to the receipt's root")


def _finding_steps(
    number: int,
    finding: FindingRecord,
    ticket: Ticket,
    receipt: Receipt,
    opened: LeavesOpened | None,
) -> list[Step]:
    kind = finding.class_id or "class unknown"
    name, who = f"auditor {number}", f"{finding.auditor.hex()[:16]} ({kind})"
    try:
        statement = open_signed(AuditStatement, finding.statement, finding.auditor)
        _check_statement(statement, finding.auditor, ticket, receipt)
        reveal = decode_as(AuditReveal, finding.reveal)
        bound = commitment(reveal.nonce, encode(reveal))
        if (bound, reveal.audit) != (statement.commitment, statement.audit):
            raise ProtocolError("unexpected_message", "the reveal is not what was committed to")
    except ProtocolError as error:
        return [Step(name, False, f"{who}: {error}")]
    said = Step(name, True, f"{who} signed a commitment, and this reveal is what it bound")
    told = _found(reveal, receipt, opened, ticket.sampler.texts is not None)
    return [said, Step(f"{name} found", None, told)]


def _found(reveal: AuditReveal, receipt: Receipt, opened: LeavesOpened | None, embeds: bool) -> str:
    """What a reveal says, in words: numbers nobody can check without the model."""
    if reveal.fault is not None:
        return f"a fault of the transcript: {reveal.fault}"
    if embeds:
        words = [f"{len(reveal.sketches or b'') // SKETCH_BYTES} vectors computed again"]
    else:
        told = len(reveal.gaps) if reveal.gaps is not None else receipt.n_out
        words = [f"{len(reveal.mismatches)} of {told} tokens are not what the model draws"]
    if reveal.margins:
        words.append(f"the largest by {max(reveal.margins) / 1000:.3f} logits")
    if opened is not None and reveal.raws is not None and opened.raws is not None:
        ours = digests(reveal.raws)
        same = sum(a == b for a, b in zip(ours, digests(opened.raws), strict=False))
        words.append(f"{same} of {len(ours)} leaves equal bit for bit")
    if opened is not None and reveal.sketches and opened.sketches is not None:
        words.append(_distance(opened.sketches[: len(reveal.sketches)], reveal.sketches))
    return ", ".join(words)


def _distance(theirs: bytes, ours: bytes) -> str:
    try:
        from assay_protocol.sketches import leaf_distances

        apart = leaf_distances(theirs, ours)
    except ModuleNotFoundError as missing:
        return f"sketches not compared: needs {missing.name!r}"
    except ProtocolError as error:
        return f"sketches not comparable: {error.message}"
    return f"sketches {100 * sum(apart) / len(apart):.1f} % apart"


def _check_statement(said: AuditStatement, key: bytes, ticket: Ticket, receipt: Receipt) -> None:
    if (said.ticket, said.output_hash) != (ticket.ticket, receipt.output_hash):
        raise ProtocolError("unexpected_message", "the statement is about another answer")
    if key in (ticket.node, ticket.client):
        raise ProtocolError("unexpected_message", "the auditor is a party to the job")


def _independence(findings: Sequence[FindingRecord]) -> Step:
    keys = {finding.auditor for finding in findings}
    if len(keys) != len(findings):
        return Step("auditors", False, "one of them is there twice")
    return Step("auditors", True, f"{len(keys)}, none of them the node or the client")


def _outcome_step(record: VerdictRecord) -> Step:
    """The coordinator's conclusion needs findings to rest on; weighing them needs its table."""
    least = {"passed": 1, "failed": 2, "unequal": 2}.get(record.outcome, 0)
    if len(record.findings) < least:
        few = f"{record.outcome!r} rests on {len(record.findings)} findings, {least} are needed"
        return Step("outcome", False, few)
    return Step("outcome", None, f"{record.outcome}: the coordinator's weighing of what was found")


def _result(steps: Sequence[Step]) -> Verification:
    return Verification(all(step.ok is not False for step in steps), tuple(steps))
