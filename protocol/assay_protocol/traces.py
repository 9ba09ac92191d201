"""Which trace a job belongs to, and its spans' names: everybody can derive them from its tickets.

So one trace goes through client, coordinator, node and auditor, and no message carries a header for
it. A resumed job and a quorum's second drawing share their first ticket's seed and so their trace.
Ids are hashes: who sees them in a tool learns no ticket. They prove nothing, and nothing but
traces is made of them.
"""

from __future__ import annotations

import hashlib
from typing import Final

# Spans of one job, and whose child each is. "replay" has the audit's id in the place of a ticket.
JOB: Final = "job"  # the client's, from asking for a ticket to the receipt; of the seed's ticket
BOOKING: Final = "booking"  # the coordinator's, from the ticket to the booked receipt
ANSWER: Final = "answer"  # a node's, from the job's stream to its receipt
QUEUE: Final = "queue"  # within an answer, until an engine begins
PREFILL: Final = "prefill"  # until the first token
DECODE: Final = "decode"  # until the last
AUDIT: Final = "audit"  # the coordinator's, from the draw to the verdict
REPLAY: Final = "replay"  # an auditor's, from the task to what it found
PARENTS: Final = {
    JOB: None,
    BOOKING: JOB,
    ANSWER: JOB,
    QUEUE: ANSWER,
    PREFILL: ANSWER,
    DECODE: ANSWER,
    AUDIT: JOB,
    REPLAY: AUDIT,
}


def trace_id(seed_ticket: bytes) -> int:
    """128 bits, never 0, of the ticket that a job's seed is made of."""
    return _number(b"assay trace", 16, seed_ticket)


def span_id(name: str, ticket: bytes) -> int:
    """64 bits, never 0, of one of the spans above; of a ticket, or an audit's id."""
    return _number(b"assay span", 8, name.encode() + b"\0" + ticket)


def _number(kind: bytes, size: int, data: bytes) -> int:
    digest = hashlib.blake2b(data, digest_size=size, person=kind).digest()
    return int.from_bytes(digest, "big") or 1
