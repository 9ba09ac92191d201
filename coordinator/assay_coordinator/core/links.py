"""The coordinator's links: one secret for each round, all fixed before the first.

Link i of a chain is the hash of link i + 1, so whoever knows one can check every earlier one and
compute none of the later ones. The secrets follow from the coordinator's key: nothing is kept that
could be lost, and a restart goes on where the last round in the tables ended.
"""

from __future__ import annotations

import hashlib
from math import isqrt

from assay_protocol.lottery import link_before


class Links:
    """Chains of `length` links each; round numbers start at 1 and run on from chain to chain."""

    def __init__(self, secret: bytes, length: int) -> None:
        """`secret`: 32 bytes that never leave the coordinator."""
        assert len(secret) == 32
        self._secret, self.length = secret, max(1, length)
        self._step = isqrt(self.length)
        self._chain = 0
        self._marks: list[bytes] = []  # the links at 0, step, 2 step, ... of the chain in use

    def chain_of(self, number: int) -> int:
        """The chain, from 1, that round `number` belongs to."""
        assert number > 0
        return (number - 1) // self.length + 1

    def anchor(self, chain: int) -> bytes:
        """What is published of a chain before its first round."""
        return self._at(chain, 0)

    def of_round(self, number: int) -> bytes:
        """The link of a round. To be told only once the round's root is on chain."""
        chain = self.chain_of(number)
        return self._at(chain, number - (chain - 1) * self.length)

    def _at(self, chain: int, index: int) -> bytes:
        if chain != self._chain:
            self._hash_through(chain)
        mark = -(-index // self._step)
        if mark < len(self._marks):
            link, above = self._marks[mark], mark * self._step
        else:
            link, above = self._last(chain), self.length
        for _ in range(above - index):
            link = link_before(link)
        return link

    def _hash_through(self, chain: int) -> None:
        """Every `_step`-th link is remembered, so that any other is a few hashes away."""
        link = self._last(chain)
        marks: list[bytes] = []
        for index in range(self.length, -1, -1):
            if index % self._step == 0:
                marks.append(link)
            link = link_before(link)
        self._chain, self._marks = chain, marks[::-1]

    def _last(self, chain: int) -> bytes:
        label = chain.to_bytes(8, "big") + self.length.to_bytes(8, "big")
        drawn = hashlib.blake2b(label, key=self._secret, person=b"assay last link", digest_size=32)
        return drawn.digest()
