"""What the coordinator tells of its chain: blocks by number, and the proof that one is final."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from assay_contracts.follow.block_sources import About
from assay_contracts.follow.following import open_followed
from assay_contracts.local.chain import LocalChain
from assay_coordinator.adapters.anchor import local_anchor
from assay_coordinator.adapters.blocks import Blocks
from assay_coordinator.adapters.store import Store
from assay_protocol.codec import decode_as
from assay_protocol.errors import AssayError
from assay_protocol.messages import SealedBlock
from assay_protocol.seals import seal_block
from assay_protocol.signing import Identity

SEED = bytes(range(32))
PRODUCER = Identity(SEED)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[LocalChain]:
    store = Store(f"sqlite:///{tmp_path / 'coordinator.db'}")
    anchor = local_anchor(tmp_path / "chain.db", PRODUCER, store.engine)
    assert anchor.local is not None
    yield anchor.local
    anchor.close()
    store.close()


def test_blocks_come_in_parts_and_can_be_followed(chain: LocalChain, tmp_path: Path) -> None:
    blocks, head = Blocks(chain), chain.head_block()
    about = About(chain.chain_id, chain.genesis.poster, PRODUCER.public_key, head.number)
    with open_followed(tmp_path / "mine.db", about) as mine:
        for number in range(1, head.number + 1):
            block = decode_as(SealedBlock, blocks.part(number.to_bytes(32)))
            mine.import_block(block.raw, block.seal)
        assert mine.head_block() == head
    for number in (0, head.number + 1, 2**256 - 1):
        with pytest.raises(AssayError, match="chain_unavailable"):
            blocks.part(number.to_bytes(32))


def test_without_bonds_nobody_votes_and_all_is_final(chain: LocalChain) -> None:
    blocks, head = Blocks(chain), chain.head_block()
    assert blocks.target() is None
    assert chain.finalized_block() == head
    with pytest.raises(AssayError, match="chain_unavailable"):
        blocks.finality(bytes(32))
    seal = seal_block(PRODUCER, chain.chain_id, head.number, head.hash)
    with pytest.raises(AssayError, match="unexpected_message"):
        blocks.vote(PRODUCER.public_key, seal)


def test_a_chain_that_others_mine_has_none_of_it() -> None:
    blocks = Blocks(None)
    assert blocks.target() is None
    for ask in (blocks.part, blocks.finality, lambda key: blocks.vote(key, bytes(70))):
        with pytest.raises(AssayError, match="chain_unavailable"):
            ask(bytes(32))
