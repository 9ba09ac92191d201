"""What a decode costs, learned from those that were made. Pure: times are passed in.

A decode takes its rows through the weights in one or more passes (`passes`). What a pass of so many
rows takes is no straight line - kernels work on several rows at once - so it is kept for each
number of rows, relative to a scale that all share: a busier machine, or longer texts, move that.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

ROWS_MAX: Final = 256  # passes of more rows are not learned from
SECONDS_LEAST: Final = 1e-9  # shorter, and a clock tells it from nothing no more
_SCALE_SHARE: Final = 0.2  # of what was mispredicted, the scale takes so much at once,
_ROWS_SHARE: Final = 0.1  # and so much those rows, or more while they were seen seldom
_RATIO_MAX: Final = 2.0  # the most that one decode may be off: others use the machine, too;
_NOISE_SHARE: Final = 0.05
_RATIO_MAX_NEW: Final = 16.0  # where nothing was known yet


def passes(feeds: Iterable[tuple[int, int]]) -> list[int]:
    """The rows of each pass of a decode of `feeds`: slots, ascending, and the tokens of each.

    With a KV stream for each sequence llama.cpp takes sequences of successive numbers together, as
    many tokens of each as the shortest of them has (`split_equal` in llama-batch.cpp).
    """
    return [len(slots) * length for slots, length in _passes(feeds)]


def lonely(feeds: Iterable[tuple[int, int]]) -> list[int]:
    """The slots of which some pass takes one row and no other slot's: one pass of each at most."""
    return [slots[0] for slots, length in _passes(feeds) if len(slots) == length == 1]


def _passes(feeds: Iterable[tuple[int, int]]) -> Iterator[tuple[list[int], int]]:
    """The slots of each pass, and how many rows it takes of each of them."""
    left = list(feeds)
    while left:
        first = left[0][0]
        run = 1
        while run < len(left) and left[run][0] == first + run:
            run += 1
        length = min(tokens for _, tokens in left[:run])
        yield [slot for slot, _ in left[:run]], length
        rest = [(slot, tokens - length) for slot, tokens in left[:run] if tokens > length]
        left = rest + left[run:]


class DecodeCosts:
    """Seconds by rows. Nothing is known at first, and `seconds` may not be asked then."""

    def __init__(self) -> None:
        self.noise = 0.0  # by how much decodes are mispredicted lately, in shares of what they take
        self._scale = 0.0
        self._rows: list[int] = []  # those seen, ascending
        self._weights: dict[int, float] = {}  # by rows, in scales
        self._seen: dict[int, int] = {}

    @property
    def known(self) -> bool:
        return bool(self._rows)

    def seconds(self, rows: Sequence[int]) -> float:
        """What passes of so many rows each should take."""
        return self._scale * sum(map(self._weight, rows))

    def seen(self, rows: Sequence[int]) -> int:
        """How often the least known of these passes was learned from."""
        return min(self._seen.get(count, 0) for count in rows)

    def took(self, rows: Sequence[int], seconds: float) -> None:
        """Learn that these passes together took so long."""
        if seconds < SECONDS_LEAST or max(rows) > ROWS_MAX:
            return
        if not self.known:
            self._scale = seconds / sum(rows)
        most = _RATIO_MAX if self.seen(rows) else _RATIO_MAX_NEW
        off = min(max(seconds / self.seconds(rows), 1.0 / most), most) - 1.0
        if self.seen(rows):
            self.noise += _NOISE_SHARE * (abs(off) - self.noise)
            self._scale *= 1.0 + _SCALE_SHARE * off
        for count in set(rows):
            weight, seen = self._weight(count), self._seen.get(count, 0)
            if not seen:
                insort(self._rows, count)
            self._weights[count] = weight * (1.0 + max(_ROWS_SHARE, 1.0 / (1 + seen)) * off)
            self._seen[count] = seen + 1

    def _weight(self, count: int) -> float:
        """Between two known ones a straight line; beyond the largest, as much a row as it takes."""
        known = self._weights.get(count)
        if known is not None:
            return known
        if not self._rows:
            return float(count)
        place = bisect_left(self._rows, count)
        if place == len(self._rows):
            most = self._rows[-1]
            return self._weights[most] * count / most
        above = self._rows[place]
        if place == 0:
            return self._weights[above]
        below = self._rows[place - 1]
        share = (count - below) / (above - below)
        return self._weights[below] + share * (self._weights[above] - self._weights[below])
