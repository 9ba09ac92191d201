"""`coordinator chain restore`: what was sealed and is lost here comes back from a follower.

For a coordinator whose chain and database were both restored from older copies: it would mine
heights again that it sealed before, which is an equivocation. Nothing is mined or sealed here.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from assay_contracts.follow.block_sources import open_source
from assay_contracts.follow.following import Follower
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_contracts.local.sealed import SealGuard
from assay_coordinator.adapters.store import Store
from assay_protocol.signing import Identity


@dataclass(frozen=True, slots=True)
class Restored:
    """How many blocks were executed again, and where the chain now ends."""

    blocks: int
    head: int
    hash: bytes


def restore_chain(chain: Path, database: str, seed: bytes, source: str) -> Restored:
    """Follows `source` (URL, chain file or export) into the stopped coordinator's `chain`.

    Raises AssayError: Difference if the source has other blocks than were kept here.
    """
    identity, poster = Identity(seed), address_of(poster_key(seed))
    store = Store(database)
    try:
        guard = SealGuard(store.engine)
        with (
            closing(open_source(source)) as blocks,
            LocalChain.open(
                chain, genesis=Genesis(poster), producer=identity.public_key
            ) as restored,
        ):
            added = Follower(restored, blocks).to_head()
            head = restored.head_block()
            newest = restored.sealed_block(head.number)
            if newest is not None:
                kept = guard.highest()
                if kept is None or kept.number < newest.number:
                    guard.keep(newest)
    finally:
        store.close()
    return Restored(added, head.number, head.hash)
