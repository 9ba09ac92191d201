"""One answer as an asynchronous stream: enter it to begin, iterate it to read, leave it to cancel.

    async with client.stream_chat(messages) as stream:
        async for event in stream:      # Delta, Resumed, with verify="now" last a Verdict, and
            ...                         # first a PromptTold where that was asked for
    stream.result                       # Completion

Leaving before the end cancels: the node is told, signs for what it sent, and the receipt is handed
in. That takes at most JobLimits.cancel_us and is not interrupted by a cancellation from outside. A
stop string in the text ends the stream in the same way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Final

import trio

from assay.answers import AnswersDiffer, Completion, Delta, JobFailed, NotVerified, Usage
from assay.events import Job, Outcome, PromptTold, Resumed, Segment
from assay.records import ReceiptRecord, record_of
from assay.verdicts import UNTOLD, Verdict
from assay_protocol.errors import AssayError
from assay_protocol.logprobs import TokenLogprobs

if TYPE_CHECKING:
    from assay.answer_text import AnswerText
    from assay.job_run import JobRun

AnswerEvent = Delta | Resumed | PromptTold | Verdict

LEAVE_SECONDS: Final = 10.0  # a bound on our own faults; the machine's own limit comes first


@dataclass(frozen=True, slots=True)
class Started:
    """A job under way, and what is needed to make text and records of it."""

    job: Job
    run: JobRun
    coordinator: bytes
    keep: Callable[[tuple[ReceiptRecord, ...]], None]
    verdict: Callable[[tuple[Segment, ...]], Awaitable[Verdict]]
    text: Callable[[], AnswerText]  # for the answer's tokens from its beginning


class AnswerStream:
    """Iterates over Delta and Resumed. Raises JobFailed, with what came before, on failure.

    With verify="now" a Verdict comes last, after a wait for the audit, or NotVerified is raised.
    With verify="quorum" tokens come once two nodes drew them, or AnswersDiffer is raised.
    """

    def __init__(self, start: Callable[[], Awaitable[Started]]) -> None:
        self._start = start
        self._started: Started | None = None
        self._result: Completion | None = None
        self._events: AsyncIterator[AnswerEvent] | None = None
        self._logprobs: list[TokenLogprobs] = []
        self._prompt_logprobs: tuple[TokenLogprobs | None, ...] = ()
        self.answered = trio.Event()  # the answer is whole, or will not be; its verdict may follow

    @property
    def result(self) -> Completion:
        """The answer, once the stream was read to its end or left."""
        assert self._result is not None, "the stream has not ended"
        return self._result

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """Nodes that have a ticket of this job, or drew tokens of it."""
        return () if self._started is None else self._started.run.nodes

    @property
    def text(self) -> str | None:
        """What came, once `answered`; None if there is no answer."""
        return None if self._result is None else self._result.text

    async def whole(self) -> Completion:
        """Read it all."""
        async with self:
            async for _ in self:
                continue
        return self.result

    async def cancel(self) -> None:
        """Stop the answer here; `result` then has what came, with its receipt if the node signed.

        Raises only what keeping the receipt raises. On an ended stream it does nothing.
        """
        started = self._started
        assert started is not None, "enter the stream first"
        started.run.cancel()
        with trio.CancelScope(shield=True), trio.move_on_after(LEAVE_SECONDS):
            await started.run.ended.wait()
        if self._result is None and started.run.outcome is not None:
            self._settle(started, started.run.outcome)

    async def __aenter__(self) -> AnswerStream:
        assert self._started is None, "a stream is entered once"
        self._started = await self._start()
        audited = self._started.job.verify == "now"
        self._events = (self._then_audited if audited else self._answer)(self._started)
        return self

    def __aiter__(self) -> AsyncIterator[AnswerEvent]:
        assert self._events is not None, "enter the stream first: async with"
        return self._events

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.cancel()

    async def _then_audited(self, started: Started) -> AsyncIterator[AnswerEvent]:
        async for event in self._answer(started):
            yield event
        yield await self._audited(started)

    async def _answer(self, started: Started) -> AsyncIterator[AnswerEvent]:
        text = started.text()
        async for notice in started.run.notices:
            if isinstance(notice, PromptTold):
                self._prompt_logprobs = (None, *notice.entries)
            if isinstance(notice, PromptTold | Resumed):
                yield notice
                continue
            fresh = text.push(notice.tokens)
            self._logprobs += notice.logprobs
            if text.stop is not None:
                started.run.cancel()  # before the caller has the text: every token costs
            yield Delta(
                fresh.text,
                notice.tokens,
                notice.node,
                notice.logprobs,
                fresh.reasoning,
                fresh.reasoning_tokens,
            )
            if text.stop is not None:
                await self.cancel()
                return
        outcome = started.run.outcome
        assert outcome is not None, "notices end with the job"
        rest = text.flush()
        if (rest.text or rest.reasoning) and outcome.segments:
            yield Delta(rest.text, (), outcome.segments[-1].node, (), rest.reasoning)
        self._settle(started, outcome)
        if outcome.error is not None and text.stop is None:
            differs = outcome.error.code == "answers_differ"
            kind = AnswersDiffer if differs else JobFailed
            raise kind(outcome.error, self.result) from outcome.error

    async def _audited(self, started: Started) -> Verdict:
        """Wait for the verdict and mark the answer final; raises NotVerified."""
        assert started.run.outcome is not None, "the answer has ended"
        try:
            verdict = await started.verdict(started.run.outcome.segments)
        except AssayError as error:
            raise NotVerified(error, self.result, Verdict(UNTOLD, (), ())) from error
        self._result = replace(self.result, verdict=verdict, final=verdict.passed)
        if (reason := verdict.error) is not None:
            raise NotVerified(reason, self._result, verdict)
        return verdict

    def _settle(self, started: Started, outcome: Outcome) -> None:
        """Make the result, and keep the receipts, once."""
        if self._result is not None:
            return
        text = started.text()
        shown, rest = text.push(outcome.tokens), text.flush()
        receipts, twins = _records(started, outcome.segments), _records(started, outcome.twin)
        self._result = Completion(
            text=shown.text + rest.text,
            reasoning=shown.reasoning + rest.reasoning,
            tokens=outcome.tokens,
            finish_reason=outcome.finish if text.stop is None else "stop",
            usage=Usage(len(started.job.prompt), len(outcome.tokens), shown.reasoning_tokens),
            receipts=receipts,
            nodes=tuple(one.node for one in outcome.segments if one.tokens),
            logprobs=tuple(self._logprobs),
            final=outcome.error is None and started.job.verify != "now",
            twins=twins,
            stop=text.stop,
            attempts=outcome.attempts,
            prompt_logprobs=self._prompt_logprobs,
        )
        self.answered.set()
        started.keep(receipts + twins)


def _records(started: Started, segments: tuple[Segment, ...]) -> tuple[ReceiptRecord, ...]:
    made = (record_of(one, started.job, started.coordinator) for one in segments)
    return tuple(record for record in made if record is not None)
