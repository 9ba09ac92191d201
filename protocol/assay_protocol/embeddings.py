"""Jobs that embed: some texts in, a vector for each out, and what the receipt's root binds of them.

Such a job is any other job whose answer is vectors in the place of tokens (spec/embeddings.md):
counts, signatures, leaves and audits run over vectors. All that a leaf holds follows from the
vectors alone, so whoever has those, the client first of all, recomputes the root; an auditor
computes its own. Free of numpy, so that receipts are checked with the base install.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate, pairwise
from typing import Final

from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import OutputHash, job_seed, vectors_hash
from assay_protocol.leaves import Leaves
from assay_protocol.limits import DIMS_MAX, LEAF_TOKENS, TEXTS_MAX, VECTORS_BYTES_MAX
from assay_protocol.messages import Sampler

FLOAT_BYTES: Final = 4
LENGTH_OFF_MAX: Final = 1e-3  # of 1: honest ones are off by the rounding of their numbers, 1e-7
_PAIRS: Final = 8  # as of logits (sketches.py)
_STEPS: Final = 127
_PERSON: Final = b"assay sketch"


def embedding_sampler(lengths: Sequence[int]) -> Sampler:
    """What a ticket says of a job that embeds texts of so many tokens each."""
    return Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, texts=tuple(lengths))


def check_texts(sampler: Sampler, n_in: int, max_tokens: int) -> None:
    """Raise ProtocolError("sampler_refused") unless a job that embeds asks for nothing else.

    Its texts must be the whole prompt, `max_tokens` their number, and all settings of draws off.
    """
    texts = sampler.texts
    if texts is None:
        return
    if sampler != embedding_sampler(texts):
        raise ProtocolError("sampler_refused", "a job that embeds draws nothing")
    if sum(texts) != n_in or len(texts) != max_tokens:
        raise ProtocolError("sampler_refused", "the texts are not the prompt, or not as many")


def longest(sampler: Sampler, n_in: int, max_tokens: int) -> int:
    """Tokens that must fit the model's context at once: the longest text, or prompt and answer."""
    return n_in + max_tokens if sampler.texts is None else max(sampler.texts)


def split_texts(prompt: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """The texts that stand in `prompt` one after the other."""
    ends = list(accumulate(lengths, initial=0))
    return [tuple(prompt[a:b]) for a, b in pairwise(ends)]


def texts_per_job(dims: int) -> int:
    """How many vectors of `dims` numbers one answer may have."""
    return min(TEXTS_MAX, VECTORS_BYTES_MAX // (FLOAT_BYTES * dims))


def vector_dims(vectors: bytes, count: int) -> int:
    """Numbers in each of `count` packed vectors; ProtocolError("malformed") if there are none."""
    dims, rest = divmod(len(vectors), FLOAT_BYTES * count) if count else (0, 0)
    if rest or not 1 <= dims <= DIMS_MAX:
        raise ProtocolError("malformed", "vectors must be whole")
    return dims


def check_vectors(vectors: bytes, dims: int) -> int:
    """How many vectors these are. ProtocolError("malformed") unless all have the length 1."""
    row = FLOAT_BYTES * dims
    if not vectors or len(vectors) % row:
        raise ProtocolError("malformed", "vectors must be whole")
    for numbers in struct.iter_unpack(f"<{dims}f", vectors):
        if not abs(math.hypot(*numbers) - 1.0) <= LENGTH_OFF_MAX:  # false for NaN, too
            raise ProtocolError("malformed", "a vector must have the length 1")
    return len(vectors) // row


class VectorWriter:
    """Takes the vectors of a job as they come and keeps what the leaves hold of them.

    That is SKETCH_BYTES + 4 bytes a vector, and the vectors of one leaf at most.
    """

    def __init__(self, ticket: bytes, seed_ticket: bytes, nonce: bytes) -> None:
        """`ticket` and `seed_ticket`: the ids of the job's Ticket; `nonce`: its client's."""
        self._hash = OutputHash(ticket, nonce)
        self._nonce, self._seed = nonce, job_seed(seed_ticket, nonce)
        self._leaf = bytearray()  # the one begun
        self._raws, self._sketches = bytearray(), bytearray()
        self._ends: list[bytes] = []

    @property
    def count(self) -> int:
        """Vectors taken."""
        return self._hash.count

    def digest(self) -> bytes:
        """The running output hash."""
        return self._hash.digest()

    def add(self, vectors: bytes, dims: int) -> None:
        """The next ones, which `check_vectors` lets pass, all of the same `dims`."""
        row = FLOAT_BYTES * dims
        for at in range(0, len(vectors), row):
            vector = vectors[at : at + row]
            self._sketches += vector_sketch(vector, self._seed, self.count)
            self._hash.update(vector, row)
            self._leaf += vector
            if self.count % LEAF_TOKENS == 0:
                self._raws += vectors_hash(self._nonce, bytes(self._leaf))
                self._ends.append(self.digest())
                self._leaf.clear()

    def ends(self) -> tuple[bytes, ...]:
        """The running output hash at the end of each leaf, the last one maybe not full."""
        return (*self._ends, self.digest()) if self._leaf else tuple(self._ends)

    def leaves(self) -> Leaves:
        """Of all that was added."""
        last = vectors_hash(self._nonce, bytes(self._leaf)) if self._leaf else b""
        return Leaves(bytes(self._raws) + last, bytes(self._sketches))


def vector_sketch(vector: bytes, seed: bytes, position: int) -> bytes:
    """Eight differences of the vector's numbers at places that the seed picks, SKETCH_BYTES long.

    Bit for bit what sketches.sketch_rows makes of it in the place of a row of logits.
    """
    dims = len(vector) // FLOAT_BYTES
    digest = blake2b(position.to_bytes(8, "little"), key=seed, person=_PERSON, digest_size=64)
    numbers = struct.unpack(f"<{dims}f", vector)
    asked = [numbers[word * dims >> 32] for word in struct.unpack("<16I", digest.digest())]
    apart = [a - b for a, b in zip(asked[::2], asked[1::2], strict=True)]
    packed = struct.pack("<e", max(map(abs, apart)) / _STEPS)
    (step,) = struct.unpack("<e", packed)
    steps = [0] * _PAIRS
    if step:
        steps = [min(_STEPS, max(-_STEPS, round(one / step))) for one in apart]
    return struct.pack(f"<{_PAIRS}b", *steps) + packed
