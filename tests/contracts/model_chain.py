"""A chain as small as the outbox's core can tell: nonces, a pool, fees, blocks, forks."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field

from assay_contracts.adapters.backend import Fees
from assay_contracts.adapters.outbox_core import Looked, Place


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction of our wallet; `key` is empty for one that is none of the outbox's."""

    key: str
    hash: bytes
    nonce: int
    fee: int


@dataclass
class ModelChain:
    """`blocks[n]` are the transactions of block n + 1; `forks` makes hashes differ after one."""

    has_pool: bool
    random: random.Random
    blocks: list[list[Mined]] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    pool: dict[int, Mined] = field(default_factory=dict)
    forks: int = 0
    fees: Fees = field(default_factory=lambda: Fees(10, 1))

    @property
    def mined(self) -> list[Mined]:
        return [one for block in self.blocks for one in block]

    @property
    def nonce(self) -> int:
        return len(self.mined)

    def look(self) -> Looked:
        return Looked(len(self.blocks), self.hash_of(len(self.blocks)), self.nonce, self.fees)

    def hash_of(self, number: int) -> bytes:
        return self.hashes[number - 1] if number else bytes(32)

    def find(self, name: bytes) -> Place | None:
        for number, block in enumerate(self.blocks, 1):
            if any(one.hash == name for one in block):
                return Place(name, number, self.hash_of(number))
        return None

    def holds(self, place: Place) -> bool:
        known = 0 < place.block <= len(self.blocks)
        return known and self.hash_of(place.block) == place.block_hash

    def send(self, one: Mined) -> str:
        """What became of it: "sent", or why not."""
        if one.nonce < self.nonce or (not self.has_pool and one.nonce > self.nonce):
            return "nonce"
        if not self.has_pool:
            self._add([one])
            return "sent"
        old = self.pool.get(one.nonce)
        if old is not None and old.hash != one.hash and one.fee < old.fee + old.fee // 10:
            return "underpriced"
        self.pool[one.nonce] = one
        return "sent"

    def mine(self) -> None:
        """One block: whatever of the pool is next and pays enough."""
        taken: list[Mined] = []
        while (one := self.pool.get(self.nonce + len(taken))) and one.fee >= self.fees.base:
            taken.append(one)
        self._add(taken)
        self.pool = {n: one for n, one in self.pool.items() if n >= self.nonce}

    def spend(self) -> None:
        """Somebody else uses the wallet."""
        name = hashlib.sha256(b"other" + self.random.randbytes(8)).digest()
        self._add([Mined("", name, self.nonce, 10**9)])
        self.pool = {n: one for n, one in self.pool.items() if n >= self.nonce}

    def go_back(self, depth: int, *, keep_pool: bool) -> None:
        """The last blocks never were; with a pool their transactions wait again, or are gone."""
        lost = [one for block in self.blocks[len(self.blocks) - depth :] for one in block]
        del self.blocks[len(self.blocks) - depth :], self.hashes[len(self.blocks) :]
        self.forks += 1
        if keep_pool and self.has_pool:
            self.pool |= {one.nonce: one for one in lost if one.key}
        elif not keep_pool:
            self.pool.clear()

    def _add(self, taken: list[Mined]) -> None:
        self.blocks.append(taken)
        parent = self.hashes[-1] if self.hashes else bytes(32)
        seed = parent + self.forks.to_bytes(4) + b"".join(one.hash for one in taken)
        self.hashes.append(hashlib.sha256(seed).digest())
