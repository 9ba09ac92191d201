"""The local chain's blocks as others execute them again, and their votes on what they got.

A chain that others mine has none of it: its blocks and their finality are its own affair.
"""

from __future__ import annotations

from assay_contracts.follow.block_sources import blocks_of
from assay_contracts.follow.block_votes import BlockVotes
from assay_contracts.local.chain import LocalChain
from assay_network.logs import get_logger
from assay_protocol.codec import encode
from assay_protocol.errors import AssayError

log = get_logger("coordinator")


class Blocks:
    """Of one chain; None: there is no local one. Synchronous; call it in a thread."""

    def __init__(self, chain: LocalChain | None) -> None:
        self._chain = chain
        self._votes = None if chain is None else BlockVotes(chain)

    def part(self, key: bytes) -> bytes:
        """Block `key` (its number, 32 bytes) as a SealedBlock's bytes.

        Raises AssayError("chain_unavailable") if there is no such block yet.
        """
        found = () if self._chain is None else blocks_of(self._chain, int.from_bytes(key), 1)
        if not found:
            raise AssayError("chain_unavailable", "there is no such block")
        return encode(found[0])

    def finality(self, _key: bytes) -> bytes:
        """The newest proof that a block is final; errors as `BlockVotes.proof`."""
        return self._own().proof()

    def target(self) -> int | None:
        """The block to vote on now, if any."""
        return None if self._votes is None else self._votes.target()

    def vote(self, voter: bytes, seal: bytes) -> None:
        """Count a node's seal of a block; errors as `BlockVotes.vote`."""
        votes = self._own()
        seen = len(votes.evidence())
        try:
            final = votes.vote(voter, seal)
        finally:
            for one in votes.evidence()[seen:]:
                log.warning("voter_equivocated", **one)
        if final is not None:
            log.info("block_final", block=final)

    def _own(self) -> BlockVotes:
        if self._votes is None:
            raise AssayError("chain_unavailable", "the chain of this network is mined by others")
        return self._votes
