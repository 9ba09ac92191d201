"""A coordinator's spans: each ticket until it is booked, each audit until its verdict.

Fed with what was committed, like the metrics (docs/decisions/0029). A job from before a restart is
told by its ticket alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from assay_coordinator.core.events import Effect, Save
from assay_coordinator.core.records import JobRow, VerdictRow
from assay_network.tracing import Emit, Followed, Span
from assay_protocol import traces
from assay_protocol.messages import Receipt, Ticket
from assay_protocol.signing import peek


class CoordinatorTraces:
    """Feed it what was committed; spans go to `emit` when they are over. `clock` gives
    microseconds since 1970."""

    def __init__(self, emit: Emit, clock: Callable[[], int]) -> None:
        self._emit, self._clock = emit, clock
        self._booked: Followed[bytes, None] = Followed()  # told, and saved again later
        self._drawn: Followed[bytes, tuple[bytes, int]] = Followed()  # ticket: its seed's, when

    def observe(self, batch: Sequence[Effect], rows: int, seconds: float) -> None:
        """`batch` holds from now on."""
        for effect in batch:
            match effect:
                case Save(JobRow() as row):
                    self._saved(row)
                case Save(VerdictRow() as row):
                    self._judged(row)

    def _saved(self, row: JobRow) -> None:
        ended = row.booked_at or (self._clock() if row.state == "expired" else 0)
        if not ended:
            return
        ticket = peek(Ticket, row.ticket_blob)
        if row.drawn_at or row.state == "drawn":
            self._drawn[row.ticket] = ticket.seed_ticket, row.drawn_at or row.booked_at
        if row.ticket in self._booked:
            return
        self._booked[row.ticket] = None
        told: dict[str, str | int | bool] = {
            "assay.verify": row.verify,
            "assay.credit": row.charged,
        }
        if row.receipt_blob:
            told["gen_ai.usage.output_tokens"] = peek(Receipt, row.receipt_blob).n_out
        self._emit(
            Span(
                traces.BOOKING,
                ticket.seed_ticket,
                row.ticket,
                ticket.issued_at,
                ended,
                under=ticket.seed_ticket,
                attributes=told,
                error="" if row.booked_at else "ticket_expired",
            )
        )

    def _judged(self, row: VerdictRow) -> None:
        seed, began = self._drawn.pop(row.ticket, (row.ticket, row.at))
        self._emit(
            Span(
                traces.AUDIT,
                seed,
                row.ticket,
                began,
                row.at,
                under=seed,
                attributes={"assay.outcome": row.outcome},
                error="audit_failed" if row.outcome == "failed" else "",
            )
        )
