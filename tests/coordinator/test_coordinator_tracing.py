"""A coordinator's spans: one booking a ticket, one audit a verdict, however often saved."""

from __future__ import annotations

from dataclasses import replace

from assay_coordinator.core.events import Save
from assay_coordinator.core.records import JobRow, VerdictRow
from assay_coordinator.tracing import CoordinatorTraces
from assay_network.tracing import Span
from assay_protocol.messages import Ticket
from assay_protocol.signing import peek
from sdk.routing.kept_records import made_record

RECORD = made_record(n_in=3, n_out=5, price_in=1_000, price_out=1_000)
TICKET = peek(Ticket, RECORD.ticket)
ISSUED = JobRow(
    ticket=TICKET.ticket,
    client=TICKET.client,
    node=TICKET.node,
    model=TICKET.model,
    state="issued",
    ticket_blob=RECORD.ticket,
    receipt_blob=b"",
    reserved=8,
    charged=0,
    deadline_at=50,
    held_epoch=0,
    verdict="",
)
BOOKED = replace(ISSUED, state="pending", receipt_blob=RECORD.receipt, charged=8, booked_at=20)
DRAWN = replace(BOOKED, state="drawn", drawn_at=30)


def observed(*rows: JobRow | VerdictRow) -> list[Span]:
    spans: list[Span] = []
    traces = CoordinatorTraces(spans.append, lambda: 99)
    for row in rows:
        traces.observe([Save(row)], 1, 0.0)
    return spans


def verdict(outcome: str) -> VerdictRow:
    return VerdictRow(TICKET.ticket, outcome, 44, b"")


def test_a_booking_and_an_audit_are_told_once() -> None:
    released = replace(DRAWN, state="released")
    booking, audit = observed(ISSUED, BOOKED, DRAWN, DRAWN, verdict("passed"), released)
    assert (booking.name, booking.began_us, booking.ended_us) == ("booking", 0, 20)
    assert booking.attributes == {
        "assay.verify": "sample",
        "assay.credit": 8,
        "gen_ai.usage.output_tokens": 5,
    }
    assert (audit.name, audit.began_us, audit.ended_us, audit.error) == ("audit", 30, 44, "")
    assert audit.under == booking.under == TICKET.seed_ticket


def test_a_ticket_that_nobody_used_has_expired() -> None:
    (booking,) = observed(ISSUED, replace(ISSUED, state="expired"))
    assert (booking.ended_us, booking.error) == (99, "ticket_expired")


def test_an_audit_that_failed_or_is_from_before_a_restart() -> None:
    _, failed = observed(DRAWN, verdict("failed"))
    assert failed.error == "audit_failed"
    (alone,) = observed(verdict("passed"))
    assert (alone.seed_ticket, alone.began_us) == (TICKET.ticket, 44)
