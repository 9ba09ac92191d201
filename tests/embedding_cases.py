"""Vectors of arbitrary numbers, and tickets of jobs that embed."""

from __future__ import annotations

from math import hypot
from random import Random
from struct import pack
from typing import Any

from assay_protocol.embeddings import embedding_sampler
from assay_protocol.hashing import pack_tokens, prompt_hash
from assay_protocol.messages import Ticket
from protocol_cases import NONCE, make_ticket

DIMS = 24


def some_vectors(count: int, seed: int = 0, dims: int = DIMS) -> bytes:
    """Packed, each of length 1."""
    numbers, rows = Random(seed), b""
    for _ in range(count):
        row = [numbers.gauss(0, 1) for _ in range(dims)]
        length = hypot(*row)
        rows += pack(f"<{dims}f", *(number / length for number in row))
    return rows


def embedding_ticket(texts: int, **changes: Any) -> Ticket:
    """Of texts of one, two, three, one, ... tokens."""
    lengths = [1 + number % 3 for number in range(texts)]
    prompt = tuple(range(sum(lengths)))
    fields: dict[str, Any] = {
        "sampler": embedding_sampler(lengths),
        "n_in": len(prompt),
        "max_tokens": texts,
        "prompt_hash": prompt_hash(NONCE, pack_tokens(prompt)),
        "start": 0,
        "price_out": 0,
    }
    return make_ticket(**(fields | changes))
