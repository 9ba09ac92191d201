"""What the batcher asks of whoever holds the KV memory: first moves, in their order, then a decode
for each group of feeds.

A job's slot is made ready in the plan that admits it, even if its first tokens are fed later: from
then on the slot holds what the batcher says it holds, whoever else is admitted, preempted or gone
in between.
"""

from __future__ import annotations

from dataclasses import dataclass

from assay_node.engine.spans import Seen


@dataclass(frozen=True, slots=True)
class Save:
    """Keep the state of `slot` for `job`, if there is room for it: see Batcher.saved."""

    job: int
    slot: int


@dataclass(frozen=True, slots=True)
class Restore:
    """Make `slot` hold the saved state of `job` and nothing else; it is saved no longer."""

    job: int
    slot: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget the saved state of `job`: its tokens were found elsewhere."""

    job: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Make `slot` hold what `source` holds. The library may do so as late as in the decode."""

    source: int
    slot: int


@dataclass(frozen=True, slots=True)
class Trim:
    """Forget what `slot` holds from position `length` on."""

    slot: int
    length: int


Move = Save | Restore | Drop | Copy | Trim


@dataclass(frozen=True, slots=True)
class Feed:
    """Consecutive tokens of one job for the next decode, the last `drafts` of them guessed.

    The token drawn after each row counts only if all drafts up to that row's were drawn themselves.
    """

    job: int
    slot: int
    tokens: tuple[int, ...]
    position: int  # of the first of them in the slot
    draws: bool  # the last of them is the job's newest token, or a draft: draw after it
    adapter: bytes | None = None  # to be computed with
    drafts: int = 0
    told: int = 0  # rows that tell of the prompt's tokens, just before those drawn after
    seen: Seen | None = None  # the piece of an image that the tokens stand for

    @property
    def rows(self) -> int:
        """After so many of its last tokens something is drawn."""
        return 1 + self.drafts if self.draws else 0

    @property
    def wanted(self) -> int:
        """After so many of its last tokens logits are needed."""
        return self.told + self.rows

    @property
    def telling(self) -> int:
        """The position in the slot of the first token whose logits tell of the next one."""
        return self.position + len(self.tokens) - self.wanted

    @property
    def whole(self) -> bool:
        """Whether it is an image that must be in one decode, alone."""
        return self.seen is not None and self.seen.whole

    @property
    def drafted(self) -> tuple[int, ...]:
        """The drafts."""
        return self.tokens[len(self.tokens) - self.drafts :]


@dataclass(frozen=True, slots=True)
class Plan:
    """One step. There are no moves without feeds."""

    moves: tuple[Move, ...] = ()
    feeds: tuple[Feed, ...] = ()

    @property
    def groups(self) -> list[tuple[bytes | None, list[Feed]]]:
        """The feeds of each adapter: those without one first, then by digest; of each, tokens
        first, then pieces of images, then whole images one by one.

        One decode has one set of adapters for all its rows, and tokens or images. No feed stands in
        two groups, and all moves are made before the first decode.
        """
        found: dict[tuple[bytes, bool, int], list[Feed]] = {}
        for feed in self.feeds:
            alone = feed.slot if feed.whole else -1
            key = (feed.adapter or b"", feed.seen is not None, alone)
            found.setdefault(key, []).append(feed)
        return [(found[key][0].adapter, found[key]) for key in sorted(found)]
