"""What a node shows of each token's logits: eight differences of logits at tokens nobody chose.

For an answer position the seed picks sixteen tokens of the vocabulary; the sketch is the eight
differences of their logits, in eight signed bytes and a half-precision step. A difference of two
logits is the final hidden state projected on the difference of two rows of the output layer, so a
sketch is a random projection of the hidden state that costs sixteen look-ups, and no run of the
output layer that sampling would not need (docs/decisions/0006-logit-sketches.md has the measured
power beside projections of hidden states). Two engines' sketches differ by their arithmetic's
noise; of another model, prompt, quantization or cache they differ by several times that.

The seed is known before the answer, yet helps no forger: what it asks for is the model's output.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from assay_protocol.errors import ProtocolError
from assay_protocol.limits import LEAF_TOKENS, SKETCH_BYTES

DIMENSIONS: Final = 8
_STEPS: Final = 127  # of a signed byte
_PERSON: Final = b"assay sketch"
_ROW: Final = np.dtype([("steps", "i1", (DIMENSIONS,)), ("step", "<f2")])
_GAP_LEAST: Final = 0.01  # logits
_GAP_RATIO: Final = 1.03

assert _ROW.itemsize == SKETCH_BYTES


def sketch_tokens(seed: bytes, position: int, n_vocab: int) -> NDArray[np.int64]:
    """The sixteen token ids asked for at an output position: int64[16], in pairs."""
    return _tokens_of_rows([seed], [position], n_vocab).reshape(2 * DIMENSIONS)


def sketch_rows(
    logits: NDArray[np.float32], seeds: Sequence[bytes], positions: Sequence[int]
) -> bytes:
    """The sketches of float32[rows, vocabulary], row i of the job of seeds[i] at positions[i]."""
    asked = _tokens_of_rows(seeds, positions, logits.shape[1])
    return sketch(logits[np.arange(len(logits))[:, None], asked])


def sketch(values: NDArray[np.float32]) -> bytes:
    """SKETCH_BYTES for each row of float32[rows, 16]: the logits at `sketch_tokens`, raw."""
    apart = np.subtract(values[:, ::2], values[:, 1::2], dtype=np.float64)
    rows = np.empty(len(values), _ROW)
    rows["step"] = np.abs(apart).max(axis=1) / _STEPS
    step = rows["step"].astype(np.float64)
    step[step == 0.0] = np.inf  # what is flatter than a step can say is flat
    apart /= step[:, None]
    np.rint(apart, out=apart)
    np.maximum(apart, -_STEPS, out=apart)
    rows["steps"] = np.minimum(apart, _STEPS, out=apart)
    return rows.tobytes()


def leaf_distances(theirs: bytes, ours: bytes) -> tuple[float, ...]:
    """For each leaf, how far `theirs` is from `ours`, as a share of the length of `ours`.

    sum |a_j - b_j| / sum |b_j| over the leaf's tokens j. Infinite where `theirs` has a step that is
    no finite number; raises ProtocolError if `ours` has, or the two differ in length.
    """
    if len(theirs) != len(ours) or len(ours) % SKETCH_BYTES:
        raise ProtocolError("malformed", "one sketch for each token")
    check_finite(ours)
    with np.errstate(invalid="ignore"):
        b = _unpack(ours)
        apart, long = _lengths(_unpack(theirs) - b), _lengths(b)
    apart[~np.isfinite(apart)] = math.inf
    starts = np.arange(0, len(b), LEAF_TOKENS)
    if not len(starts):
        return ()
    far, near = np.add.reduceat(apart, starts), np.add.reduceat(long, starts)
    return tuple(
        float(x / y) if y else (0.0 if x == 0 else math.inf) for x, y in zip(far, near, strict=True)
    )


def leaf_count(sketches: bytes) -> int:
    """Leaves begun by the tokens that these are the sketches of."""
    return -(-len(sketches) // (SKETCH_BYTES * LEAF_TOKENS))


def check_finite(sketches: bytes) -> None:
    """Raise ProtocolError unless these are whole sketches whose steps are finite numbers."""
    if len(sketches) % SKETCH_BYTES:
        raise ProtocolError("malformed", "one sketch for each token")
    if not np.isfinite(np.frombuffer(sketches, _ROW)["step"]).all():
        raise ProtocolError("malformed", "a sketch's step is no finite number")


def gap_code(gap: float) -> int:
    """A gap in logits as one byte, on a scale that grows by 3 %: 0 is below 0.01, 255 over 18."""
    if not gap >= _GAP_LEAST:
        return 0
    steps = math.log(min(gap, 1e3) / _GAP_LEAST) / math.log(_GAP_RATIO)
    return min(255, 1 + int(steps))


def gap_of(code: int) -> float:
    """The least gap, in logits, that has this code."""
    return _GAP_LEAST * _GAP_RATIO ** (code - 1) if code else 0.0


def _tokens_of_rows(
    seeds: Sequence[bytes], positions: Sequence[int], n_vocab: int
) -> NDArray[np.int64]:
    """int64[rows, 16]."""
    digests = [
        hashlib.blake2b(
            position.to_bytes(8, "little"), key=seed, person=_PERSON, digest_size=64
        ).digest()
        for seed, position in zip(seeds, positions, strict=True)
    ]
    words = np.frombuffer(b"".join(digests), "<u4").astype(np.uint64)
    words *= np.uint64(n_vocab)
    words >>= np.uint64(32)
    return words.astype(np.int64).reshape(-1, 2 * DIMENSIONS)


def _unpack(sketches: bytes) -> NDArray[np.float64]:
    rows = np.frombuffer(sketches, _ROW)
    return rows["steps"].astype(np.float64) * rows["step"].astype(np.float64)[:, None]


def _lengths(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """As np.linalg.norm(rows, axis=1) has them, bit for bit, without its search for a way."""
    lengths: NDArray[np.float64] = np.sqrt(np.add.reduce(rows * rows, axis=1))
    return lengths
