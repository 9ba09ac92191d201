"""Where the images of a prompt stand, and into which pieces it must be cut for them. Pure.

llama.cpp takes tokens or embeddings in one decode, not both, so no piece crosses the border of an
image. One whose positions see each other (`whole`) is never cut at all.

What was computed of a part of an image is not reused for another job: the first numbers that spell
an image are few enough to be met by trying, all of them are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Seen:
    """A piece of an image: which of the job's images, and the first of the piece's positions."""

    number: int
    row: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Spans:
    """Each image takes `count` positions, from one of `begins` (ascending) on."""

    begins: tuple[int, ...] = ()
    count: int = 0
    whole: bool = False

    def piece(self, begin: int, end: int) -> tuple[int, Seen | None]:
        """How far a piece from `begin` goes, at most to `end` (a whole image: to its own end), and
        what it shows; None: tokens of the vocabulary."""
        assert begin <= end
        for number, first in enumerate(self.begins):
            if begin < first:
                return min(end, first), None
            last = first + self.count
            if begin < last:
                assert begin == first or not self.whole, "cut through an image"
                seen = Seen(number, begin - first, self.whole)
                return (last if self.whole else min(end, last)), seen
        return end, None

    def outside(self, length: int) -> int:
        """The most of the first `length` tokens that do not end within an image."""
        inside = (first for first in self.begins if first < length < first + self.count)
        return next(inside, length)


NO_IMAGES: Final = Spans()
