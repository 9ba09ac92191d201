"""One answer drawn twice, on nodes of two operators, and given out only as far as both agree.

Two job machines under one: the second begins when the first has drawn a token, because only then
is it sure which ticket's noise the answer has, and asks for a ticket that draws the same
(SubmitJob.twin). A token goes to the caller when both have drawn it. The first difference ends both
jobs; both nodes sign for what they sent, and the two receipts are the evidence. What both tell of
the prompt is compared before anything is given out, as loosely as classes differ, and again, where
both signed as one exact class, as strictly as that promises.

It takes the events of a JobMachine and gives its effects: attempts of the first job are even here,
those of the second odd.
"""

from __future__ import annotations

from dataclasses import replace

from assay.core import JobMachine
from assay.events import (
    AskTicket,
    Begin,
    CancelAsked,
    CloseStream,
    Effect,
    Ended,
    Event,
    Granted,
    Job,
    JobLimits,
    OpenStream,
    Outcome,
    PromptTold,
    Received,
    Refused,
    Segment,
    SendFrame,
    StreamLost,
    Tick,
    TokensDrawn,
)
from assay_protocol.classes import is_exact
from assay_protocol.errors import AssayError
from assay_protocol.logprobs import TokenLogprobs
from assay_protocol.messages import Receipt
from assay_protocol.prompt_logprobs import told_apart
from assay_protocol.signing import ED25519, Signer, Verifier, peek


class QuorumMachine:
    """Runs one `Job` twice; see JobMachine for the parameters. Bounds are those of two jobs."""

    def __init__(
        self,
        job: Job,
        signer: Signer,
        coordinator: bytes,
        limits: JobLimits = JobLimits(),
        verifier: Verifier = ED25519,
    ) -> None:
        self.job = job
        self._signer, self._coordinator = signer, coordinator
        self._limits, self._verifier = limits, verifier
        self._sides = [self._side(job)]
        self._outcomes: dict[int, Outcome] = {}
        self._drawn: tuple[list[int], list[int]] = ([], [])
        self._logprobs: list[TokenLogprobs] = []  # the first node's
        self._told: dict[int, PromptTold] = {}  # of the prompt, by side
        self._apart = ""  # where the two differ about it
        self._released = 0
        self._differ_at: int | None = None
        self._stopped = self._over = False
        self._now = 0
        self._effects: list[Effect] = []

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """All that have a ticket of this job, or had one and drew tokens."""
        return tuple(node for side in self._sides for node in side.nodes)

    @property
    def wake_at(self) -> int | None:
        """When a Tick is due; None if the machine waits for nothing."""
        times = [side.wake_at for side in self._sides]
        return min((at for at in times if at is not None), default=None)

    def handle(self, now: int, event: Event) -> list[Effect]:
        """Take one event at `now`; returns what to do, in order."""
        self._now, self._effects = now, []
        match event:
            case Begin():
                self._feed(0, event)
            case Tick():
                self._feed_all(event)
            case CancelAsked():
                self._stopped = True
                self._feed_all(event)
            case Granted() | Refused() | Received() | StreamLost():
                attempt, side = divmod(event.attempt, 2)
                self._feed(side, replace(event, attempt=attempt))
        if not self._over:
            self._go_on()
        return self._effects

    # ---- the two sides ----

    def _side(self, job: Job) -> JobMachine:
        return JobMachine(job, self._signer, self._coordinator, self._limits, self._verifier)

    def _feed_all(self, event: Event) -> None:
        for side in range(len(self._sides)):
            self._feed(side, event)

    def _feed(self, side: int, event: Event) -> None:
        if len(self._sides) == 2:
            other, mine = self._sides[1 - side], self._sides[side]
            mine.avoid = (*self.job.avoid, *other.nodes)
            if mine.held and other.nodes:
                mine.twin = other.drawing.ticket  # a resume must not go to its operator
        for effect in self._sides[side].handle(self._now, event):
            match effect:
                case AskTicket() | OpenStream() | SendFrame() | CloseStream():
                    self._effects.append(replace(effect, attempt=2 * effect.attempt + side))
                case PromptTold():
                    self._take_told(side, effect)
                case TokensDrawn():
                    self._take(side, effect)
                case Ended(outcome):
                    self._outcomes[side] = outcome
                case _:
                    self._effects.append(effect)

    def _begin_second(self) -> None:
        twin = self._sides[0].drawing.seed_ticket
        self._sides.append(self._side(replace(self.job, twin=twin)))
        self._feed(1, Begin())

    # ---- comparing ----

    def _take_told(self, side: int, told: PromptTold) -> None:
        """Give out what the first node told of the prompt, unless the second tells another tale."""
        self._told[side] = told
        if len(self._told) < 2:
            return
        self._apart = self._told_apart(exact=False)
        if self._apart:
            self._differ_at = 0  # no token is given out
        else:
            self._effects.append(self._told[0])

    def _told_apart(self, *, exact: bool) -> str:
        first, second = self._told[0].entries, self._told[1].entries
        return told_apart(first, second, exact=exact) or ""

    def _take(self, side: int, fresh: TokensDrawn) -> None:
        """Keep what one side drew; give out what both now have, up to the first difference."""
        self._drawn[side].extend(fresh.tokens)
        if side == 0:
            self._logprobs.extend(fresh.logprobs)
        first, second = self._drawn
        begin, both = self._released, min(len(first), len(second))
        end = next((i for i in range(begin, both) if first[i] != second[i]), both)
        if self._differ_at is None and end > begin:
            node = self._sides[0].drawing.node
            told = tuple(self._logprobs[begin:end])
            self._effects.append(TokensDrawn(begin, tuple(first[begin:end]), node, told))
            self._released = end
        if self._differ_at is None and end < both:
            self._differ_at = end

    def _go_on(self) -> None:
        """Begin the second job, end both if one cannot be, and tell the end once."""
        if len(self._sides) == 1 and self._drawn[0] and not self._stopped:
            self._begin_second()
        if self._differ_at is not None or any(one.error for one in self._outcomes.values()):
            for side in range(len(self._sides)):
                if side not in self._outcomes:
                    self._feed(side, CancelAsked())
        if len(self._outcomes) == len(self._sides):
            self._over = True
            self._effects.append(Ended(self._outcome()))

    def _outcome(self) -> Outcome:
        first = self._outcomes[0]
        second = self._outcomes.get(1)
        twin = second.segments if second else ()
        error = self._error()
        finish = first.finish
        if error is not None:
            finish = "failed"
        elif self._stopped or second is None:
            finish = "cancelled"
        return Outcome(
            tokens=tuple(self._drawn[0][: self._released]),
            finish=finish,
            error=error,
            segments=first.segments,
            attempts=sum(one.attempts for one in self._outcomes.values()),
            twin=twin,
        )

    def _error(self) -> AssayError | None:
        if self._differ_at is not None:
            return self._difference(self._differ_at)
        for outcome in self._outcomes.values():
            if outcome.error is not None:
                return outcome.error
        first, second = self._drawn
        if len(first) != len(second) and not self._stopped:
            return self._difference(min(len(first), len(second)))
        if len(self._told) == 2 and one_exact_class(self._segments()):
            self._apart = self._told_apart(exact=True)
            if self._apart:
                return self._difference(0)
        return None

    def _difference(self, position: int) -> AssayError:
        where = f"about {self._apart}" if self._apart else f"at token {position}"
        return AssayError("answers_differ", f"{where}; {what_it_means(self._segments())}")

    def _segments(self) -> list[Segment]:
        return [one for outcome in self._outcomes.values() for one in outcome.segments]


def one_exact_class(segments: list[Segment]) -> str:
    """The exact class that all of these receipts are of; "" if there is none."""
    classes = {peek(Receipt, one.receipt).class_id for one in segments if one.receipt is not None}
    signed = all(one.receipt is not None for one in segments)
    return min(classes) if signed and len(classes) == 1 and is_exact(min(classes)) else ""


def what_it_means(segments: list[Segment]) -> str:
    """Whether two answers of these receipts may differ without anybody having cheated."""
    if shared := one_exact_class(segments):
        return f"one of the nodes deviated: both say they compute exactly as {shared}"
    return "their classes are not one exact class, so honest noise can do it, too"
