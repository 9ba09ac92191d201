"""The numbers behind an answer that its receipt's root binds, leaf by leaf (spec/sketches.md).

A leaf of 16 tokens holds a digest of their raw logits, equal only where the arithmetic is, and a
sketch of each token's logits, close wherever the model is the same. Where another server computes
(classes ending in /L) nothing but logprobs is known, and a leaf holds those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from assay_protocol.classes import holds_logprobs
from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import leaves_root, raw_hashes, sketched_root
from assay_protocol.limits import LEAF_TOKENS, SKETCH_BYTES
from assay_protocol.messages import LeavesOpened, Receipt

_RAW_BYTES: Final = 4
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Leaves:
    """The first tokens' numbers: `raws` and `sketches`, or `logits` where those are logprobs."""

    raws: bytes = b""  # 32 bytes for every 16 tokens begun
    sketches: bytes = b""  # SKETCH_BYTES a token
    logits: bytes = b""  # f32 each

    @property
    def size(self) -> int:
        """Bytes held."""
        return len(self.raws) + len(self.sketches) + len(self.logits)

    def check(self, class_id: str, tokens: int) -> None:
        """Raise ProtocolError("malformed") unless these are what `tokens` of this class have."""
        if holds_logprobs(class_id):
            expected = (0, 0, _RAW_BYTES * tokens)
        else:
            digests = -(-tokens // LEAF_TOKENS)
            expected = (_DIGEST_BYTES * digests, SKETCH_BYTES * tokens, 0)
        if (len(self.raws), len(self.sketches), len(self.logits)) != expected:
            raise ProtocolError("malformed", "the leaves hold something else")

    def root(self, class_id: str, hashes: Sequence[bytes]) -> bytes:
        """The receipt's root, with the running output hash at the end of each leaf.

        Raises ProtocolError if the numbers and the hashes are not of equally many leaves.
        """
        if holds_logprobs(class_id):
            return leaves_root(hashes, self.logits)
        return sketched_root(hashes, digests(self.raws), self.sketches)


def leaves_of(logits: bytes, sketches: bytes) -> Leaves:
    """Of the raw f32 logits of the first tokens and their sketches, all at once."""
    return Leaves(b"".join(raw_hashes(logits)), sketches)


def opened_root(opened: LeavesOpened, receipt: Receipt) -> bytes:
    """The root of opened leaves of this receipt's answer; ProtocolError if they are not its."""
    hashes = digests(opened.hashes)
    if hashes and hashes[-1] != receipt.output_hash:
        raise ProtocolError("receipt_mismatch", "the leaves are of another answer")
    leaves = Leaves(opened.raws or b"", opened.sketches or b"", opened.logits)
    leaves.check(receipt.class_id, receipt.n_out)
    return leaves.root(receipt.class_id, hashes)


def digests(data: bytes) -> list[bytes]:
    """Digests that stand one after the other; ProtocolError unless they are whole."""
    if len(data) % _DIGEST_BYTES:
        raise ProtocolError("malformed", "a digest has 32 bytes")
    return [data[at : at + _DIGEST_BYTES] for at in range(0, len(data), _DIGEST_BYTES)]


class LeafWriter:
    """Takes the numbers as they come, and keeps no more of them than the leaves will hold.

    That is SKETCH_BYTES + 2 bytes a token, and at most one leaf of raw logits.
    """

    def __init__(self, class_id: str) -> None:
        self._logprobs = holds_logprobs(class_id)
        self._raws, self._sketches, self._logits = bytearray(), bytearray(), bytearray()

    def add(self, logits: bytes, sketches: bytes) -> None:
        """The next tokens' f32 logits (logprobs in a class /L) and, but there, their sketches."""
        assert len(logits) % _RAW_BYTES == 0
        tokens = len(logits) // _RAW_BYTES
        assert len(sketches) == (0 if self._logprobs else SKETCH_BYTES * tokens)
        self._logits += logits
        self._sketches += sketches
        if self._logprobs:
            return
        whole = len(self._logits) - len(self._logits) % (_RAW_BYTES * LEAF_TOKENS)
        if whole:
            self._raws += b"".join(raw_hashes(bytes(self._logits[:whole])))
            del self._logits[:whole]

    def leaves(self) -> Leaves:
        """Of all that was added."""
        if self._logprobs:
            return Leaves(logits=bytes(self._logits))
        last = b"".join(raw_hashes(bytes(self._logits)))
        return Leaves(bytes(self._raws) + last, bytes(self._sketches))
