"""One job's life on a node: drawn tokens in, frames out, a receipt at the end.

    running --last token sent, cancel, loss, slow reader--> closing --final ack or time--> over
       \\--engine failed, told to cut--> over (no receipt: the client's signed Progress pays)

Where the ticket asks for logprobs of the prompt, they are sent as the engine tells them, before any
token; they are bounded in all (limits.PROMPT_LOGPROBS_BYTES_MAX) and wait for no window.

The node never sends beyond the client's window (streams.py); tokens there is no room for wait here,
and the engine is asked for more only when none wait, so a client that stops reading stops its own
job and nothing else. However a running job ends on the client's side, the node makes a receipt for
what it sent: with the client's last acknowledgement it proves what is owed (L3).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from assay_node.core.admission import Admitted
from assay_node.core.effects import (
    CloseStream,
    Effect,
    NextChunk,
    SendFrame,
    StartGenerate,
    StopGenerate,
)
from assay_node.core.parameters import Parameters, Served
from assay_node.core.transcripts import Kept
from assay_node.engine.interface import Chunk, Generate
from assay_protocol.classes import holds_logprobs
from assay_protocol.codec import encode
from assay_protocol.embeddings import FLOAT_BYTES
from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import job_seed
from assay_protocol.images import pixel_bytes
from assay_protocol.limits import (
    SKETCH_BYTES,
    TEXT_BYTES_MAX,
    TOKENS_PER_FRAME_MAX,
    VECTOR_FRAME_BYTES_MAX,
)
from assay_protocol.logprobs import LOGPROB_PAIR_BYTES
from assay_protocol.messages import Error
from assay_protocol.prompt_logprobs import entry_bytes
from assay_protocol.signing import ED25519, Signer, Verifier
from assay_protocol.streams import NodeStream, Times


@dataclass(frozen=True, slots=True)
class Settled:
    """What a job leaves: the signed receipt, the client's last ack, and how it ended."""

    ticket: bytes
    ticket_blob: bytes
    receipt: bytes
    ack: bytes | None
    finish: str
    n_out: int


@dataclass(slots=True)
class _Waiting:
    """Tokens drawn, or vectors of `vector_bytes`, but not yet sent; and the reason for the end if
    the last is among them."""

    vector_bytes: int
    tokens: list[int] = field(default_factory=list)
    logits: bytearray = field(default_factory=bytearray)
    sketches: bytearray = field(default_factory=bytearray)
    logprobs: bytearray = field(default_factory=bytearray)
    vectors: bytearray = field(default_factory=bytearray)
    prompt_logprobs: bytearray = field(default_factory=bytearray)  # sent at once: no window
    finish: str | None = None

    @property
    def count(self) -> int:
        if self.vector_bytes:
            return len(self.vectors) // self.vector_bytes
        return len(self.tokens)


class Service:
    """Serves one admitted job. After every call look at `settled` and `over`."""

    def __init__(
        self,
        now: int,
        stream: int,
        admitted: Admitted,
        *,
        signer: Signer,
        served: Served,
        parameters: Parameters,
        verifier: Verifier = ED25519,
    ) -> None:
        ticket, start = admitted.ticket, admitted.start
        self.stream, self.ticket = stream, ticket
        self.settled: Settled | None = None
        self.over = False
        self._admitted, self._served, self._parameters = admitted, served, parameters
        self._frames = NodeStream(ticket, start.nonce, signer, served.class_id, verifier)
        embeds = ticket.sampler.texts is not None
        self._waiting = _Waiting(FLOAT_BYTES * served.dims if embeds else 0)
        self._started_at = self._heard_at = self._drew_at = self._ended_at = now
        self._first_at: int | None = None
        self._lost = False
        asked = ticket.sampler.logprobs
        self._logprob_bytes = 0 if asked is None else LOGPROB_PAIR_BYTES * (1 + asked)  # a token
        self._told_bytes = entry_bytes(ticket.sampler)  # a prompt token
        self._sketch_bytes = 0 if holds_logprobs(served.class_id) else SKETCH_BYTES  # a token

    @property
    def running(self) -> bool:
        """Whether the engine may still be at work for it."""
        return self.settled is None and not self.over

    @property
    def n_out(self) -> int:
        """Tokens, or vectors, sent so far."""
        return self._frames.count

    @property
    def n_drawn(self) -> int:
        """Tokens sent so far; vectors are none."""
        return 0 if self._waiting.vector_bytes else self.n_out

    @property
    def pixels(self) -> int:
        """Bytes of images that it holds."""
        return pixel_bytes(self._admitted.start.images or ())

    @property
    def last_ack(self) -> bytes | None:
        """The client's newest signed acknowledgement."""
        return self._frames.last_ack

    def begin(self) -> list[Effect]:
        """Ask the engine for the answer."""
        ticket = self.ticket
        generate = Generate(
            prompt=self._admitted.prompt,
            start=ticket.start,
            max_tokens=ticket.max_tokens,
            sampler=ticket.sampler,
            seed=job_seed(ticket.seed_ticket, self._admitted.start.nonce),
            tenant=ticket.client,
            grammar=self._admitted.start.grammar,
            adapter=self._served.adapter,
            images=self._admitted.start.images or (),
        )
        return [StartGenerate(self.stream, generate, self._served.engine)]

    def drawn(self, now: int, chunk: Chunk) -> list[Effect]:
        """The engine's next tokens."""
        if not self.running:
            return []
        waiting = self._waiting
        if not self._fits(chunk):
            return self.cut("engine_failed", "the engine drew more than it was asked for")
        self._drew_at = now
        waiting.tokens.extend(chunk.tokens)
        waiting.logits += chunk.logits
        waiting.sketches += chunk.sketches
        waiting.logprobs += chunk.logprobs
        waiting.vectors += chunk.vectors
        waiting.prompt_logprobs += chunk.prompt_logprobs
        waiting.finish = chunk.finish
        return self._flow(now)

    def frame(self, now: int, frame: bytes) -> list[Effect]:
        """A frame of the client: an acknowledgement or a cancellation."""
        acked = self._frames.acked
        try:
            self._frames.receive(frame)
        except ProtocolError as error:
            return self._misbehaved(now, error)
        if self._frames.acked > acked:
            self._heard_at = now
        if not self.running:
            return self._close_if_acked()
        if self._frames.cancelled:
            return self._finish(now, "cancelled")
        return self._flow(now) if self._waiting.count else []

    def lost(self, now: int) -> list[Effect]:
        """The client is gone: what it got is owed all the same."""
        self._lost = True
        if not self.running:
            self.over = True
            return []
        effects = self._finish(now, "cancelled")
        self.over = True
        return effects

    def engine_stopped(self, code: str) -> list[Effect]:
        """The engine gave up: for a grammar or an image that no other node would read or a text
        that has no vector, or it failed."""
        if code in ("grammar_refused", "image_refused", "not_finite"):
            return self.cut(code)
        return self.cut("engine_failed", code)

    def cut(self, code: str, detail: str = "", retry_after_ms: int | None = None) -> list[Effect]:
        """End without a receipt; the error tells the client to resume elsewhere."""
        if not self.running:
            return []
        self.over = True
        text = detail[:TEXT_BYTES_MAX]
        frame = encode(Error(code=code, detail=text, retry_after_ms=retry_after_ms))
        return [
            StopGenerate(self.stream),
            SendFrame(self.stream, frame, last=True),
            CloseStream(self.stream),
        ]

    def tick(self, now: int) -> list[Effect]:
        """End what takes too long."""
        bounds = self._parameters
        if not self.running:
            if not self.over and now - self._ended_at >= bounds.final_ack_us:
                return self._close()
            return []
        if (
            self._waiting.count
            and now - max(self._heard_at, self._drew_at) >= bounds.slow_reader_us
        ):
            return self._finish(now, "slow_reader")
        if not self._waiting.count and now - self._drew_at >= bounds.stalled_us:
            return self.cut("engine_failed", "no token in time")
        return []

    def kept(self, now: int) -> Kept:
        """What an auditor may ask for later."""
        start = self._admitted.start
        frames = self._frames
        return Kept(
            self.ticket.ticket,
            start.nonce,
            start.prompt,
            frames.output,
            frames.leaves,
            now,
            start.grammar,
            frames.ends if self._waiting.vector_bytes else None,
            start.images or (),
        )

    def _fits(self, chunk: Chunk) -> bool:
        """Whether it is what was asked for and no more."""
        room = self.ticket.max_tokens - self.n_out - self._waiting.count
        if chunk.prompt_logprobs:
            most = self._told_bytes * self._frames.untold
            told = len(chunk.prompt_logprobs)
            whole = told <= most and told % self._told_bytes == 0
            return whole and chunk == Chunk((), b"", None, prompt_logprobs=chunk.prompt_logprobs)
        if self._frames.untold:
            return False
        if size := self._waiting.vector_bytes:
            vectors = len(chunk.vectors)
            return not chunk.tokens and vectors <= room * size and vectors % size == 0
        tokens = len(chunk.tokens)
        return (
            tokens <= room
            and not chunk.vectors
            and len(chunk.logits) == 4 * tokens
            and len(chunk.sketches) == self._sketch_bytes * tokens
            and len(chunk.logprobs) == self._logprob_bytes * tokens
        )

    def _flow(self, now: int) -> list[Effect]:
        """Send what there is room for; then finish or ask for more."""
        effects: list[Effect] = []
        waiting = self._waiting
        while waiting.prompt_logprobs:
            told = _cut(waiting.prompt_logprobs, self._told_bytes * TOKENS_PER_FRAME_MAX)
            effects.append(SendFrame(self.stream, self._frames.tell(told)))
        while waiting.count and (room := self._frames.room) > 0:
            if self._first_at is None:
                self._first_at = now
            effects.append(SendFrame(self.stream, self._next_frame(room)))
        if waiting.count:
            return effects
        if waiting.finish is not None:
            return effects + self._finish(now, waiting.finish)
        return [*effects, NextChunk(self.stream)]

    def _next_frame(self, room: int) -> bytes:
        """The first of those that wait, which wait no longer."""
        waiting = self._waiting
        if size := waiting.vector_bytes:
            most = min(room, VECTOR_FRAME_BYTES_MAX // size)
            return self._frames.vectors(_cut(waiting.vectors, most * size), self._served.dims)
        tokens = min(room, TOKENS_PER_FRAME_MAX)
        logits = _cut(waiting.logits, 4 * tokens)
        sketches = _cut(waiting.sketches, self._sketch_bytes * tokens)
        logprobs = _cut(waiting.logprobs, self._logprob_bytes * tokens)
        drawn = tuple(waiting.tokens[:tokens])
        del waiting.tokens[:tokens]
        return self._frames.chunk(drawn, logits, sketches, logprobs)

    def _finish(self, now: int, reason: str) -> list[Effect]:
        """Sign the receipt; tell the client unless it is gone."""
        assert self.running
        early = self._waiting.finish is None or bool(self._waiting.count)
        first_at = now if self._first_at is None else self._first_at
        first_at = max(first_at, self._started_at)  # clocks may step back, receipts must not
        self._ended_at = max(now, first_at)
        times = Times(self._started_at, first_at, self._ended_at)
        frame, receipt = self._frames.finish(reason, times)
        self.settled = Settled(
            ticket=self.ticket.ticket,
            ticket_blob=self._admitted.ticket_blob,
            receipt=receipt,
            ack=self.last_ack,
            finish=reason,
            n_out=self.n_out,
        )
        effects: list[Effect] = [StopGenerate(self.stream)] if early else []
        if not self._lost:
            effects.append(SendFrame(self.stream, frame, last=True))
        return effects

    def _misbehaved(self, now: int, error: ProtocolError) -> list[Effect]:
        """The client broke the protocol: tell it, and treat it as gone."""
        if not self.running:
            return self._close()
        self._lost = True
        effects = self._finish(now, "cancelled")
        frame = encode(Error(code=error.code, detail=error.message[:TEXT_BYTES_MAX]))
        return [*effects, SendFrame(self.stream, frame, last=True), *self._close()]

    def _close_if_acked(self) -> list[Effect]:
        return self._close() if self._frames.acked >= self.n_out and not self.over else []

    def _close(self) -> list[Effect]:
        self.over = True
        return [CloseStream(self.stream)]


def _cut(buffer: bytearray, size: int) -> bytes:
    """The first `size` bytes, taken out."""
    first = bytes(buffer[:size])
    del buffer[:size]
    return first
