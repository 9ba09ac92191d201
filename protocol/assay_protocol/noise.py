"""The noise of a draw: Philox words addressed by (seed, position, token), made standard Gumbel.

Two roads to the same numbers: token by token for the few a filter leaves, and block by block (one
Philox block has the words of four tokens) where much of the vocabulary is in play. There words
alone tell who can win: the noise they stand for grows with them, and logarithms are dear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

SEED_BYTES: Final = 32
GUMBEL_MOST: Final = 22.88  # the largest there is: -ln(-ln(1 - 2^-33)) is 22.8739

_GUMBEL_LEAST: Final = -3.2  # -ln(-ln(2^-33)) is -3.129

Reals = NDArray[np.float64]
Words = NDArray[np.uint64]
HalfWords = NDArray[np.uint32]


def gumbel(seed: bytes, position: int, tokens: NDArray[np.integer]) -> Reals:
    """Standard Gumbel noise of `tokens` at `position`, same shape as `tokens`.

    u = (word + 1/2) / 2^32 is in (0, 1), where word is lane `token & 3` of Philox4x32-10 with key
    seed[0:8] (two little-endian words) and counter (position, 0, token >> 2, 0).
    """
    flat = tokens.astype(np.uint64).ravel()
    return noise_at(keys([seed]), position, flat).reshape(tokens.shape)


def keys(seeds: Sequence[bytes]) -> Words:
    """uint64[2, len(seeds)]: the two key words of each seed."""
    assert all(len(seed) == SEED_BYTES for seed in seeds)
    joined = b"".join([seed[:8] for seed in seeds])
    return np.frombuffer(joined, "<u4").astype(np.uint64).reshape(-1, 2).T


def noise_at(key: Words, positions: Words | int, tokens: Words) -> Reals:
    """Noise of each of uint64[n] `tokens` at its position under its key, uint64[2, n or 1]."""
    counter = np.zeros((4, len(tokens)), np.uint64)
    counter[0] = positions
    counter[2] = tokens >> _TWO
    lanes = (tokens & _LANE).astype(np.intp)
    return gumbel_of(philox(counter, key)[lanes, np.arange(len(tokens))])


def words_of_many(seed: bytes, position: int, tokens: NDArray[np.int64]) -> HalfWords:
    """The words `gumbel` is made of, of ascending `tokens`, each of their blocks computed once."""
    of_token = tokens >> 2
    first = np.empty(len(tokens), np.bool_)
    first[:1] = True
    np.not_equal(of_token[1:], of_token[:-1], out=first[1:])
    blocks = of_token[first]
    counter = np.zeros((4, len(blocks)), np.uint64)
    counter[0], counter[2] = position, blocks
    words: HalfWords = philox(counter, keys([seed]))[tokens & 3, np.cumsum(first) - 1]
    return words


def words_of_all(seed: bytes, position: int, count: int) -> HalfWords:
    """The words of tokens 0, 1, ... `count` - 1."""
    counter = np.zeros((4, -(-count // 4)), np.uint64)
    counter[0], counter[2] = position, np.arange(counter.shape[1])
    return philox(counter, keys([seed])).T.ravel()[:count]


def least_word(noise: float) -> int:
    """No word below this one gives as much as `noise`; at most a few above it do not, either."""
    if noise < _GUMBEL_LEAST:
        return 0
    return max(0, math.floor(math.exp(-math.exp(-noise)) * 2.0**32) - _WORDS_ROUNDED)


def philox(counter: Words, key: Words) -> HalfWords:
    """Philox4x32-10 (Salmon et al., SC 2011): uint32[4, ...] words from counter and key.

    `counter` is uint64[4, ...] and `key` uint64[2, ...] (broadcast), all below 2^32.
    """
    shape = np.broadcast_shapes(counter.shape[1:], key.shape[1:])
    factors = np.empty((2, *shape), np.uint64)
    factors[:] = counter[::2]
    odd = np.empty((2, *shape), np.uint32)
    odd[:] = counter[1::2]
    weyl = _WEYL.reshape(_ROUNDS, 2, *(1,) * (key.ndim - 1))
    multipliers = _MULTIPLIERS.reshape(2, *(1,) * len(shape))
    product = np.empty((2, *shape), "<u8")
    halves = product.view("<u4").reshape(2, *shape, 2)[::-1]  # low, high
    for added in key.astype(np.uint32) + weyl:
        np.multiply(multipliers, factors, out=product)
        even = halves[..., 1] ^ odd
        even ^= added
        factors[:] = even
        odd = halves[..., 0].copy()
    out = np.empty((4, *shape), np.uint32)
    out[::2], out[1::2] = even, odd
    return out


_ROUNDS: Final = 10
_TWO: Final = np.uint64(2)
_LANE: Final = np.uint64(3)
_WORDS_ROUNDED: Final = 4  # more than the rounding of noise can be off by, in words
_MULTIPLIERS: Final = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
# What is added to the key before each round.
_WEYL: Final = np.array(
    [[(n * 0x9E3779B9) % 2**32, (n * 0xBB67AE85) % 2**32] for n in range(_ROUNDS)], np.uint32
)


def gumbel_of(words: HalfWords) -> Reals:
    """The noise each word stands for; a larger word never stands for less."""
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-32
    noise: Reals = -np.log(-np.log(uniform))
    return noise
