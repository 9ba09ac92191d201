"""Which block a follower reads next, and which it takes back: by hash, so forks cannot mix.

It keeps the newest blocks it told of. A block follows only if its parent is the newest kept one;
whatever the chain no longer holds is taken back, newest first, before anything new is told. A fork
deeper than what is kept is told as such and nothing is guessed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from assay_contracts.records import Block

KEPT_MAX: Final = 64
FETCH_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Mark:
    """A block by number and hash."""

    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Polled:
    """Follow up to this block's number."""

    upto: int


@dataclass(frozen=True, slots=True)
class Read:
    """The chain's blocks from `first` on, fewer than asked for at its end."""

    first: int
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read blocks; answer with `Read`. `compare`: only their hashes are of interest."""

    first: int
    count: int
    compare: bool = False


@dataclass(frozen=True, slots=True)
class Forward:
    """The next block."""

    block: Block


@dataclass(frozen=True, slots=True)
class Back:
    """The newest block told of is no longer the chain's."""

    mark: Mark


@dataclass(frozen=True, slots=True)
class Lost:
    """None of the kept blocks is the chain's: it is another one, or changed too deeply."""

    oldest: Mark


Effect = Fetch | Forward | Back | Lost


class FollowerCore:
    """Begins at block `start`, or after the newest of `kept` (consecutive, oldest first)."""

    def __init__(self, start: int, kept: Iterable[Mark] = ()) -> None:
        self.start = start
        self.kept: deque[Mark] = deque(kept, maxlen=KEPT_MAX)
        self._upto = -1

    def handle(self, event: Polled | Read) -> list[Effect]:
        if isinstance(event, Polled):
            self._upto = event.upto
            return self._fetch()
        if self.kept and event.first != self.kept[-1].number:
            return self._compare(event)
        if not self.kept:
            return self._follow(event.blocks)
        if event.blocks and event.blocks[0].hash == self.kept[-1].hash:
            return self._follow(event.blocks[1:])
        if len(self.kept) == 1:
            return self._compare(event)
        return [Fetch(self.kept[0].number, len(self.kept), compare=True)]

    def _fetch(self) -> list[Effect]:
        """What follows, and the newest kept block once more: is it still the chain's?"""
        if self.kept:
            first = self.kept[-1].number
            return [Fetch(first, max(1, min(FETCH_MAX, self._upto - first + 1)))]
        if self.start > self._upto:
            return []
        return [Fetch(self.start, min(FETCH_MAX, self._upto - self.start + 1))]

    def _compare(self, read: Read) -> list[Effect]:
        """Take back what the chain no longer has."""
        held = {block.number: block.hash for block in read.blocks}
        common = [mark for mark in self.kept if held.get(mark.number) == mark.hash]
        if not common and self.kept[0].number > self.start:
            return [Lost(self.kept[0])]
        effects: list[Effect] = []
        while self.kept and self.kept[-1] not in common:
            effects.append(Back(self.kept.pop()))
        return [*effects, *self._fetch()]

    def _follow(self, blocks: Iterable[Block]) -> list[Effect]:
        effects: list[Effect] = []
        for block in blocks:
            expected = self.kept[-1].number + 1 if self.kept else self.start
            parent = self.kept[-1].hash if self.kept else block.parent_hash
            if (block.number, block.parent_hash) != (expected, parent) or block.number > self._upto:
                break  # the chain changed between two answers: the next poll sees how
            self.kept.append(Mark(block.number, block.hash))
            effects.append(Forward(block))
        if effects and self.kept[-1].number < self._upto:
            effects += self._fetch()
        return effects
