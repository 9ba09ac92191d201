"""What was recorded of verdicts: for whoever asks about a ticket, and for calibration."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from assay_coordinator.adapters.store import Store
from assay_coordinator.adapters.tables import TABLES
from assay_coordinator.core.fitting import Trace
from assay_coordinator.core.records import JobRow, VerdictRow
from assay_protocol.codec import decode_as
from assay_protocol.errors import AssayError
from assay_protocol.limits import SKETCH_BYTES
from assay_protocol.messages import AuditReveal, LeavesOpened, Receipt, Ticket, VerdictRecord
from assay_protocol.signing import peek
from assay_protocol.sketches import leaf_distances

_TICKET_BYTES: Final = 16


def verdict_record(store: Store, key: bytes) -> bytes:
    """The encoded VerdictRecord of the ticket that `key` begins with.

    Raises AssayError("unknown_ticket").
    """
    table = TABLES[VerdictRow]
    rows: list[VerdictRow] = store.rows(VerdictRow, table.c.ticket == key[:_TICKET_BYTES])
    if not rows:
        raise AssayError("unknown_ticket", "no audit of such a ticket has ended here")
    return rows[0].blob


def traces(store: Store, trusted: Collection[bytes]) -> Iterator[Trace]:
    """Audits where executor and auditor are both trusted, however they ended: leaving out those
    that looked bad would make the honest noise look smaller than it is."""
    table = TABLES[JobRow]
    for node in sorted(trusted):
        audited = table.c.verdict.notin_(("", "undrawn", "no_receipt"))
        jobs: list[JobRow] = store.rows(JobRow, table.c.node == node, audited)
        for job in jobs:
            verdicts = TABLES[VerdictRow]
            for row in store.rows(VerdictRow, verdicts.c.ticket == job.ticket):
                yield from _of_record(decode_as(VerdictRecord, row.blob), trusted)


def _of_record(record: VerdictRecord, trusted: Collection[bytes]) -> Iterator[Trace]:
    if record.opened is None:
        return
    receipt, ticket = peek(Receipt, record.receipt), peek(Ticket, record.ticket)
    model, embeds = ticket.model, ticket.sampler.texts is not None
    opened = decode_as(LeavesOpened, record.opened)
    for finding in record.findings:
        reveal = decode_as(AuditReveal, finding.reveal)
        mine, theirs = reveal.sketches, opened.sketches
        if finding.auditor not in trusted or reveal.fault or mine is None or theirs is None:
            continue
        gaps = reveal.gaps or b""  # of vectors there are none
        assert embeds or len(mine) == SKETCH_BYTES * len(gaps), "checked when it was weighed"
        yield Trace(
            model=model,
            executor=receipt.class_id,
            auditor=finding.class_id or "",
            gaps=gaps,
            mismatches=reveal.mismatches,
            distances=leaf_distances(theirs[: len(mine)], mine),
        )
