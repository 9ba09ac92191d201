"""The client's job machine: from a prompt to a whole answer, whatever nodes do on the way.

Rules it keeps:
- The prompt goes to the node alone; the coordinator sees a salted hash (invariant S3).
- Nothing of a node is believed before ClientStream checked it. A node that breaks the protocol,
  vanishes or stalls is left, excluded, and the job goes on elsewhere.
- Before the first token that is a new job. After it, it is the same one: the next node gets prompt
  and answer so far, the same seed and the next position, so its first token is the one the lost
  node would have drawn. The ticket must say so, or the job ends.
- What is told of a prompt is the caller's with the first token, whose node told all of it.
- A job that embeds is a new job wherever it goes: vectors count once the receipt is here, whose
  root is of them, and what came without one is dropped.
- Every ticket ends: by a receipt handed in, or by AbandonJob with what its node last signed
  (invariant P1). Attempts, waits and the whole are bounded by JobLimits (invariant B1).

MOVES has the phases and what leads from one to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from assay.events import (
    AskTicket,
    Begin,
    CancelAsked,
    CloseStream,
    Effect,
    Ended,
    Event,
    Granted,
    HandIn,
    Job,
    JobLimits,
    OpenStream,
    Outcome,
    PromptTold,
    Received,
    Refused,
    Resumed,
    Segment,
    SendFrame,
    StreamLost,
    Tick,
    TokensDrawn,
)
from assay_protocol.errors import AssayError, ProtocolError, RemoteError
from assay_protocol.hashing import nonce_commitment, pack_tokens, prompt_hash
from assay_protocol.limits import PROMPT_TOKENS_MAX
from assay_protocol.messages import (
    AbandonJob,
    Receipt,
    ResumePoint,
    Standing,
    SubmitJob,
    SubmitReceipt,
    Ticket,
    TicketGrant,
)
from assay_protocol.prompt_logprobs import read_told, tells_prompt
from assay_protocol.regions import lies_in
from assay_protocol.signing import ED25519, Signer, Verifier
from assay_protocol.streams import ClientStep, ClientStream
from assay_protocol.tickets import check_grant, open_ticket

EXCLUDE_MAX: Final = 16  # what SubmitJob carries

# Another try may succeed where the coordinator answered so; any other refusal is the caller's.
_ASK_AGAIN: Final = frozenset(
    {"no_capacity", "busy", "rate_limited", "storage_failed", "internal", "timeout", "peer_gone"}
)
# No other node would answer otherwise.
_HOPELESS: Final = frozenset(
    {
        "prompt_too_long",
        "sampler_refused",
        "grammar_refused",
        "prompt_refused",
        "task_refused",
        "region_unserved",
        "not_finite",
        "image_refused",
    }
)
# The node is well, only not free: it may be asked again when nobody else is.
_WELL: Final = frozenset({"busy", "draining", "rate_limited", "slow_reader", "ticket_expired"})


class Phase(Enum):
    """Where the job stands."""

    READY = auto()
    ASKING = auto()
    STREAMING = auto()
    BACKING_OFF = auto()
    ENDING = auto()
    OVER = auto()


MOVES: Final[Mapping[tuple[Phase, Phase], str]] = {
    (Phase.READY, Phase.ASKING): "a ticket is asked for",
    (Phase.READY, Phase.OVER): "the prompt is too long, or cancelled",
    (Phase.ASKING, Phase.STREAMING): "a ticket is granted; the prompt goes to its node",
    (Phase.ASKING, Phase.BACKING_OFF): "refused: wait",
    (Phase.ASKING, Phase.ASKING): "refused, and JobLimits know no wait",
    (Phase.ASKING, Phase.OVER): "refused for good, or cancelled",
    (Phase.STREAMING, Phase.STREAMING): "tokens",
    (Phase.STREAMING, Phase.ASKING): "the node is lost: another goes on",
    (Phase.STREAMING, Phase.BACKING_OFF): "lost again without a token: wait",
    (Phase.BACKING_OFF, Phase.ASKING): "the wait is over",
    (Phase.BACKING_OFF, Phase.OVER): "cancelled, or the time is over",
    (Phase.STREAMING, Phase.ENDING): "cancelled: the receipt is awaited briefly",
    (Phase.ENDING, Phase.OVER): "the receipt, or no more time for it",
    (Phase.STREAMING, Phase.OVER): "the receipt: the answer is whole",
}


@dataclass(slots=True)
class _Run:
    """One ticket on one node."""

    ticket: Ticket
    blob: bytes
    stream: ClientStream
    prompt: tuple[int, ...]
    tokens: list[int] = field(default_factory=list)  # what the caller was given of them
    progress: bytes | None = None  # the node's last signature under no more than those
    standing: Standing | None = None

    def segment(self) -> Segment:
        node, receipt = self.ticket.node, self.stream.receipt_blob
        tokens = tuple(self.tokens)
        vectors = b"" if receipt is None else bytes(self.stream.vectors)
        told = bytes(self.stream.told)
        return Segment(node, self.blob, self.prompt, tokens, receipt, self.standing, vectors, told)


class JobMachine:
    """Runs one `Job` as `signer`, with tickets signed by `coordinator` (its public key)."""

    def __init__(
        self,
        job: Job,
        signer: Signer,
        coordinator: bytes,
        limits: JobLimits = JobLimits(),
        verifier: Verifier = ED25519,
    ) -> None:
        self.job, self.phase = job, Phase.READY
        self.attempt = 0
        self.held: list[int] = []  # the answer so far
        self.avoid = job.avoid  # nodes this job must not go to
        self.twin = job.twin  # whose draws it repeats, or whose operator a resume must avoid
        self._signer, self._coordinator, self._verifier = signer, coordinator, verifier
        self._limits = limits
        self._runs: list[_Run] = []
        self._asked: SubmitJob | None = None
        self._bad: list[bytes] = []  # nodes that failed, oldest first
        self._busy: list[bytes] = []  # nodes that were well but not free
        self._failures = 0  # since the last token
        self._reason: AssayError | None = None  # why the job is ENDING, unless the caller asked
        self._now = self._phase_at = self._total_at = 0
        self._effects: list[Effect] = []

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """All that have a ticket of this job, or had one and drew tokens."""
        return tuple(run.ticket.node for run in self._runs)

    @property
    def drawing(self) -> Ticket:
        """The ticket whose node draws now, or drew last; there is one once there are tokens."""
        return self._runs[-1].ticket

    @property
    def wake_at(self) -> int | None:
        """When a Tick is due; None if the machine waits for nothing."""
        if self.phase in (Phase.READY, Phase.OVER):
            return None
        if self.phase is Phase.ENDING:
            return self._phase_at
        return min(self._phase_at, self._total_at)

    def handle(self, now: int, event: Event) -> list[Effect]:
        """Take one event at `now`; returns what to do, in order."""
        self._now, self._effects = now, []
        match event:
            case Begin():
                assert self.phase is Phase.READY
                self._total_at = now + self._limits.total_us
                self._ask()
            case Granted(attempt, grant):
                self._granted(attempt, grant)
            case Refused(attempt, error):
                if self.phase is Phase.ASKING and attempt == self.attempt:
                    self._refused(error)
            case Received(attempt, frame):
                if self._streaming(attempt):
                    self._received(frame)
            case StreamLost(attempt, error):
                if self._streaming(attempt):
                    self._node_failed(error)
            case CancelAsked():
                self._stop(None)
            case Tick():
                self._tick()
        return self._effects

    # ---- asking ----

    def _ask(self) -> None:
        prompt = self.job.prompt + tuple(self.held)
        if len(prompt) > PROMPT_TOKENS_MAX:
            self._fail(AssayError("prompt_too_long"))
            return
        self.attempt += 1
        last = self._runs[-1] if self.held else None
        nonce = self.job.nonce
        self._asked = SubmitJob(
            model=self.job.model,
            prompt_hash=prompt_hash(nonce, pack_tokens(prompt)),
            n_in=len(prompt),
            sampler=self.job.sampler,
            max_tokens=self.job.max_tokens - len(self.held),
            nonce_commitment=nonce_commitment(nonce),
            exclude=self._excluded(),
            only=self.job.only,
            resume=_resume_point(last) if last else None,
            verify=None if self.job.verify == "sample" else self.job.verify,
            twin=self.twin,
            regions=self.job.regions or None,
        )
        self._enter(Phase.ASKING, self._limits.ask_us)
        self._effects.append(AskTicket(self.attempt, self._asked))

    def _excluded(self) -> tuple[bytes, ...]:
        failed = () if self.job.only else (*self._busy, *self._bad)
        return (*failed, *self.avoid)[-EXCLUDE_MAX:]

    def _granted(self, attempt: int, grant: TicketGrant) -> None:
        late = self.phase is not Phase.ASKING or attempt != self.attempt
        try:
            ticket = open_ticket(grant.ticket, self._coordinator, self._verifier)
            if late:
                self._effects.append(HandIn(AbandonJob(ticket=ticket.ticket)))
                return
            self._check_ticket(ticket, grant)
        except ProtocolError as error:
            if not late:
                self._fail(error)
            return
        self._abandon()  # the ticket this one resumes; not before, so that it could be resumed
        prompt = self.job.prompt + tuple(self.held)
        stream = ClientStream(ticket, self.job.nonce, self._signer, self._verifier)
        run = _Run(ticket, grant.ticket, stream, prompt, standing=grant.standing)
        self._runs.append(run)
        self._enter(Phase.STREAMING, self._limits.first_token_us)
        job = self.job
        first = stream.start(grant.ticket, pack_tokens(prompt), job.grammar, job.images)
        self._effects.append(OpenStream(attempt, grant.route, first))

    def _check_ticket(self, ticket: Ticket, grant: TicketGrant) -> None:
        """The coordinator's word must be what was asked for, and go on where the answer stands."""
        asked, job = self._asked, self.job
        assert asked is not None
        check_grant(ticket, asked, client=self._signer.public_key)
        if ticket.node != grant.route.node:
            raise ProtocolError("unexpected_message", "the route is to another node")
        said = None if grant.standing is None else grant.standing.region
        if job.regions and not lies_in(said, job.regions):
            raise ProtocolError("unexpected_message", "the node is not where it was asked to be")
        if ticket.node in self.avoid:
            raise ProtocolError("unexpected_message", "the node has the same job already")
        if any(run.ticket.ticket == ticket.ticket for run in self._runs):
            raise ProtocolError("ticket_replayed")
        if self.held and ticket.seed_ticket != self._runs[-1].ticket.seed_ticket:
            raise ProtocolError("unexpected_message", "the ticket resumes with another seed")
        if ticket.start != len(self.held):
            raise ProtocolError("unexpected_message", "the ticket resumes at another token")
        for price, most in (
            (ticket.price_in, job.price_in_max),
            (ticket.price_out, job.price_out_max),
        ):
            if most is not None and price > most:
                raise ProtocolError(
                    "unexpected_message", "the ticket costs more than the catalogue"
                )

    def _refused(self, error: AssayError) -> None:
        if error.code not in _ASK_AGAIN:
            self._fail(error)
            return
        if error.code == "no_capacity":
            self._busy.clear()
        self._try_again(error, at_once=False)

    # ---- streaming ----

    def _received(self, frame: bytes) -> None:
        run = self._runs[-1]
        try:
            step = run.stream.receive(frame)
            self._check_tokens(step)
            if step.vectors and run.stream.dims != self.job.dims:
                raise ProtocolError("malformed", "vectors of another size than the model's")
        except (ProtocolError, RemoteError) as error:
            self._node_failed(error)
            return
        if step.prompt_logprobs and self.phase is Phase.STREAMING:
            self._enter(Phase.STREAMING, self._limits.first_token_us)
        if step.vectors:
            self._failures = 0
            if self.phase is Phase.STREAMING:
                self._enter(Phase.STREAMING, self._limits.stall_us)
            run.progress = run.stream.last_progress
        if step.tokens:
            self._deliver(run, step)
            run.progress = run.stream.last_progress
        if step.reply is not None:
            self._effects.append(SendFrame(self.attempt, step.reply))
        if step.receipt is not None:
            self._finished(run, step.receipt)

    def _check_tokens(self, step: ClientStep) -> None:
        """Tokens are the model's, and an end token is the last one."""
        tokens = step.tokens
        entries = step.logprobs or step.prompt_logprobs
        told = [token for entry in entries for token, _ in entry.top]
        vocabulary = self.job.vocabulary
        if max(tokens, default=0) >= vocabulary or max(told, default=0) >= vocabulary:
            raise ProtocolError("malformed", "a token outside the model's vocabulary")
        if tokens and (self._complete() or not self.job.stop_tokens.isdisjoint(tokens[:-1])):
            raise ProtocolError("unexpected_message", "tokens after the end of the answer")

    def _deliver(self, run: _Run, step: ClientStep) -> None:
        tokens = step.tokens
        if not run.tokens and self.held:
            before = next(one for one in reversed(self._runs) if one.tokens)
            self._effects.append(Resumed(before.ticket.node, run.ticket.node, len(self.held)))
        node = run.ticket.node
        if not self.held and tells_prompt(run.ticket):
            entries = read_told(bytes(run.stream.told), run.ticket.sampler, run.prompt)
            self._effects.append(PromptTold(entries, node))
        self._effects.append(TokensDrawn(len(self.held), tokens, node, step.logprobs))
        run.tokens.extend(tokens)
        self.held.extend(tokens)
        self._failures = 0
        if self.phase is Phase.STREAMING:
            self._enter(Phase.STREAMING, self._limits.stall_us)

    def _finished(self, run: _Run, receipt: Receipt) -> None:
        blob = run.stream.receipt_blob
        assert blob is not None
        self._effects.append(CloseStream(self.attempt, clean=True))
        self._effects.append(HandIn(SubmitReceipt(receipt=blob)))
        if self.job.sampler.texts is not None and receipt.n_out == self.job.max_tokens:
            self._end("length")
        elif self._complete():
            self._end(self._finish_reason())
        elif self.phase is Phase.ENDING:
            self._end_stopped()
        elif receipt.finish == "stop" and not self.job.stop_tokens:
            self._end("stop")
        elif receipt.finish == "stop":
            # An honest node's last token is the model's end token: this one cut the answer short.
            self._leave(run, ProtocolError("receipt_mismatch", "stopped without an end token"))
        else:
            self._leave(run, AssayError(receipt.finish))  # cancelled, slow_reader: not our doing

    def _node_failed(self, error: AssayError) -> None:
        """The stream is of no more use; the node's ticket is settled here or by a resume."""
        run = self._runs[-1]
        self._effects.append(CloseStream(self.attempt, clean=False))
        if self._complete():
            self._abandon()
            self._end(self._finish_reason())
        elif self.phase is Phase.ENDING:
            self._abandon()
            self._end_stopped()
        elif error.code in _HOPELESS and isinstance(error, RemoteError):
            self._fail(error)
        else:
            self._leave(run, error)

    def _leave(self, run: _Run, error: AssayError) -> None:
        well = isinstance(error, RemoteError) and error.code in _WELL
        nodes = self._busy if well else self._bad
        if run.ticket.node not in nodes:
            nodes.append(run.ticket.node)
        if not self.held:
            self._abandon()
        self._try_again(error, at_once=True)

    # ---- trying again and ending ----

    def _try_again(self, error: AssayError, *, at_once: bool) -> None:
        """Back off and ask again. The first failure of a node after a token costs no wait."""
        self._failures += 1
        exponent = min(self._failures - (2 if at_once else 1), 16)
        wait = 0
        if exponent >= 0:
            wait = min(self._limits.backoff_us << exponent, self._limits.backoff_max_us)
            # Spread by the nonce, which is random: a machine draws nothing itself.
            wait = wait * (128 + self.job.nonce[self.attempt % len(self.job.nonce)] // 2) // 256
        if not at_once and error.retry_after_ms is not None:
            wait = max(wait, error.retry_after_ms * 1_000)
        if self.attempt >= self._limits.attempts_max or self._now + wait >= self._total_at:
            self._fail(error)
        elif wait:
            self._enter(Phase.BACKING_OFF, wait)
        else:
            self._ask()

    def _tick(self) -> None:
        wake_at = self.wake_at
        if wake_at is None or self._now < wake_at:
            return
        late = AssayError("timeout")
        if self.phase is Phase.ENDING:
            self._node_failed(late)
        elif self._now >= self._total_at:
            self._stop(AssayError("timeout", "the job's time is over"))
        elif self.phase is Phase.ASKING:
            self._refused(late)
        elif self.phase is Phase.STREAMING:
            self._node_failed(late)
        else:
            self._ask()

    def _stop(self, reason: AssayError | None) -> None:
        """Cancel: at the node if one is at work, and give it a moment to sign what it sent."""
        if self.phase in (Phase.ENDING, Phase.OVER):
            return
        self._reason = reason
        if self.phase is Phase.STREAMING:
            self._effects.append(SendFrame(self.attempt, self._runs[-1].stream.cancel()))
            self._enter(Phase.ENDING, self._limits.cancel_us)
        else:
            self._abandon()
            self._end_stopped()

    def _fail(self, error: AssayError) -> None:
        self._abandon()
        self._end("failed", error)

    def _end_stopped(self) -> None:
        self._end("failed" if self._reason else "cancelled", self._reason)

    def _end(self, finish: str, error: AssayError | None = None) -> None:
        self._move(Phase.OVER)
        segments = tuple(run.segment() for run in self._runs)
        outcome = Outcome(tuple(self.held), finish, error, segments, self.attempt)
        self._effects.append(Ended(outcome))

    def _abandon(self) -> None:
        """End the newest ticket's reservation, unless a receipt or an earlier call did."""
        if not self._runs or self._runs[-1].stream.receipt_blob is not None:
            return
        run = self._runs[-1]
        body = AbandonJob(ticket=run.ticket.ticket, progress=run.progress)
        self._effects.append(HandIn(body))
        if not run.tokens and run.ticket.start == 0:
            self._runs.pop()  # settled, and no part of the answer

    def _complete(self) -> bool:
        """Whether the answer ends here by itself, receipt or not."""
        held, job = self.held, self.job
        return len(held) == job.max_tokens or (bool(held) and held[-1] in job.stop_tokens)

    def _finish_reason(self) -> str:
        return "stop" if self.held[-1] in self.job.stop_tokens else "length"

    def _enter(self, phase: Phase, for_us: int) -> None:
        self._move(phase)
        self._phase_at = self._now + for_us

    def _move(self, phase: Phase) -> None:
        assert (self.phase, phase) in MOVES, f"no job goes from {self.phase} to {phase}"
        self.phase = phase

    def _streaming(self, attempt: int) -> bool:
        return self.phase in (Phase.STREAMING, Phase.ENDING) and attempt == self.attempt


def _resume_point(run: _Run) -> ResumePoint:
    return ResumePoint(ticket=run.ticket.ticket, count=len(run.tokens), progress=run.progress)
