"""What a node can still show of its answers, in memory only, and the executor's side of audits.

A transcript (nonce, prompt, grammar, images, answer) opens an answer to an auditor, and the leaves
beside it what the receipt's root covers. It never touches a disk: prompts belong to clients. Bounds
are count, bytes and age; past them the node must admit `transcript_lost`, so the age bound is
longer than the coordinator takes to draw and audit. Images are large: a job with some is refused
where keeping them would push out answers that may still be drawn (`pixels_room`), or a few clients
could make an honest node lose what it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from assay_node.core.parameters import Parameters
from assay_node.core.sealing import Sealing
from assay_protocol.codec import encode
from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import leaf_hashes
from assay_protocol.images import pixel_bytes
from assay_protocol.leaves import Leaves
from assay_protocol.limits import FRAME_BYTES_MAX
from assay_protocol.messages import (
    AuditDecline,
    Image,
    LeavesOpened,
    OpenLeaves,
    Transcript,
    TranscriptBody,
    TranscriptRequest,
)


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer: packed tokens, what the leaves hold of them, and the client's nonce.

    Of vectors nothing is kept but what leaves hold and, in `ends`, the running hash at their ends.
    """

    ticket: bytes
    nonce: bytes
    prompt: bytes
    output: bytes
    leaves: Leaves
    kept_at: int
    grammar: bytes | None = None
    ends: tuple[bytes, ...] | None = None
    images: tuple[Image, ...] = ()

    @property
    def size(self) -> int:
        """Bytes held, near enough."""
        given = len(self.prompt) + len(self.grammar or b"") + pixel_bytes(self.images)
        return given + len(self.output) + self.leaves.size + 256


class Transcripts:
    """Answers by ticket, oldest out first."""

    __slots__ = ("_bytes", "_kept", "_parameters", "_sealing")

    def __init__(self, parameters: Parameters, sealing: Sealing) -> None:
        self._parameters, self._sealing = parameters, sealing
        self._kept: dict[bytes, Kept] = {}  # oldest first
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, kept: Kept) -> None:
        """Add an answer and let the oldest go until the bounds hold."""
        assert kept.ticket not in self._kept, "a ticket runs once"
        self._kept[kept.ticket] = kept
        self._bytes += kept.size
        self.expire(kept.kept_at)

    def pixels_room(self, now: int, held: int) -> int:
        """Bytes of jobs with images that may come now, beside the `held` ones of those that run:
        what is free, and what old answers would make so."""
        bounds = self._parameters
        room = bounds.transcript_bytes_max - self._bytes - held
        for kept in self._kept.values():
            if room >= FRAME_BYTES_MAX or now - kept.kept_at <= bounds.prove_us:
                break
            room += kept.size
        return max(0, room)

    def expire(self, now: int) -> None:
        """Let go of answers that are too old or too many."""
        bounds = self._parameters
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if (
                len(self._kept) <= bounds.transcripts_max
                and self._bytes <= bounds.transcript_bytes_max
                and now - oldest.kept_at <= bounds.transcript_age_us
            ):
                return
            del self._kept[oldest.ticket]
            self._bytes -= oldest.size

    def seal(self, request: TranscriptRequest) -> Transcript | AuditDecline:
        """The answer to the coordinator: sealed, so that only the auditor can read it."""
        kept = self._kept.get(request.ticket)
        if kept is None:
            return AuditDecline(audit=request.audit, code="transcript_lost")
        body = TranscriptBody(
            nonce=kept.nonce,
            prompt=kept.prompt,
            output=kept.output,
            grammar=kept.grammar,
            images=kept.images or None,
        )
        try:
            sealed = self._sealing.seal(encode(body), request.box_key)
        except ProtocolError as error:
            return AuditDecline(audit=request.audit, code=error.code)
        return Transcript(audit=request.audit, sealed=sealed)

    def open_leaves(self, request: OpenLeaves) -> LeavesOpened | AuditDecline:
        """The preimages of the receipt's leaves."""
        kept = self._kept.get(request.ticket)
        if kept is None:
            return AuditDecline(audit=request.audit, code="transcript_lost")
        leaves, ends = kept.leaves, kept.ends
        if ends is None:
            ends = leaf_hashes(kept.ticket, kept.nonce, kept.output)
        return LeavesOpened(
            audit=request.audit,
            hashes=b"".join(ends),
            logits=leaves.logits,
            raws=None if leaves.logits else leaves.raws,
            sketches=None if leaves.logits else leaves.sketches,
        )
