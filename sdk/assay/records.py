"""What a client keeps of an answer so that it can prove, alone and later, what it was given.

A record holds the texts the receipt's salted hashes stand for, so it is as private as the prompt:
files are made with mode 0600 and nothing here is ever sent. A file is a row of records, each with
its length in front (u32, big-endian), only ever appended to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack

from assay.events import Job, Segment
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.hashing import pack_tokens, unpack_tokens
from assay_protocol.images import pack_images
from assay_protocol.limits import (
    GRAMMAR_BYTES_MAX,
    IMAGES_BYTES_MAX,
    IMAGES_MAX,
    OUTPUT_TOKENS_MAX,
    PROMPT_LOGPROBS_BYTES_MAX,
    PROMPT_TOKENS_MAX,
    VECTORS_BYTES_MAX,
)
from assay_protocol.messages import Receipt, Route, Standing, Ticket, TicketGrant
from assay_protocol.signing import peek
from assay_protocol.tickets import job_price

RECORD_FORMAT: Final = "assay-receipt-1"
SIGNED_BYTES_MAX: Final = 2_048
GRANT_BYTES_MAX: Final = SIGNED_BYTES_MAX + 1_024
OUTPUT_BYTES_MAX: Final = max(4 * OUTPUT_TOKENS_MAX, VECTORS_BYTES_MAX)
IMAGES_PACKED_MAX: Final = IMAGES_BYTES_MAX + 8 * IMAGES_MAX
RECORD_BYTES_MAX: Final = (
    4 * PROMPT_TOKENS_MAX
    + OUTPUT_BYTES_MAX
    + 2 * SIGNED_BYTES_MAX
    + GRAMMAR_BYTES_MAX
    + GRANT_BYTES_MAX
    + PROMPT_LOGPROBS_BYTES_MAX
    + IMAGES_PACKED_MAX
    + 512
)
_LENGTH_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRecord:
    """One node's part of an answer: both signed blobs, and the preimages of their hashes.

    `coordinator` is the 32-byte key the ticket was accepted under; `prompt` and `output` are packed
    tokens (little-endian u32 each), `grammar` packed, if the answer had one. `grant` is the encoded
    TicketGrant as far as it says what spoke for the node; the coordinator did not sign that part.
    Where the ticket's sampler has texts, `output` is their vectors (little-endian f32).
    `prompt_logprobs` are those that the node told, packed, from the prompt's second token on.
    `images` are those that the prompt spells, packed (images.pack_images): without their pixels
    nobody can replay the answer.
    """

    coordinator: bytes
    ticket: bytes
    receipt: bytes
    nonce: bytes
    prompt: bytes
    output: bytes
    grammar: bytes | None = None
    grant: bytes | None = None
    prompt_logprobs: bytes = b""
    images: bytes = b""

    @property
    def standing(self) -> Standing | None:
        """What the coordinator said of the node when it gave the ticket."""
        return None if self.grant is None else decode_as(TicketGrant, self.grant).standing

    @property
    def credit(self) -> int:
        """What it costs, in micro-credits: all that its node signed for."""
        return job_price(peek(Ticket, self.ticket), peek(Receipt, self.receipt).n_out)

    @property
    def prompt_tokens(self) -> tuple[int, ...]:
        return unpack_tokens(self.prompt)

    @property
    def output_tokens(self) -> tuple[int, ...]:
        return unpack_tokens(self.output)

    def encode(self) -> bytes:
        """Canonical bytes; `decode` gives the record back."""
        fields = [self.coordinator, self.ticket, self.receipt, self.nonce, self.prompt, self.output]
        more = [self.grammar or b"", self.grant or b"", self.prompt_logprobs, self.images]
        while more and not more[-1]:
            more.pop()
        fields += more
        data: bytes = msgpack.packb([RECORD_FORMAT, *fields])
        return data

    @classmethod
    def decode(cls, data: bytes) -> ReceiptRecord:
        """The record in `data`; raises ProtocolError("malformed") for anything else."""
        _require(len(data) <= RECORD_BYTES_MAX, "the record is too large")
        try:
            raw: Any = msgpack.unpackb(data)
        except Exception as error:  # msgpack raises a dozen kinds; each means bytes of no record
            raise ProtocolError("malformed", "not a receipt record") from error
        _require(type(raw) is list and 7 <= len(raw) <= 11, "not a receipt record")
        _require(raw[0] == RECORD_FORMAT, "not a receipt record of a known format")
        _require(all(type(part) is bytes for part in raw[1:]), "a field is not bytes")
        sizes = (
            (32, 32),
            (65, SIGNED_BYTES_MAX),
            (65, SIGNED_BYTES_MAX),
            (32, 32),
            (4, 4 * PROMPT_TOKENS_MAX),
            (0, OUTPUT_BYTES_MAX),
            (0 if len(raw) > 8 else 1, GRAMMAR_BYTES_MAX),
            (0 if len(raw) > 9 else 1, GRANT_BYTES_MAX),
            (0 if len(raw) > 10 else 1, PROMPT_LOGPROBS_BYTES_MAX),
            (1, IMAGES_PACKED_MAX),
        )
        for part, (least, most) in zip(raw[1:], sizes, strict=False):
            _require(least <= len(part) <= most, "a field has a wrong size")
        _require(len(raw[5]) % 4 == 0 and len(raw[6]) % 4 == 0, "token bytes must come in fours")
        record = cls(
            coordinator=raw[1],
            ticket=raw[2],
            receipt=raw[3],
            nonce=raw[4],
            prompt=raw[5],
            output=raw[6],
            grammar=(raw[7] or None) if len(raw) > 7 else None,
            grant=(raw[8] or None) if len(raw) > 8 else None,
            prompt_logprobs=raw[9] if len(raw) > 9 else b"",
            images=raw[10] if len(raw) > 10 else b"",
        )
        if record.grant is not None:
            granted = decode_as(TicketGrant, record.grant).ticket
            _require(granted == record.ticket, "the grant is of another ticket")
        _require(record.encode() == data, "not in canonical form")
        return record


class ReceiptStore:
    """An append-only file of records; what a crash left half-written is cut off when opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists():
            data = path.read_bytes()
            whole = _whole_bytes(data)
            if whole < len(data):
                os.truncate(path, whole)

    def append(self, records: Iterable[ReceiptRecord]) -> None:
        """Durable when it returns; raises AssayError("storage_failed")."""
        data = b"".join(_framed(record) for record in records)
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(file, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise AssayError("storage_failed", str(error)) from error


def record_of(segment: Segment, job: Job, coordinator: bytes) -> ReceiptRecord | None:
    """What is kept of a node's share of the answer to `job`; None if it left no receipt."""
    if segment.receipt is None:
        return None
    return ReceiptRecord(
        coordinator=coordinator,
        ticket=segment.ticket,
        receipt=segment.receipt,
        nonce=job.nonce,
        prompt=pack_tokens(segment.prompt),
        output=segment.vectors or pack_tokens(segment.tokens),
        grammar=job.grammar,
        grant=grant_of(segment),
        prompt_logprobs=segment.prompt_logprobs,
        images=pack_images(job.images),
    )


def grant_of(segment: Segment) -> bytes | None:
    """A record's `grant` for a segment: the grant as it came, without the node's addresses."""
    if segment.standing is None:
        return None
    route = Route(node=peek(Ticket, segment.ticket).node, addresses=())
    return encode(TicketGrant(ticket=segment.ticket, route=route, standing=segment.standing))


def read_records(data: bytes) -> tuple[ReceiptRecord, ...]:
    """All records of a file's bytes; raises ProtocolError("malformed") if any of it is not one."""
    records = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        at += _LENGTH_BYTES
        _require(0 < size <= min(RECORD_BYTES_MAX, len(data) - at), "a record is cut short")
        records.append(ReceiptRecord.decode(data[at : at + size]))
        at += size
    _require(bool(records), "the file is empty")
    return tuple(records)


def write_records(records: Sequence[ReceiptRecord]) -> bytes:
    """The bytes of a file that `read_records` reads."""
    return b"".join(_framed(record) for record in records)


def _framed(record: ReceiptRecord) -> bytes:
    data = record.encode()
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def _whole_bytes(data: bytes) -> int:
    """Length of the longest start of `data` that is whole records, by their lengths."""
    at = 0
    while at + _LENGTH_BYTES <= len(data):
        end = at + _LENGTH_BYTES + int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        if end > len(data):
            break
        at = end
    return at


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise ProtocolError("malformed", complaint)
