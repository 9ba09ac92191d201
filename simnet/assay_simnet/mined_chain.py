"""A chain that others mine: a pool, a block every so often, hashes nobody chose, and re-orgs.

Time is told with every question, so a block is there when it is asked for and costs nothing before.
One wallet sends here, the coordinator's, so nonces are its own; the fee is always enough. Of
contracts there is one rule, the ledger's: epochs come in order, each once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from assay_contracts.adapters.backend import Fees
from assay_contracts.adapters.outbox_core import Looked, Place

FEES: Final = Fees(base=10, tip=1)


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction of the wallet. `key`: whose item it is; `epoch`: which it posts, 0 for none."""

    key: str
    hash: bytes
    nonce: int
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Mined:
    """... in a block. `ok`: the contract took it."""

    sent: Sent
    place: Place
    ok: bool


@dataclass(frozen=True, slots=True)
class _Block:
    hash: bytes
    mined: tuple[Mined, ...]


class MinedChain:
    """Block 0 is there at `began_us`, another one every `block_us`."""

    def __init__(self, secret: bytes, began_us: int, block_us: int) -> None:
        self._secret, self._began, self._block_us = secret, began_us, block_us
        self._blocks: list[_Block] = []  # from number 1 on
        self._pool: dict[int, Sent] = {}
        self._where: dict[bytes, Mined] = {}
        self._forks = 0
        self._nonce = 0
        self.epoch = 0  # the newest the contract holds

    # ---- what a wallet asks ----

    def look(self, now: int) -> Looked:
        self._pass_time(now)
        number = len(self._blocks)
        return Looked(number, self.hash(number), self._nonce, FEES)

    def find(self, transaction: bytes) -> Mined | None:
        return self._where.get(transaction)

    def hash(self, number: int) -> bytes:
        """Of a block that is there."""
        return self._blocks[number - 1].hash if number else bytes(32)

    def holds(self, place: Place) -> bool:
        return 0 < place.block <= len(self._blocks) and self.hash(place.block) == place.block_hash

    def send(self, now: int, sent: Sent) -> bool:
        """Into the pool; False if its nonce is spent."""
        self._pass_time(now)
        if sent.nonce < self._nonce:
            return False
        self._pool[sent.nonce] = sent
        return True

    # ---- what befalls it ----

    def reorganise(self, now: int, depth: int, forgets: Callable[[], bool]) -> None:
        """The newest `depth` blocks never were: others take their place. What was in them waits for
        the next block, but for what the pool `forgets`: that must be sent again."""
        self._pass_time(now)
        depth = min(depth, len(self._blocks))
        gone = [
            mined for block in self._blocks[len(self._blocks) - depth :] for mined in block.mined
        ]
        del self._blocks[len(self._blocks) - depth :]
        self._forks += 1
        for mined in gone:
            del self._where[mined.sent.hash]
            self._nonce = min(self._nonce, mined.sent.nonce)
            if mined.ok and mined.sent.epoch:
                self.epoch = min(self.epoch, mined.sent.epoch - 1)
            if not forgets():
                self._pool.setdefault(mined.sent.nonce, mined.sent)
        for _ in range(depth):
            self._add(())

    # ---- for who checks ----

    @property
    def mined(self) -> Iterator[Mined]:
        """All transactions, oldest first."""
        return (mined for block in self._blocks for mined in block.mined)

    # ---- inside ----

    def _pass_time(self, now: int) -> None:
        while self._began + (len(self._blocks) + 1) * self._block_us <= now:
            taken: list[Sent] = []
            while (sent := self._pool.pop(self._nonce + len(taken), None)) is not None:
                taken.append(sent)
            self._add(tuple(taken))
            self._pool = {n: one for n, one in self._pool.items() if n >= self._nonce}

    def _add(self, taken: tuple[Sent, ...]) -> None:
        number = len(self._blocks) + 1
        data = number.to_bytes(8, "big") + self._forks.to_bytes(8, "big")
        name = hashlib.blake2b(data, key=self._secret, digest_size=32).digest()
        mined = tuple(Mined(one, Place(one.hash, number, name), self._takes(one)) for one in taken)
        self._blocks.append(_Block(name, mined))
        self._where.update((one.sent.hash, one) for one in mined)
        self._nonce += len(taken)

    def _takes(self, sent: Sent) -> bool:
        """Whether the contract takes it; then it has it."""
        if not sent.epoch:
            return True
        right = sent.epoch == self.epoch + 1
        self.epoch += right
        return right
