"""Where all chance in a simulation comes from: one root seed, and a stream for each name.

A stream is fixed by the root seed and its own name, so that one more draw in one of them never
shifts another: a scenario with an extra fault has the same arrivals and the same nodes.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import sqrt
from typing import Final, TypeVar

from assay_protocol.elementary import cosine_of_turn, gamma, log, power

_T = TypeVar("_T")
_WORD: Final = (1 << 64) - 1
ROOT_MAX: Final = (1 << 63) - 1  # of a root seed


class Stream:
    """Draws of one name: the same on every Python and CPU, and small, as each node has one."""

    __slots__ = ("_state",)

    def __init__(self, key: bytes) -> None:
        self._state = int.from_bytes(key[:8], "big")

    def word(self) -> int:
        """64 bits (SplitMix64: Steele, Lea and Flood 2014)."""
        self._state = state = (self._state + 0x9E3779B97F4A7C15) & _WORD
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & _WORD
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & _WORD
        return state ^ state >> 31

    def uniform(self) -> float:
        """In [0, 1), with 53 bits."""
        return (self.word() >> 11) * 2.0**-53

    def chance(self, share: float) -> bool:
        """True so often. Draws nothing where the share is 0 or 1."""
        if share <= 0.0 or share >= 1.0:
            return share >= 1.0
        return self.uniform() < share

    def below(self, bound: int) -> int:
        """An integer in [0, bound); the bias of 2^-64 is nobody's gain."""
        assert bound > 0
        return self.word() % bound

    def exponential(self, mean: float) -> float:
        return -mean * log(1.0 - self.uniform())

    def gamma(self, mean: float, shape: float) -> float:
        """Of that mean; the coefficient of variation is 1 / sqrt(shape) (Marsaglia, Tsang 2000)."""
        if shape < 1.0:
            lift = power(1.0 - self.uniform(), 1.0 / shape)
            return self.gamma(mean * (shape + 1.0) / shape, shape + 1.0) * lift
        d = shape - 1.0 / 3.0
        c = 1.0 / sqrt(9.0 * d)
        while True:
            x = self.normal()
            v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x)
            u = 1.0 - self.uniform()
            if v > 0.0 and log(u) < 0.5 * x * x + d - d * v + d * log(v):
                return mean * d * v / shape

    def normal(self) -> float:
        """Of mean 0 and deviation 1 (Box and Muller's first)."""
        radius = sqrt(-2.0 * log(1.0 - self.uniform()))
        return radius * cosine_of_turn(self.uniform())

    def weibull(self, mean: float, shape: float) -> float:
        scale = mean / gamma(1.0 + 1.0 / shape)
        return scale * power(-log(1.0 - self.uniform()), 1.0 / shape)

    def pareto(self, mean: float, shape: float) -> float:
        """Of that mean; `shape` is above 1."""
        least = mean * (shape - 1.0) / shape
        return least / power(1.0 - self.uniform(), 1.0 / shape)

    def pick(self, items: Sequence[_T]) -> _T:
        return items[self.below(len(items))]


class Shares:
    """Names by weight, to be drawn many times."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """`weights`: one at least, none negative, not all zero."""
        self.names = tuple(weights)
        self._upto = list(accumulate(weights.values()))
        assert self._upto[-1] > 0

    def draw(self, stream: Stream) -> str:
        at = bisect_right(self._upto, stream.uniform() * self._upto[-1])
        return self.names[min(at, len(self.names) - 1)]


class Zipf:
    """Integers 1..most, the k-th as likely as k^-exponent."""

    def __init__(self, most: int, exponent: float) -> None:
        self._upto = list(accumulate(power(k, -exponent) for k in range(1, most + 1)))

    def draw(self, stream: Stream) -> int:
        at = bisect_right(self._upto, stream.uniform() * self._upto[-1])
        return min(at + 1, len(self._upto))


class Streams:
    """All streams of one root seed."""

    def __init__(self, root: int) -> None:
        assert 0 <= root <= ROOT_MAX
        self._root = root.to_bytes(8, "big")

    def stream(self, name: str) -> Stream:
        """The stream of that name, from its start."""
        return Stream(self.secret(name))

    def secret(self, name: str) -> bytes:
        """32 bytes of that name: keys and cores' entropy."""
        return hashlib.blake2b(name.encode(), key=self._root, digest_size=32).digest()
