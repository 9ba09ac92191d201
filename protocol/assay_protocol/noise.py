"""The noise of a draw: Philox words addressed by (seed, position, token), made standard Gumbel.

Two roads to the same numbers: token by token for the few a filter leaves, and block by block (one
Philox block has the words of four tokens) where much of the vocabulary is in play.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

SEED_BYTES: Final = 32
GUMBEL_MOST: Final = 22.88  # the largest there is: -ln(-ln(1 - 2^-33)) is 22.8739

Reals = NDArray[np.float64]
Words = NDArray[np.uint64]


def gumbel(seed: bytes, position: int, tokens: NDArray[np.integer]) -> Reals:
    """Standard Gumbel noise of `tokens` at `position`, same shape as `tokens`.

    u = (word + 1/2) / 2^32 is in (0, 1), where word is lane `token & 3` of Philox4x32-10 with key
    seed[0:8] (two little-endian words) and counter (position, 0, token >> 2, 0).
    """
    wide = tokens.astype(np.uint64)
    key = keys([seed]).reshape(2, *(1,) * wide.ndim)
    return noise_at(key, np.full_like(wide, position), wide)


def keys(seeds: Sequence[bytes]) -> Words:
    """uint64[2, len(seeds)]: the two key words of each seed."""
    assert all(len(seed) == SEED_BYTES for seed in seeds)
    joined = b"".join(seed[:8] for seed in seeds)
    return np.frombuffer(joined, "<u4").astype(np.uint64).reshape(-1, 2).T


def noise_at(key: Words, positions: Words, tokens: Words) -> Reals:
    """Noise of each of `tokens` at its own position under its own key (uint64[2, ...])."""
    counter = np.zeros((4, *tokens.shape), np.uint64)
    counter[0] = positions
    counter[2] = tokens >> _TWO
    lanes = (tokens & _LANE).astype(np.intp)
    return _gumbel_of(np.take_along_axis(philox(counter, key), lanes[None], axis=0)[0])


def noise_of_many(seed: bytes, position: int, tokens: NDArray[np.int64]) -> Reals:
    """`gumbel` of ascending `tokens`, each of their blocks computed once."""
    key = keys([seed])
    of_token = tokens >> 2
    first = np.empty(len(tokens), np.bool_)
    first[:1] = True
    np.not_equal(of_token[1:], of_token[:-1], out=first[1:])
    blocks = of_token[first].astype(np.uint64)
    counter = np.zeros((4, len(blocks)), np.uint64)
    counter[0], counter[2] = position, blocks
    words = philox(counter, key)
    return _gumbel_of(words[tokens & 3, np.cumsum(first) - 1])


def philox(counter: Words, key: Words) -> Words:
    """Philox4x32-10 (Salmon et al., SC 2011): uint64[4, ...] of 32-bit words from counter and key.

    `counter` is uint64[4, ...] and `key` uint64[2, ...] (broadcast), all below 2^32.
    """
    even, odd = counter[::2], counter[1::2]
    multipliers = _MULTIPLIERS.reshape(2, *(1,) * (counter.ndim - 1))
    weyl = _WEYL.reshape(2, *(1,) * (key.ndim - 1))
    for _ in range(_ROUNDS):
        product = multipliers * even
        even = (product >> _HALF)[::-1] ^ odd ^ key
        odd = (product & _LOW)[::-1]
        key = (key + weyl) & _LOW
    out = np.empty(np.broadcast_shapes(counter.shape, (4, *even.shape[1:])), np.uint64)
    out[::2], out[1::2] = even, odd
    return out


_ROUNDS: Final = 10
_TWO: Final = np.uint64(2)
_LANE: Final = np.uint64(3)
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)
_MULTIPLIERS: Final = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_WEYL: Final = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)


def _gumbel_of(words: Words) -> Reals:
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-32
    noise: Reals = -np.log(-np.log(uniform))
    return noise
