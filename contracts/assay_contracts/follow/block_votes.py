"""The producer's side of finality: which block to vote on, the votes, and the newest proof.

The proof is kept in the chain's own file; `finalized` never goes back. While nobody has a bond the
head is final, and from the first bond on what more than two thirds of the bonded weight sealed: a
bonded node that does not follow the chain holds finality up, no more. Synchronous, for threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from assay_contracts.follow.bonds import Bonds
from assay_contracts.follow.finality import Finality, Target
from assay_contracts.local.chain import META_FINALITY, LocalChain
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError
from assay_protocol.messages import FinalityProof


class BlockVotes:
    """Of one open chain, which from now on asks it for its `finalized` block."""

    def __init__(
        self, chain: LocalChain, clock: Callable[[], int] = lambda: time.monotonic_ns() // 1000
    ) -> None:
        self._chain, self._clock = chain, clock
        self._lock = threading.Lock()
        self._bonds = Bonds(chain)
        kept = chain.meta(META_FINALITY)
        proof = None if kept is None else decode_as(FinalityProof, kept)
        self._core = Finality(chain.chain_id, proof)
        self._unbonded: int | None = None  # the newest block seen at which nobody had a bond
        chain.finalized_number = self.finalized

    def finalized(self) -> int:
        """The newest block that bonded nodes agreed on, or the head while there are none."""
        with self._lock:
            head = self._chain.head_block().number
            return self._final(head)

    def target(self) -> int | None:
        """The block that nodes should vote on now; None if there is nothing to decide."""
        with self._lock:
            head = self._chain.head_block()
            if head.number <= self._final(head.number):
                return None
            now = self._clock()
            if not self._core.is_waiting(now):
                weights = self._bonds.at(head.number)
                self._core.aim(Target(head.number, head.hash, weights, now))
            assert self._core.target is not None
            return self._core.target.number

    def vote(self, voter: bytes, seal: bytes) -> int | None:
        """Count a vote; the block's number if it became final by it. Errors as Finality.vote."""
        with self._lock:
            proof = self._core.vote(voter, seal)
            if proof is None:
                return None
            self._chain.set_meta(META_FINALITY, encode(proof))
            return proof.number

    def proof(self) -> bytes:
        """The newest FinalityProof's bytes. Raises AssayError("chain_unavailable") before one."""
        kept = self._chain.meta(META_FINALITY)
        if kept is None:
            raise AssayError("chain_unavailable", "no block was voted final yet")
        return kept

    def evidence(self) -> list[dict[str, Any]]:
        """Voters that sealed two hashes at one height, as hex."""
        with self._lock:
            return [
                {"key": one.voter.hex(), "seals": [one.first.hex(), one.second.hex()]}
                for one in self._core.evidence
            ]

    def weight(self) -> tuple[int, int]:
        """How much of the weight on the target agreed, and all of it."""
        with self._lock:
            return self._core.weight()

    def _final(self, head: int) -> int:
        if not self._bonds.at(head):
            self._unbonded = head
        elif self._unbonded is None:
            # Only after a restart: what was final then is so still.
            self._unbonded = self._bonds.last_without(head, self._core.number)
        return max(self._core.number, self._unbonded)
