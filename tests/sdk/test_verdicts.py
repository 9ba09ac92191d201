"""A verdict's record checked offline: true ones pass, and every change is seen where it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay.verdicts import check_record
from assay_protocol.codec import decode_as, encode
from assay_protocol.messages import FindingRecord, LeavesOpened, Receipt, VerdictRecord
from assay_protocol.signing import peek, seal
from sdk import verdict_cases
from sdk.client_world import AUDITOR, CLIENT, COORDINATOR, node_key, statement

TRUE = verdict_cases.verdict()


def failed(record: VerdictRecord) -> tuple[str, ...]:
    return check_record(record, COORDINATOR.public_key).failed


def test_a_true_record_holds_and_says_who_found_what() -> None:
    result = check_record(TRUE, COORDINATOR.public_key)
    assert result.ok
    found = {step.name: step.detail for step in result.steps}
    assert found["opened leaves"] == "7 leaves hash to the receipt's root"
    assert "7 of 7 leaves equal bit for bit, sketches 0.0 % apart" in found["auditor 1 found"]
    other = found["auditor 2 found"]
    assert "1 of 100 tokens are not what the model draws, the largest by 0.120 logits" in other
    assert "0 of 7 leaves equal bit for bit" in other
    assert AUDITOR.public_key.hex()[:16] in found["auditor 1"]
    assert decode_as(VerdictRecord, encode(TRUE)) == TRUE


def _finding(index: int, **changes: object) -> VerdictRecord:
    findings = list(TRUE.findings)
    findings[index] = replace(findings[index], **changes)  # type: ignore[arg-type]  # real fields
    return replace(TRUE, findings=tuple(findings))


def _opened(**changes: object) -> VerdictRecord:
    opened = decode_as(LeavesOpened, TRUE.opened or b"")
    changed = replace(opened, **changes)  # type: ignore[arg-type]  # tests name real fields
    return replace(TRUE, opened=encode(changed))


RECEIPT = peek(Receipt, TRUE.receipt)


@pytest.mark.parametrize(
    ("record", "where"),
    [
        (replace(TRUE, ticket=TRUE.ticket[:-1] + b"\2"), "ticket signature"),
        (replace(TRUE, receipt=seal(node_key(1), RECEIPT)), "receipt"),
        (replace(TRUE, receipt=seal(node_key(0), replace(RECEIPT, n_in=4))), "receipt"),
        (_opened(sketches=verdict_cases.sketches(0.1)), "opened leaves"),
        (_opened(raws=bytes(7 * 32)), "opened leaves"),
        (_opened(raws=bytes(33)), "opened leaves"),
        (_opened(hashes=bytes(7 * 32)), "opened leaves"),
        (_opened(hashes=b"", raws=b"", sketches=b""), "opened leaves"),
        (replace(TRUE, opened=b"?"), "opened leaves"),
        (_finding(0, reveal=TRUE.findings[1].reveal), "auditor 1"),
        (_finding(0, reveal=encode(verdict_cases.reveal(1, 0.5))), "auditor 1"),
        (_finding(1, auditor=AUDITOR.public_key), "auditor 2"),
        (_finding(1, statement=TRUE.findings[0].statement), "auditor 2"),
        (_finding(0, statement=statement(AUDITOR, RECEIPT, bytes(32))), "auditor 1"),
        (replace(TRUE, findings=()), "outcome"),
        (replace(TRUE, findings=TRUE.findings[:1], outcome="failed"), "outcome"),
        (replace(TRUE, findings=TRUE.findings[:1] * 2), "auditors"),
    ],
)
def test_every_change_is_seen(record: VerdictRecord, where: str) -> None:
    assert where in failed(record)


def test_a_party_to_the_job_is_no_auditor() -> None:
    for party in (CLIENT, node_key(0)):
        own = verdict_cases.verdict_record(
            TRUE.ticket,
            TRUE.receipt,
            verdict_cases.opening(),
            {party: verdict_cases.reveal()},
        )
        assert failed(own) == ("auditor 1",)


def test_leaves_nobody_opened_are_said_to_be_unchecked() -> None:
    record = replace(TRUE, opened=None, findings=(), outcome="withheld")
    result = check_record(record, COORDINATOR.public_key)
    assert result.ok
    assert [s.name for s in result.steps if s.ok is None] == ["opened leaves", "outcome"]


def test_a_fault_is_told_by_its_name() -> None:
    fault = replace(
        verdict_cases.reveal(), mismatches=(), margins=(), raws=None, sketches=None, gaps=None,
        fault="transcript_prompt",
    )  # fmt: skip
    record = verdict_cases.verdict_record(
        TRUE.ticket, TRUE.receipt, verdict_cases.opening(), {AUDITOR: fault}
    )
    result = check_record(record, COORDINATOR.public_key)
    assert "transcript_prompt" in next(s.detail for s in result.steps if s.name.endswith("found"))
    assert isinstance(record.findings[0], FindingRecord)
