"""What may be said for a node's record, and what must never be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.events import Segment
from assay.records import ReceiptRecord, grant_of, read_records, write_records
from assay.standing import standing_of
from assay_protocol.errors import ProtocolError
from assay_protocol.messages import Standing, Ticket
from assay_protocol.signing import peek
from sdk.client_world import STANDING
from sdk.test_receipt_verify import RECORD


def with_standing(**changes: object) -> ReceiptRecord:
    said = replace(STANDING, **changes)  # type: ignore[arg-type]  # tests name real fields
    node = peek(Ticket, RECORD.ticket).node
    return replace(RECORD, grant=grant_of(Segment(node, RECORD.ticket, (), (), None, said)))


@given(passed=st.integers(0, 10**6), failed=st.integers(0, 3))
def test_a_bound_is_claimed_only_for_enough_audits_and_no_failure(passed: int, failed: int) -> None:
    standing = standing_of(with_standing(audits_passed=passed, audits_failed=failed))
    share = standing.bad_share_most
    text = " ".join(standing.lines)
    assert ("at 95 %" in text) == (share is not None) == (failed == 0 and passed > 3)
    if share is not None:
        assert share == 3 / passed < 1
        assert (1 - share) ** passed < 0.05, "so many passes would be rarer"


@pytest.mark.parametrize(
    ("changes", "says", "never"),
    [
        ({}, "its last 300 audits all passed: at 95 %, less than 1 % of", "failed"),
        ({"audits_passed": 0}, "none of its jobs was audited yet: nothing is claimed", "95 %"),
        ({"audits_passed": 2}, "its 2 audits all passed: too few for a bound", "95 %"),
        ({"audits_failed": 1}, "1 of its audits failed and 300 passed: no bound", "95 %"),
        ({}, "5 % of its jobs are audited; it loses 1.500000 credits of held pay", "bit for bit"),
        ({"exact": True}, "auditors of its own class found its answers equal bit for bit", "xyz"),
        ({"state": "probation"}, "its state was 'probation'", "xyz"),
        ({}, "the record is the coordinator's word, unsigned", "guarantee"),
    ],
)
def test_what_is_said(changes: dict[str, object], says: str, never: str) -> None:
    text = " | ".join(standing_of(with_standing(**changes)).lines)
    assert says in text
    assert never not in text


def test_without_a_standing_nothing_is_claimed() -> None:
    standing = standing_of(RECORD)
    assert not standing.known
    text = " ".join(standing.lines)
    assert "nothing is claimed" in text
    assert "%" not in text


@pytest.mark.parametrize("grammar", [None, b"json\n{}"])
def test_a_record_with_a_standing_is_kept_byte_for_byte(grammar: bytes | None) -> None:
    record = replace(with_standing(), grammar=grammar)
    assert read_records(write_records([record, RECORD])) == (record, RECORD)
    assert isinstance(record.standing, Standing)


def test_a_grant_of_another_ticket_is_no_record() -> None:
    grant = with_standing().grant
    assert grant is not None
    other = replace(RECORD, grant=grant.replace(RECORD.ticket[:8], bytes(8)))
    with pytest.raises(ProtocolError, match="another ticket"):
        ReceiptRecord.decode(other.encode())
    with pytest.raises(ProtocolError):
        ReceiptRecord.decode(replace(RECORD, grant=b"?").encode())
