"""A client's span of each job: from asking for a ticket to the receipt. It is the trace's root.

Fed with the effects of the job's machine (docs/decisions/0029). A job that never got a ticket has
no trace: there is nothing that others could share with it.
"""

from __future__ import annotations

from collections.abc import Callable

from assay.events import Effect, Ended, Outcome, Resumed, TokensDrawn
from assay_network.tracing import Emit, Span
from assay_protocol import traces
from assay_protocol.messages import Ticket
from assay_protocol.signing import peek

Follow = Callable[[], Callable[[Effect], None]]  # one call for each job


class JobTraces:
    """Spans go to `emit` when they are over; `clock` gives microseconds since 1970."""

    def __init__(self, emit: Emit, clock: Callable[[], int]) -> None:
        self._emit, self._clock = emit, clock

    def follow(self) -> Callable[[Effect], None]:
        """A job begins: what is returned is to be told its effects."""
        return _Job(self._emit, self._clock).told


class _Job:
    def __init__(self, emit: Emit, clock: Callable[[], int]) -> None:
        self._emit, self._clock = emit, clock
        self._began, self._first_at, self._resumed = clock(), 0, 0

    def told(self, effect: Effect) -> None:
        match effect:
            case TokensDrawn() if not self._first_at:
                self._first_at = self._clock()
            case Resumed():
                self._resumed += 1
            case Ended(outcome) if outcome.segments:
                self._ended(outcome)

    def _ended(self, outcome: Outcome) -> None:
        ticket = peek(Ticket, outcome.segments[0].ticket)
        told: dict[str, str | int | bool] = {
            "gen_ai.request.model": ticket.model.hex(),
            "gen_ai.usage.input_tokens": ticket.n_in,
            "gen_ai.usage.output_tokens": len(outcome.tokens),
            "assay.finish": outcome.finish,
            "assay.attempts": outcome.attempts,
            "assay.resumed": self._resumed,
        }
        if self._first_at:
            told["assay.first_token_us"] = self._first_at - self._began
        error = "" if outcome.error is None else outcome.error.code
        seed = ticket.seed_ticket
        ended = self._clock()
        self._emit(Span(traces.JOB, seed, seed, self._began, ended, attributes=told, error=error))
