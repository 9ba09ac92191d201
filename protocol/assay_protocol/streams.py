"""The token stream, sans I/O: one machine for the node's end and one for the client's.

Neither side can later claim another count: the node signs the running output hash every
CHECKPOINT_TOKENS tokens and at the end, the client signs acknowledgements of the same counts. The
node must not have more than UNACKED_TOKENS_MAX tokens unacknowledged. Any violation is a
ProtocolError and ends the stream; the machines hold no clock and do no I/O.

Node:   ready -> tell()* -> chunk()* -> finish()     receive() may come at any time
        (tell() only where the ticket asks for logprobs of the prompt, and then for all of it)
        (vectors()* in a job that embeds, whose counts are of vectors)
Client: start() -> receive()* -> finished      acknowledgements appear in the returned step
"""

from __future__ import annotations

from dataclasses import dataclass

from assay_protocol.codec import decode, encode
from assay_protocol.embeddings import VectorWriter, check_vectors
from assay_protocol.errors import CODES, ProtocolError, RemoteError
from assay_protocol.hashing import (
    OutputHash,
    leaf_hashes,
    pack_tokens,
    unpack_tokens,
)
from assay_protocol.leaves import LeafWriter, Leaves
from assay_protocol.limits import CHECKPOINT_TOKENS, UNACKED_TOKENS_MAX, VECTORS_BYTES_MAX
from assay_protocol.logprobs import TokenLogprobs, unpack_logprobs
from assay_protocol.messages import (
    Ack,
    Cancel,
    Error,
    Finished,
    Image,
    Progress,
    PromptChunk,
    Receipt,
    SendAck,
    StartJob,
    Ticket,
    TokenChunk,
    VectorChunk,
)
from assay_protocol.prompt_logprobs import PromptTelling
from assay_protocol.receipts import check_receipt
from assay_protocol.signing import ED25519, Signer, Verifier, open_signed, seal


@dataclass(frozen=True, slots=True)
class Times:
    """Microseconds since the epoch: job started, first token, end."""

    started_at: int
    first_at: int
    ended_at: int


class NodeStream:
    """The node's end: turns drawn tokens into frames, keeps counts, makes the receipt."""

    def __init__(
        self,
        ticket: Ticket,
        nonce: bytes,
        signer: Signer,
        class_id: str,
        verifier: Verifier = ED25519,
    ) -> None:
        self.ticket = ticket
        self.acked = 0
        self.last_ack: bytes | None = None
        self.cancelled = False
        self._nonce, self._signer, self._class_id = nonce, signer, class_id
        self._verifier = verifier
        self._vectors = _vector_writer(ticket, nonce)
        self._telling = PromptTelling(ticket, nonce)
        self._hash = OutputHash(ticket.ticket, nonce)
        self._signed_at = 0
        self._output = bytearray()
        self._leaves = LeafWriter(class_id)
        self._checkpoints: dict[int, bytes] = {0: self._hash.digest()}

    @property
    def count(self) -> int:
        """Tokens, or vectors, sent so far."""
        return self._running.count

    @property
    def room(self) -> int:
        """How many tokens may be sent before the client must acknowledge."""
        return UNACKED_TOKENS_MAX - (self.count - self.acked)

    @property
    def untold(self) -> int:
        """Prompt tokens whose logprobs must be told before the first token."""
        return self._telling.left

    @property
    def output(self) -> bytes:
        """The packed tokens. Vectors are not kept: leaves hold all that is asked for of them."""
        return bytes(self._output)

    @property
    def ends(self) -> tuple[bytes, ...]:
        """The running output hash at the end of every leaf."""
        if self._vectors is not None:
            return self._vectors.ends()
        return leaf_hashes(self.ticket.ticket, self._nonce, self.output)

    @property
    def leaves(self) -> Leaves:
        """What the receipt's root covers beside the tokens, or of the vectors."""
        return (self._vectors or self._leaves).leaves()

    @property
    def _running(self) -> OutputHash | VectorWriter:
        return self._vectors or self._hash

    def tell(self, logprobs: bytes) -> bytes:
        """The frame for packed `logprobs` of the prompt's next tokens."""
        return encode(self._telling.add(logprobs))

    def chunk(
        self, tokens: tuple[int, ...], logits: bytes, sketches: bytes = b"", logprobs: bytes = b""
    ) -> bytes:
        """The frame for freshly drawn `tokens`.

        Their f32 logits and sketches go to the leaves (LeafWriter), packed `logprobs` into the
        frame.
        """
        assert self.untold == 0, "the prompt is told of first"
        assert 0 < len(tokens) <= self.room, "the caller waits for room"
        assert len(logits) == 4 * len(tokens)
        position, packed = self.count, pack_tokens(tokens)
        self._hash.update(packed)
        self._output += packed
        self._leaves.add(logits, sketches)
        progress = self._progress_due()
        return encode(
            TokenChunk(
                position=position, tokens=packed, progress=progress, logprobs=logprobs or None
            )
        )

    def vectors(self, vectors: bytes, dims: int) -> bytes:
        """The frame for the next texts' vectors of a job that embeds."""
        assert self._vectors is not None, "the job draws tokens"
        assert 0 < check_vectors(vectors, dims) <= self.room, "the caller waits for room"
        position = self.count
        self._vectors.add(vectors, dims)
        progress = self._progress_due()
        chunk = VectorChunk(position=position, dims=dims, vectors=vectors, progress=progress)
        return encode(chunk)

    def receive(self, frame: bytes) -> None:
        """Take a frame from the client: an acknowledgement or a cancellation."""
        message = decode(frame)
        if message is None:
            return
        if isinstance(message, SendAck):
            self._take_ack(message.ack)
        elif isinstance(message, Cancel):
            self.cancelled = True
        else:
            raise ProtocolError("unexpected_message", type(message).__name__)

    def finish(self, reason: str, times: Times) -> tuple[bytes, bytes]:
        """The last frame and, for keeping, the signed receipt inside it."""
        receipt = Receipt(
            ticket=self.ticket.ticket,
            class_id=self._class_id,
            output_hash=self._running.digest(),
            root=self.leaves.root(self._class_id, self.ends),
            n_in=self.ticket.n_in,
            n_out=self.count,
            finish=reason,
            started_at=times.started_at,
            first_at=times.first_at,
            ended_at=times.ended_at,
            calibration=self.ticket.calibration,
            prompt_logprobs=self._telling.digest(),
        )
        self._checkpoints[self.count] = receipt.output_hash
        blob = seal(self._signer, receipt)
        return encode(Finished(receipt=blob)), blob

    def _progress_due(self) -> bytes | None:
        if self.count - self._signed_at < CHECKPOINT_TOKENS:
            return None
        self._signed_at = self.count
        self._checkpoints[self.count] = self._running.digest()
        return seal(
            self._signer,
            Progress(
                ticket=self.ticket.ticket,
                count=self.count,
                output_hash=self._checkpoints[self.count],
            ),
        )

    def _take_ack(self, blob: bytes) -> None:
        ack = open_signed(Ack, blob, self.ticket.client, self._verifier)
        if ack.ticket != self.ticket.ticket or ack.count < self.acked:
            raise ProtocolError("unexpected_message", "the acknowledgement goes back")
        if self._checkpoints.get(ack.count) != ack.output_hash:
            raise ProtocolError("unexpected_message", "the acknowledgement is of other tokens")
        self.acked, self.last_ack = ack.count, blob
        for count in [count for count in self._checkpoints if count < ack.count]:
            del self._checkpoints[count]


@dataclass(frozen=True, slots=True)
class ClientStep:
    """What one received frame meant: new tokens, a frame to send back, the receipt at the end.

    `logprobs` has an entry per token if the ticket asks for them; the node's word, not signed.
    `vectors` counts those that came. `prompt_logprobs` are of the prompt's next tokens.
    """

    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    reply: bytes | None = None
    receipt: Receipt | None = None
    vectors: int = 0
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()


class ClientStream:
    """The client's end: checks every frame, acknowledges, and accepts only a fitting receipt."""

    def __init__(
        self, ticket: Ticket, nonce: bytes, signer: Signer, verifier: Verifier = ED25519
    ) -> None:
        self.ticket = ticket
        self.last_progress: bytes | None = None
        self.receipt_blob: bytes | None = None
        self.tokens: list[int] = []
        self.vectors = bytearray()  # of a job that embeds; nobody's word before the receipt is here
        self.dims = 0
        self._nonce, self._signer, self._verifier = nonce, signer, verifier
        self._embedded = _vector_writer(ticket, nonce)
        self.told = bytearray()  # packed logprobs of the prompt, from its second token on
        self._telling = PromptTelling(ticket, nonce)
        self._prompt: tuple[int, ...] = ()  # where it is told of
        self._hash = OutputHash(ticket.ticket, nonce)
        self._signed_count = 0

    @property
    def signed_count(self) -> int:
        """Tokens covered by the node's last signature."""
        return self._signed_count

    def start(
        self,
        ticket_blob: bytes,
        prompt: bytes,
        grammar: bytes | None = None,
        images: tuple[Image, ...] = (),
    ) -> bytes:
        """The first frame."""
        if self._telling.wanted:
            self._prompt = unpack_tokens(prompt)
        return encode(
            StartJob(
                ticket=ticket_blob,
                nonce=self._nonce,
                prompt=prompt,
                grammar=grammar,
                images=images or None,
            )
        )

    def cancel(self) -> bytes:
        return encode(Cancel())

    def receive(self, frame: bytes) -> ClientStep:
        """Take one frame from the node. Raises RemoteError if it carries the node's refusal."""
        assert self.receipt_blob is None, "the stream is over"
        message = decode(frame)
        if message is None:
            return ClientStep()
        if isinstance(message, TokenChunk) and self._embedded is None:
            return self._take_tokens(message)
        if isinstance(message, VectorChunk) and self._embedded is not None:
            return self._take_vectors(message, self._embedded)
        if isinstance(message, PromptChunk):
            entries = self._telling.take(message, self._prompt)
            self.told += message.logprobs
            return ClientStep(prompt_logprobs=entries)
        if isinstance(message, Finished):
            return self._take_receipt(message.receipt)
        if isinstance(message, Error):
            raise remote_error(message)
        raise ProtocolError("unexpected_message", type(message).__name__)

    def _take_tokens(self, chunk: TokenChunk) -> ClientStep:
        tokens = unpack_tokens(chunk.tokens)
        if self._telling.left:
            raise ProtocolError("unexpected_message", "tokens before the prompt's logprobs")
        if chunk.position != len(self.tokens):
            raise ProtocolError("unexpected_message", "tokens out of order")
        if len(self.tokens) + len(tokens) > self.ticket.max_tokens:
            raise ProtocolError("oversized", "more tokens than the ticket allows")
        if len(self.tokens) + len(tokens) - self._signed_count > UNACKED_TOKENS_MAX:
            raise ProtocolError("unexpected_message", "the node stopped signing")
        logprobs = self._logprobs(chunk, tokens)
        ahead = self._hash.copy()
        ahead.update(chunk.tokens)
        if chunk.progress is not None:  # a frame that fails here leaves nothing behind
            progress = open_signed(Progress, chunk.progress, self.ticket.node, self._verifier)
            self._check_signed(progress.ticket, progress.count, progress.output_hash, ahead)
            self.last_progress, self._signed_count = chunk.progress, progress.count
        self._hash = ahead
        self.tokens.extend(tokens)
        return ClientStep(tokens, logprobs, None if chunk.progress is None else self._ack())

    def _take_vectors(self, chunk: VectorChunk, embedded: VectorWriter) -> ClientStep:
        if chunk.position != embedded.count or chunk.dims != (self.dims or chunk.dims):
            raise ProtocolError("unexpected_message", "vectors out of order, or of other sizes")
        vectors = check_vectors(chunk.vectors, chunk.dims)
        if embedded.count + vectors > self.ticket.max_tokens:
            raise ProtocolError("oversized", "more vectors than the ticket has texts")
        if len(self.vectors) + len(chunk.vectors) > VECTORS_BYTES_MAX:
            raise ProtocolError("oversized", "the vectors are too large")
        if embedded.count + vectors - self._signed_count > UNACKED_TOKENS_MAX:
            raise ProtocolError("unexpected_message", "the node stopped signing")
        self.dims = chunk.dims
        self.vectors += chunk.vectors
        embedded.add(chunk.vectors, chunk.dims)
        if chunk.progress is None:
            return ClientStep(vectors=vectors)
        progress = open_signed(Progress, chunk.progress, self.ticket.node, self._verifier)
        self._check_signed(progress.ticket, progress.count, progress.output_hash, embedded)
        self.last_progress, self._signed_count = chunk.progress, progress.count
        return ClientStep(vectors=vectors, reply=self._ack())

    def _logprobs(self, chunk: TokenChunk, tokens: tuple[int, ...]) -> tuple[TokenLogprobs, ...]:
        count = self.ticket.sampler.logprobs
        if count is None and chunk.logprobs is None:
            return ()
        if count is None:
            raise ProtocolError("unexpected_message", "logprobs nobody asked for")
        return unpack_logprobs(chunk.logprobs or b"", tokens, count)

    def _take_receipt(self, blob: bytes) -> ClientStep:
        receipt = open_signed(Receipt, blob, self.ticket.node, self._verifier)
        check_receipt(receipt, self.ticket)
        self._check_signed(receipt.ticket, receipt.n_out, receipt.output_hash, self._running)
        if receipt.prompt_logprobs != self._telling.digest():
            raise ProtocolError("receipt_mismatch", "the node signed for other logprobs")
        if self._embedded is not None:
            root = self._embedded.leaves().root(receipt.class_id, self._embedded.ends())
            if root != receipt.root:
                raise ProtocolError("receipt_mismatch", "the root is of other vectors")
        self.receipt_blob, self._signed_count = blob, receipt.n_out
        return ClientStep(reply=self._ack(), receipt=receipt)

    @property
    def _running(self) -> OutputHash | VectorWriter:
        return self._embedded or self._hash

    def _check_signed(
        self, ticket: bytes, count: int, output_hash: bytes, held: OutputHash | VectorWriter
    ) -> None:
        if ticket != self.ticket.ticket or (count, output_hash) != (held.count, held.digest()):
            raise ProtocolError("receipt_mismatch", "the node signed for other tokens")

    def _ack(self) -> bytes:
        ack = Ack(
            ticket=self.ticket.ticket,
            count=self._signed_count,
            output_hash=self._running.digest(),
        )
        return encode(SendAck(ack=seal(self._signer, ack)))


def _vector_writer(ticket: Ticket, nonce: bytes) -> VectorWriter | None:
    if ticket.sampler.texts is None:
        return None
    return VectorWriter(ticket.ticket, ticket.seed_ticket, nonce)


def remote_error(message: Error) -> RemoteError:
    """The peer's error as ours; a code we do not know is kept in the text."""
    if message.code in CODES:
        return RemoteError(message.code, message.detail, retry_after_ms=message.retry_after_ms)
    return RemoteError("internal", f"{message.code}: {message.detail}")
