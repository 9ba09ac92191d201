"""A node's spans: its answers and the audits it computes, out of what the runtime does anyway.

Fed like the metrics (docs/decisions/0029). Nothing is believed of a stream before the node admitted
it: a span exists only for a job that an engine began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay_network.tracing import Emit, Followed, Span
from assay_node.core import effects as do
from assay_node.core import events as on
from assay_protocol import traces
from assay_protocol.codec import decode, decode_as
from assay_protocol.errors import ProtocolError
from assay_protocol.messages import AuditTask, StartJob, Ticket
from assay_protocol.signing import peek


@dataclass(slots=True)
class _Answer:
    """One admitted job; 0: not yet."""

    ticket: Ticket
    opened_at: int
    began_at: int = 0
    first_at: int = 0
    drew_at: int = 0
    tokens: int = 0
    finish: str = ""


class NodeTraces:
    """Feed it what the runtime does; spans go to `emit` when they are over."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._answers: Followed[int, _Answer] = Followed()
        self._tasks: Followed[bytes, tuple[int, AuditTask]] = Followed()

    def observe(self, now: int, event: on.Event, effects: Sequence[do.Effect]) -> None:
        """`event` happened at `now`, in microseconds, and `effects` are what the node wants."""
        match event:
            case on.StreamOpened(stream, frame=frame):
                self._opened(now, stream, frame)
            case on.Drawn(stream, chunk) if (answer := self._answers.get(stream)) is not None:
                if chunk.tokens:
                    answer.first_at = answer.first_at or now
                    answer.drew_at = now
                    answer.tokens += len(chunk.tokens)
                answer.finish = chunk.finish or ""
            case on.EngineStopped(stream, code):
                self._ended(now, stream, code)
            case on.Noticed(body):
                self._noticed(now, body)
            case on.ReplayDone(audit):
                self._replayed(now, audit, "")
            case on.ReplayFailed(audit, code):
                self._replayed(now, audit, code)
        for effect in effects:
            match effect:
                case do.StartGenerate(stream) if (answer := self._answers.get(stream)) is not None:
                    answer.began_at = now
                case do.SendFrame(stream, last=True):
                    self._ended(now, stream, "")
        if isinstance(event, on.StreamLost):  # told of every stream, however it ended
            self._ended(now, event.stream, "peer_gone")

    def _opened(self, now: int, stream: int, frame: bytes) -> None:
        try:
            ticket = peek(Ticket, decode_as(StartJob, frame).ticket)
        except ProtocolError:
            return  # the node refuses it
        self._answers[stream] = _Answer(ticket, now)

    def _ended(self, now: int, stream: int, error: str) -> None:
        answer = self._answers.pop(stream, None)
        if answer is None or not answer.began_at:
            return
        steps = [(traces.QUEUE, answer.opened_at, answer.began_at)]
        if answer.first_at:
            steps.append((traces.PREFILL, answer.began_at, answer.first_at))
            steps.append((traces.DECODE, answer.first_at, answer.drew_at))
        ticket = answer.ticket
        for name, began, ended in steps:
            self._emit(Span(name, ticket.seed_ticket, ticket.ticket, began, ended))
        self._emit(
            Span(
                traces.ANSWER,
                ticket.seed_ticket,
                ticket.ticket,
                answer.opened_at,
                now,
                under=ticket.seed_ticket,
                attributes={
                    "gen_ai.request.model": ticket.model.hex(),
                    "gen_ai.usage.input_tokens": ticket.n_in,
                    "gen_ai.usage.output_tokens": answer.tokens,
                    "assay.finish": answer.finish or "cancelled",
                    "assay.resumed_at": ticket.start,
                },
                error=error,
            )
        )

    def _noticed(self, now: int, body: bytes) -> None:
        try:
            message = decode(body)
        except ProtocolError:
            return
        if isinstance(message, AuditTask):
            self._tasks[message.audit] = now, message

    def _replayed(self, now: int, audit: bytes, error: str) -> None:
        began, task = self._tasks.pop(audit, (0, None))
        if task is None:
            return
        tokens = {"gen_ai.usage.input_tokens": task.n_in, "assay.replayed_tokens": task.n_out}
        self._emit(
            Span(
                traces.REPLAY,
                task.seed_ticket,
                audit,
                began,
                now,
                under=task.ticket,
                attributes=tokens,
                error=error,
            )
        )
