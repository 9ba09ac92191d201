"""A chain of blocks that nobody in the simulation makes: notes go in, hashes nobody chose come out.

A block comes every BLOCK_US. A note is in the next one; the block after that decides its round.
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

from assay_contracts.credit.readers import MinedNote
from assay_coordinator.core.events import PostRound, RoundMined
from assay_protocol.lottery import AnchorNote
from assay_simnet.setting import SECOND

BLOCK_US: Final = 12 * SECOND
LAG: Final = 1
POSTER: Final = b"the operator address"


class Clock(Protocol):
    """What a chain needs of its world: microseconds, and a secret of its own."""

    @property
    def now(self) -> int: ...

    def secret(self) -> bytes: ...


class Chain:
    """Takes the coordinator's notes; reads like any chain (`credit.readers.BlockReader`)."""

    def __init__(self, world: Clock) -> None:
        self._world, self._secret, self._began = world, world.secret(), world.now
        self._notes: dict[bytes, MinedNote] = {}
        self._blocks: dict[int, list[bytes]] = {}

    @property
    def height(self) -> int:
        """The newest block's number."""
        return (self._world.now - self._began) // BLOCK_US

    def post(self, effect: PostRound) -> tuple[RoundMined, int]:
        """Put a round's note on chain; what is told when its block is there, and how much later."""
        block = self.height + 2
        note = AnchorNote(effect.chain, effect.links, LAG, effect.anchor)
        anchored = self._put(note.encode(), block - 1)
        posted = self._put(effect.note, block)
        deciding = block + LAG
        told = RoundMined(effect.number, anchored, posted, deciding, self._hash(deciding))
        return told, self._began + deciding * BLOCK_US - self._world.now

    # ---- for who checks ----

    def transaction(self, name: bytes) -> MinedNote | None:
        found = self._notes.get(name)
        return found if found is not None and found.block <= self.height else None

    def block_hash(self, number: int) -> bytes | None:
        return self._hash(number) if number <= self.height else None

    def notes(self, number: int) -> tuple[MinedNote, ...]:
        return tuple(self._notes[name] for name in self._blocks.get(number, ()))

    def _put(self, data: bytes, block: int) -> bytes:
        name = hashlib.blake2b(data, digest_size=32).digest()
        if name not in self._notes:
            self._notes[name] = MinedNote(POSTER, POSTER, data, block)
            self._blocks.setdefault(block, []).append(name)
        return name

    def _hash(self, number: int) -> bytes:
        return hashlib.blake2b(number.to_bytes(8, "big"), key=self._secret, digest_size=32).digest()
