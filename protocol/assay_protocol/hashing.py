"""The hashes that bind a job: prompt, nonce, seed, running output, leaves, commitment.

All are BLAKE2b-256 with a personalization of their own, so no hash of one kind can pass for
another. Prompt, grammar and output hashes are salted with the client's nonce: the coordinator holds
them but cannot test guesses of a short prompt against them (invariant S3).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from assay_protocol.errors import ProtocolError
from assay_protocol.limits import LEAF_TOKENS, SKETCH_BYTES

_PROMPT: Final = b"assay prompt"
_GRAMMAR: Final = b"assay grammar"
_NONCE: Final = b"assay nonce"
_SEED: Final = b"assay seed"
_OUTPUT: Final = b"assay output"
_LEAF: Final = b"assay leaf"
_RAW: Final = b"assay raw"
_VECTORS: Final = b"assay vectors"
TOLD: Final = b"assay told"
_BRANCH: Final = b"assay branch"
_COMMIT: Final = b"assay commit"


def pack_tokens(tokens: Sequence[int]) -> bytes:
    """Little-endian u32 each."""
    return struct.pack(f"<{len(tokens)}I", *tokens)


def unpack_tokens(data: bytes) -> tuple[int, ...]:
    """The tokens in `data`; raises ProtocolError unless its length is a multiple of 4."""
    if len(data) % 4:
        raise ProtocolError("malformed", "token bytes must come in fours")
    return struct.unpack(f"<{len(data) // 4}I", data)


def unpack_logits(data: bytes) -> tuple[float, ...]:
    """The f32 values in `data`; raises ProtocolError unless its length is a multiple of 4."""
    if len(data) % 4:
        raise ProtocolError("malformed", "logit bytes must come in fours")
    return struct.unpack(f"<{len(data) // 4}f", data)


def prompt_hash(nonce: bytes, prompt: bytes) -> bytes:
    """Of the packed prompt tokens."""
    return _blake(_PROMPT, nonce, prompt)


def grammar_hash(nonce: bytes, grammar: bytes) -> bytes:
    """Of a packed grammar (grammars.pack_grammar): it can tell as much as a prompt."""
    return _blake(_GRAMMAR, nonce, grammar)


def nonce_commitment(nonce: bytes) -> bytes:
    return _blake(_NONCE, nonce)


def job_seed(seed_ticket: bytes, nonce: bytes) -> bytes:
    """The seed of the sampler's noise.

    The ticket id is the coordinator's choice and unique to one job on one node; the nonce is the
    client's, committed before the node is known. The node can steer neither, and no two nodes
    ever share a seed, so no answer can be copied.
    """
    return _blake(_SEED, seed_ticket, nonce)


def commitment(nonce: bytes, reveal: bytes) -> bytes:
    """An auditor's commitment to the encoded reveal body."""
    return _blake(_COMMIT, nonce, reveal)


class RunningHash:
    """Of what one ticket's node told so far, of the kind `person`, salted with the nonce."""

    __slots__ = ("_hash",)

    def __init__(self, person: bytes, ticket: bytes, nonce: bytes) -> None:
        self._hash = hashlib.blake2b(ticket + nonce, digest_size=32, person=person)

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def digest(self) -> bytes:
        return self._hash.digest()


class OutputHash:
    """Running hash of an answer; `digest()` may be taken at any count."""

    __slots__ = ("_hash", "count")

    def __init__(self, ticket: bytes, nonce: bytes) -> None:
        self._hash = hashlib.blake2b(ticket + nonce, digest_size=32, person=_OUTPUT)
        self.count = 0

    def copy(self) -> OutputHash:
        """A second hash that goes on from here, for tokens not accepted yet."""
        twin = OutputHash.__new__(OutputHash)
        twin._hash, twin.count = self._hash.copy(), self.count
        return twin

    def update(self, packed: bytes, size: int = 4) -> None:
        """Add packed tokens, or vectors of `size` bytes each."""
        assert len(packed) % size == 0
        self._hash.update(packed)
        self.count += len(packed) // size

    def digest(self) -> bytes:
        return self._hash.digest()


def leaf_hash(index: int, output_hash: bytes, logits: bytes) -> bytes:
    """One leaf: up to 16 tokens, bound through the running hash after them, and their logits."""
    return _blake(_LEAF, index.to_bytes(4, "little"), output_hash, logits)


def leaf_hashes(ticket: bytes, nonce: bytes, output: bytes) -> tuple[bytes, ...]:
    """The running output hash at the end of every leaf of the packed `output`."""
    running = OutputHash(ticket, nonce)
    step = 4 * LEAF_TOKENS
    ends = []
    for at in range(0, len(output), step):
        running.update(output[at : at + step])
        ends.append(running.digest())
    return tuple(ends)


def raw_hashes(logits: bytes) -> tuple[bytes, ...]:
    """A digest of each leaf's packed raw f32 logits of drawn tokens: equal only bit for bit."""
    step = 4 * LEAF_TOKENS
    return tuple(_blake(_RAW, logits[at : at + step]) for at in range(0, len(logits), step))


def vectors_hash(nonce: bytes, vectors: bytes) -> bytes:
    """A digest of a leaf's packed vectors. Salted: vectors follow from the texts alone, so without
    the nonce whoever has the model could try texts against it (invariant S3)."""
    return _blake(_VECTORS, nonce, vectors)


def sketched_root(hashes: Sequence[bytes], raws: Sequence[bytes], sketches: bytes) -> bytes:
    """Merkle root over leaves of (running hash, digest of raw logits, sketches)."""
    step = SKETCH_BYTES * LEAF_TOKENS
    if len(sketches) % SKETCH_BYTES or not len(hashes) == len(raws) == -(-len(sketches) // step):
        raise ProtocolError("malformed", "leaves, digests and sketches do not match in number")
    leaves = [
        _blake(_LEAF, i.to_bytes(4, "little"), end, raw, sketches[i * step : (i + 1) * step])
        for i, (end, raw) in enumerate(zip(hashes, raws, strict=True))
    ]
    return _blake(_BRANCH, (len(sketches) // SKETCH_BYTES).to_bytes(4, "little"), _merkle(leaves))


def leaves_root(hashes: Sequence[bytes], logits: bytes) -> bytes:
    """The same over leaves of logprobs, in classes ending in /L. No tokens have a root too."""
    step = 4 * LEAF_TOKENS
    if len(hashes) != -(-len(logits) // step):
        raise ProtocolError("malformed", "leaves and logits do not match in number")
    leaves = [leaf_hash(i, h, logits[i * step : (i + 1) * step]) for i, h in enumerate(hashes)]
    return _blake(_BRANCH, len(logits).to_bytes(4, "little"), _merkle(leaves))


def _merkle(level: list[bytes]) -> bytes:
    if not level:
        return bytes(32)
    while len(level) > 1:
        odd = (
            [level[-1]] if len(level) % 2 else []
        )  # an odd node rises as it is, never paired twice
        level = [_blake(_BRANCH, a, b) for a, b in zip(level[::2], level[1::2], strict=False)] + odd
    return level[0]


def _blake(person: bytes, *parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(_framed(parts)), digest_size=32, person=person).digest()


def _framed(parts: Iterable[bytes]) -> Iterable[bytes]:
    for part in parts:
        yield len(part).to_bytes(4, "little")
        yield part
