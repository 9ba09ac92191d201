"""The noise of a draw: Philox words addressed by (seed, position, token), made standard Gumbel.

Two roads to the same numbers: token by token for the few a filter leaves, and block by block (one
Philox block has the words of four tokens) where much of the vocabulary is in play. There words
alone tell who can win: the noise they stand for grows with them, and logarithms are dear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
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
    flat = tokens.astype(np.int64).ravel()
    return noise_of_rows([seed], [position], [flat]).reshape(tokens.shape)


def noise_of_rows(
    seeds: Sequence[bytes], positions: Sequence[int], rows: Sequence[NDArray[np.int64]]
) -> Reals:
    """`gumbel` of each of `rows` at its position under its seed, one after the other."""
    tokens = np.concatenate(rows) if len(rows) > 1 else rows[0]
    sizes = [len(row) for row in rows]
    words: Words | HalfWords
    if len(tokens) <= _FEW:
        words = _words_of_few(seeds, positions, sizes, tokens >> 2)
    else:
        counter = np.zeros((4, len(tokens)), np.uint64)
        counter[0] = np.repeat(np.array(positions, np.uint64), sizes)
        counter[2] = tokens >> 2
        words = philox(counter, np.repeat(keys(seeds), sizes, axis=1))
    return gumbel_of(words[tokens & 3, np.arange(len(tokens))])


def keys(seeds: Sequence[bytes]) -> Words:
    """uint64[2, len(seeds)]: the two key words of each seed."""
    assert all(len(seed) == SEED_BYTES for seed in seeds)
    joined = b"".join([seed[:8] for seed in seeds])
    return np.frombuffer(joined, "<u4").astype(np.uint64).reshape(-1, 2).T


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
    steps = _ADDED.reshape(_ROUNDS, 2, *(1,) * (key.ndim - 1))
    multipliers = _FACTORS.reshape(2, *(1,) * len(shape))
    product = np.empty((2, *shape), "<u8")
    halves = product.view("<u4").reshape(2, *shape, 2)[::-1]  # low, high
    for added in key.astype(np.uint32) + steps:
        np.multiply(multipliers, factors, out=product)
        even = halves[..., 1] ^ odd
        even ^= added
        factors[:] = even
        odd = halves[..., 0].copy()
    out = np.empty((4, *shape), np.uint32)
    out[::2], out[1::2] = even, odd
    return out


def _words_of_few(
    seeds: Sequence[bytes],
    positions: Sequence[int],
    sizes: Sequence[int],
    blocks: NDArray[np.int64],
) -> Words:
    """uint64[4, n]: what `philox` gives, in less time for few `blocks` than an array call takes.

    One integer holds all lanes, 64 bits each: no product of 32 bits by 32 runs into the next one.
    """
    assert all(len(seed) == SEED_BYTES for seed in seeds)
    low, step_a, step_b = _lanes(len(blocks))
    key_a = _lane([seed[:4] + _ZEROS for seed in seeds], sizes)
    key_b = _lane([seed[4:8] + _ZEROS for seed in seeds], sizes)
    even_a = _lane([position.to_bytes(8, "little") for position in positions], sizes)
    even_b = int.from_bytes(blocks.astype("<i8", copy=False).tobytes(), "little")
    odd_a = odd_b = 0
    for _ in range(_ROUNDS):
        a, b = even_a * _MULTIPLIERS[0], even_b * _MULTIPLIERS[1]
        even_a, odd_a = (b >> 32 & low) ^ odd_a ^ key_a, b & low
        even_b, odd_b = (a >> 32 & low) ^ odd_b ^ key_b, a & low
        key_a, key_b = key_a + step_a & low, key_b + step_b & low
    size = 8 * len(blocks)
    words = [word.to_bytes(size, "little") for word in (even_a, odd_a, even_b, odd_b)]
    return np.frombuffer(b"".join(words), "<u8").reshape(4, -1)


def _lane(words: Sequence[bytes], sizes: Sequence[int]) -> int:
    """Each of 8-byte `words` in as many lanes as its row has tokens."""
    lanes = [word * size for word, size in zip(words, sizes, strict=True)]
    return int.from_bytes(b"".join(lanes), "little")


@cache  # of at most _FEW + 1 sizes
def _lanes(count: int) -> tuple[int, ...]:
    """2^32 - 1 and what is added to the two words of the key, in each of `count` lanes."""
    one = int.from_bytes(b"\1\0\0\0\0\0\0\0" * count, "little")
    return one * _LOW, one * _WEYL[0], one * _WEYL[1]


_ROUNDS: Final = 10
_WORDS_ROUNDED: Final = 4  # more than the rounding of noise can be off by, in words
_ZEROS: Final = bytes(4)
_LOW: Final = 0xFFFFFFFF
_FEW: Final = 128  # tokens up to which integers are quicker than arrays
_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)  # added to the key after each round
_FACTORS: Final = np.array(_MULTIPLIERS, np.uint64)
_ADDED: Final = np.array([[n * step & _LOW for step in _WEYL] for n in range(_ROUNDS)], np.uint32)


def gumbel_of(words: HalfWords | Words) -> Reals:
    """The noise each word stands for; a larger word never stands for less."""
    uniform = (words.astype(np.float64) + 0.5) * 2.0**-32
    noise: Reals = -np.log(-np.log(uniform))
    return noise
