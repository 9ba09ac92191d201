"""The chain as the coordinator uses it: one local chain, one ledger contract, one outbox.

Epochs go into the ledger, rounds of the lottery into notes beside it. The local chain mines a block
for each transaction and none by itself, so the block that decides a round is the one that holds its
root (a lag of 0, said in the anchor). On a chain that others mine the lag must be 1 or more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from assay_contracts.block_sources import blocks_of
from assay_contracts.block_votes import BlockVotes
from assay_contracts.chain import LocalChain
from assay_contracts.genesis import Genesis, address_of, poster_key
from assay_contracts.ledger import CreditLedgerClient
from assay_contracts.ledger_abi import Header
from assay_contracts.notes import Notes
from assay_contracts.outbox import Outbox
from assay_contracts.sealed import SealGuard
from assay_coordinator.adapters.store import storage_errors
from assay_coordinator.core.events import PostEpoch, PostRound, RoundMined
from assay_network.logs import get_logger
from assay_protocol.codec import encode
from assay_protocol.errors import AssayError
from assay_protocol.lottery import AnchorNote
from assay_protocol.signing import Identity

BLOCKS_LATER: Final = 0

log = get_logger("coordinator")


class Anchor:
    """Posts epochs and rounds exactly once. Synchronous; call it in a thread."""

    def __init__(self, path: Path, seed: bytes, engine: Engine) -> None:
        """Open or create the chain at `path` and deploy the ledger if it is not there."""
        key = poster_key(seed)
        self.chain = LocalChain.open(
            path,
            genesis=Genesis(poster=address_of(key)),
            signer=Identity(seed),
            guard=SealGuard(engine),
        )
        self.votes = BlockVotes(self.chain)
        self._ledger = CreditLedgerClient(self.chain, key)
        self.deployment = self._ledger.deploy()
        self._outbox = Outbox(engine, self._ledger)
        self._notes = Notes(engine, self._ledger, self._outbox.writer)

    def post(self, effect: PostEpoch) -> None:
        """Put the epoch on the chain; done already is done. Raises AssayError: try again later."""
        header = Header(
            root=effect.root,
            total_cum=effect.total,
            jobs=effect.jobs,
            leaves=effect.leaves,
            data_hash=effect.data_hash,
            policy=effect.pricing,
        )
        with storage_errors():
            self._outbox.submit(f"epoch-{effect.epoch}", effect.epoch, header)
            self._outbox.pump()

    def post_round(self, effect: PostRound) -> RoundMined:
        """The same for a round of the lottery; before the first of its links, their anchor."""
        note = AnchorNote(effect.chain, effect.links, BLOCKS_LATER, effect.anchor)
        with storage_errors():
            anchored = self._notes.put(f"anchor-{effect.chain}", note.encode())
            posted = self._notes.put(f"round-{effect.number}", effect.note, BLOCKS_LATER)
        return RoundMined(
            effect.number,
            anchored.transaction,
            posted.transaction,
            posted.later,
            posted.later_hash,
        )

    def block_part(self, key: bytes) -> bytes:
        """Block `key` (its number, 32 bytes) as a SealedBlock's bytes.

        Raises AssayError("chain_unavailable") if there is no such block yet.
        """
        found = blocks_of(self.chain, int.from_bytes(key), 1)
        if not found:
            raise AssayError("chain_unavailable", "there is no such block")
        return encode(found[0])

    def vote(self, voter: bytes, seal: bytes) -> None:
        """Count a node's seal of a block; errors as `BlockVotes.vote`."""
        seen = len(self.votes.evidence())
        try:
            final = self.votes.vote(voter, seal)
        finally:
            for one in self.votes.evidence()[seen:]:
                log.warning("voter_equivocated", **one)
        if final is not None:
            log.info("block_final", block=final)

    def close(self) -> None:
        self.chain.close()
