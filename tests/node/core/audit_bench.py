"""One audit of the bench's job number one: its task, its transcript, what an auditor says first."""

from __future__ import annotations

from typing import Any

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.sealing import NaclSealing
from assay_protocol.codec import encode
from assay_protocol.hashing import OutputHash, pack_tokens
from assay_protocol.messages import (
    AuditAccept,
    AuditReveal,
    AuditTask,
    Image,
    RevealRequest,
    Transcript,
    TranscriptBody,
)
from node.core.node_bench import END, MODEL, NOW, SECOND, Bench, make_ticket, nonce_of

AUDIT = b"audit number one"
PROMPT, OUTPUT = (5, 6, 7), (11, 12, 13, 14, 15, END)


def task(output: tuple[int, ...] = OUTPUT, audit: bytes = AUDIT, **changes: Any) -> AuditTask:
    ticket = make_ticket(1)
    running = OutputHash(ticket.ticket, nonce_of(1))
    running.update(pack_tokens(output))
    fields: dict[str, Any] = {
        "audit": audit,
        "ticket": ticket.ticket,
        "seed_ticket": ticket.seed_ticket,
        "model": MODEL,
        "sampler": ticket.sampler,
        "max_tokens": ticket.max_tokens,
        "start": 0,
        "n_in": 3,
        "n_out": len(output),
        "prompt_hash": ticket.prompt_hash,
        "nonce_commitment": ticket.nonce_commitment,
        "output_hash": running.digest(),
        "finish": "stop",
        "deadline_at": NOW + 60 * SECOND,
    }
    return AuditTask(**(fields | changes))


def tell(bench: Bench, message: object) -> list[do.Effect]:
    return bench.post(on.Noticed(encode(message)))


def accept(bench: Bench, asked: AuditTask) -> bytes:
    [answer] = bench.notices(tell(bench, asked))
    assert isinstance(answer, AuditAccept)
    return answer.box_key


def sealed(
    box_key: bytes,
    nonce: bytes | None = None,
    prompt: tuple[int, ...] = PROMPT,
    output: tuple[int, ...] = OUTPUT,
    audit: bytes = AUDIT,
    grammar: bytes | None = None,
    images: tuple[Image, ...] | None = None,
) -> Transcript:
    body = TranscriptBody(
        nonce=nonce or nonce_of(1),
        prompt=pack_tokens(prompt),
        output=pack_tokens(output),
        grammar=grammar,
        images=images,
    )
    return Transcript(audit=audit, sealed=NaclSealing().seal(encode(body), box_key))


def revealed(bench: Bench) -> AuditReveal:
    [reveal] = bench.notices(tell(bench, RevealRequest(audit=AUDIT)))
    assert isinstance(reveal, AuditReveal)
    return reveal
