"""A round's words for how audits ended, held to what auditors signed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay.audit_records import verdict_step
from assay_protocol.errors import RemoteError
from assay_protocol.messages import DrawEntry, RoundDraws, Ticket, VerdictRecord
from assay_protocol.signing import digest, peek
from sdk.client_world import COORDINATOR
from sdk.verdict_cases import verdict

RECORD = verdict()
ENTRY = DrawEntry(
    ticket=peek(Ticket, RECORD.ticket).ticket,
    receipt=digest(RECORD.receipt),
    node=peek(Ticket, RECORD.ticket).node,
    numerator=1,
    denominator=1,
    asked="sample",
    outcome="passed",
)


def round_of(*entries: DrawEntry) -> RoundDraws:
    return RoundDraws(
        number=1,
        chain=0,
        link=bytes(32),
        anchored=bytes(32),
        posted=bytes(32),
        block=1,
        block_hash=bytes(32),
        closed_at=0,
        drawn_at=0,
        entries=entries,
    )


def step_of(record: VerdictRecord, *entries: DrawEntry) -> tuple[bool | None, str]:
    step = verdict_step(round_of(*entries), lambda ticket: record, COORDINATOR.public_key)
    return step.ok, step.detail


def test_a_true_verdict_holds_and_what_was_not_decided_is_not_asked_for() -> None:
    undrawn = replace(ENTRY, ticket=bytes(16), outcome="undrawn")
    assert step_of(RECORD, ENTRY, undrawn) == (True, "1 rest on what auditors signed")


@pytest.mark.parametrize(
    ("record", "entry", "told"),
    [
        (RECORD, replace(ENTRY, outcome="failed"), "called failed, the record says passed"),
        (RECORD, replace(ENTRY, receipt=bytes(32)), "another receipt"),
        (replace(RECORD, findings=()), ENTRY, "its record does not hold: outcome"),
        (replace(RECORD, receipt=RECORD.ticket), ENTRY, "another receipt"),
        (replace(RECORD, ticket=b"x" * 80), ENTRY, "no record"),
    ],
)
def test_a_word_without_its_proof_does_not_hold(
    record: VerdictRecord, entry: DrawEntry, told: str
) -> None:
    ok, detail = step_of(record, entry)
    assert ok is False
    assert told in detail


def test_a_record_that_is_not_to_be_had_does_not_hold() -> None:
    def fetch(ticket: bytes) -> VerdictRecord:
        raise RemoteError("unknown_ticket")

    step = verdict_step(round_of(ENTRY), fetch, COORDINATOR.public_key)
    assert step.ok is False
    assert "no record: unknown_ticket" in step.detail
