"""When to ask how an answer's audit stands, and when to give up: no clock, no network.

Each ticket of the answer is asked about in turn until its outcome is told. The waits between two
questions double from JobLimits.verdict_us up to verdict_most_us; the whole ends verdict_total_us
after its beginning, whatever was told by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from assay.events import JobLimits, Segment
from assay.verdicts import AGAINST, PASSED, UNSIGNED, UNTOLD, Verdict, check_statements
from assay_protocol.errors import AssayError, PeerGone, ProtocolError
from assay_protocol.messages import JobVerdict, Ticket
from assay_protocol.signing import peek

# The coordinator may answer after all; any other refusal it would only repeat.
_ASK_AGAIN: Final = frozenset({"busy", "rate_limited", "timeout", "internal", "storage_failed"})


class VerdictWatch:
    """Follows the audits of one answer's `segments` from `now`, in microseconds."""

    def __init__(self, now: int, segments: Sequence[Segment], limits: JobLimits) -> None:
        self._limits = limits
        self._end_at = now + limits.verdict_total_us
        self._wait = limits.verdict_us
        self._signed = {
            peek(Ticket, one.ticket).ticket: one for one in segments if one.receipt is not None
        }
        self._waiting = list(self._signed)
        self._outcomes = [UNSIGNED for one in segments if one.receipt is None and one.tokens]
        self._auditors: list[bytes] = []

    @property
    def asking(self) -> bytes | None:
        """The ticket to ask about next; None once all is told or given up."""
        return self._waiting[0] if self._waiting else None

    @property
    def verdict(self) -> Verdict:
        """What is known: of several outcomes the worst."""
        outcomes = self._outcomes + [UNTOLD] * len(self._waiting)
        bad = sorted((one for one in outcomes if one != PASSED), key=lambda one: one not in AGAINST)
        worst = bad[0] if bad else PASSED if outcomes else UNSIGNED
        return Verdict(worst, tuple(self._signed), tuple(dict.fromkeys(self._auditors)))

    def told(self, now: int, answer: JobVerdict) -> int:
        """Take an answer; returns how long to wait before the next question.

        Raises ProtocolError if it is about another ticket, or a statement is not what it must be.
        """
        asked = self._waiting[0]
        if answer.ticket != asked:
            raise ProtocolError("unexpected_message", "the verdict is of another ticket")
        if not answer.outcome:
            return self._again(now)
        one = self._signed[asked]
        assert one.receipt is not None
        self._auditors += check_statements(answer, one.ticket, one.receipt)
        self._outcomes.append(answer.outcome)
        del self._waiting[0]
        self._wait = self._limits.verdict_us
        return 0

    def refused(self, now: int, error: AssayError) -> int:
        """Take a refusal, or that nobody answered; raises `error` if it would only be repeated."""
        if isinstance(error, PeerGone) or error.code in _ASK_AGAIN:
            return self._again(now)
        raise error

    def _again(self, now: int) -> int:
        wait, self._wait = self._wait, min(2 * self._wait, self._limits.verdict_most_us)
        if now + wait >= self._end_at:
            self._outcomes += [UNTOLD] * len(self._waiting)
            self._waiting.clear()
            return 0
        return wait
