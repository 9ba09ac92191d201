"""Chain and database both restored from older copies: a follower's blocks come first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from assay_contracts.follow.block_sources import FileBlocks
from assay_contracts.follow.following import Difference, Follower, open_followed
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_contracts.local.sealed import SealGuard
from assay_coordinator.adapters.store import Store
from assay_coordinator.cli import main
from assay_network.keystore import load_or_create_key
from assay_protocol.signing import Identity

KEY_FILE, CHAIN_FILE, TABLES_FILE = "coordinator.key", "chain.db", "coordinator.db"


def mine(data: Path, *notes: bytes) -> bytes:
    """What a coordinator does with its files; gives the head's hash."""
    seed = load_or_create_key(data / KEY_FILE)
    key = poster_key(seed)
    store = Store(f"sqlite:///{data / TABLES_FILE}")
    genesis, guard = Genesis(address_of(key)), SealGuard(store.engine)
    path = data / CHAIN_FILE
    with LocalChain.open(path, genesis=genesis, signer=Identity(seed), guard=guard) as chain:
        for note in notes:
            chain.send(key, bytes([5]) * 20, note)
        head = chain.head_block().hash
    store.close()
    return head


def follow(data: Path, mine_path: Path) -> int:
    source = FileBlocks(data / CHAIN_FILE)
    try:
        with open_followed(mine_path, source.about()) as chain:
            Follower(chain, source).to_head()
            return chain.head_block().number
    finally:
        source.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "coordinator"
    folder.mkdir()
    return folder


def test_both_older_copies_would_seal_twice_and_a_follower_sees_it(
    data: Path, tmp_path: Path
) -> None:
    mine(data, b"1", b"2")
    shutil.copytree(data, tmp_path / "backup")
    mine(data, b"3", b"4")
    followed = tmp_path / "followed.db"
    assert follow(data, followed) == 4
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "backup", data)
    mine(data, b"other 3", b"other 4")
    with pytest.raises(Difference, match="sealed two blocks") as caught:
        follow(data, followed)
    assert caught.value.number == 3
    assert caught.value.evidence is not None


def test_a_restore_from_a_follower_goes_on_where_the_seals_ended(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine(data, b"1", b"2")
    shutil.copytree(data, tmp_path / "backup")
    head = mine(data, b"3", b"4")
    followed = tmp_path / "followed.db"
    follow(data, followed)
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "backup", data)

    asked = ["chain", "restore", "--data-dir", str(data), "--from", str(followed), "--json"]
    assert main(asked) == 0
    done = json.loads(capsys.readouterr().out)
    assert done == {"blocks": 2, "head": 4, "hash": head.hex()}
    assert main(asked) == 0, "again is no harm"
    mine(data, b"5")
    assert follow(data, followed) == 5


def test_a_restore_never_takes_other_blocks(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine(data, b"1", b"2")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(data / KEY_FILE, other)
    mine(other, b"other", b"other", b"other")
    source = str(other / CHAIN_FILE)
    asked = ["chain", "restore", "--data-dir", str(data), "--from", source]
    assert main(asked) == 1
    assert "block 1" in capsys.readouterr().err
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    mine(stranger, b"1")
    asked[-1] = str(stranger / CHAIN_FILE)
    assert main(asked) == 1
