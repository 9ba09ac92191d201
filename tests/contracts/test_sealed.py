"""The producer never seals two blocks at one height: killed anywhere, restored from any copy."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from assay_contracts.adapters.outbox import METADATA
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_contracts.local.kv import SqliteStore
from assay_contracts.local.sealed import KEPT_BLOCKS_MAX, SealGuard
from assay_contracts.records import KeptBlock
from assay_protocol.errors import AssayError
from assay_protocol.messages import Seal
from assay_protocol.signing import Identity, open_signed

SEED = bytes(range(32))
KEY = poster_key(SEED)
GENESIS = Genesis(address_of(KEY))
PRODUCER = Identity(SEED)
NOWHERE = b"\x05" * 20


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[SealGuard]:
    engine = create_engine(f"sqlite:///{tmp_path / 'seals.db'}")
    METADATA.create_all(engine)
    yield SealGuard(engine)
    engine.dispose()


def opened(path: Path, guard: SealGuard) -> LocalChain:
    return LocalChain.open(path, genesis=GENESIS, signer=PRODUCER, guard=guard)


def note(chain: LocalChain, data: bytes) -> KeptBlock:
    kept = chain.sealed_block(chain.send(KEY, NOWHERE, data).block)
    assert kept is not None
    return kept


def test_every_block_is_sealed_and_kept(tmp_path: Path, guard: SealGuard) -> None:
    with opened(tmp_path / "a", guard) as chain:
        kept = [note(chain, bytes([n])) for n in range(3)]
    assert list(guard.after(0)) == kept
    assert guard.highest() == kept[-1]
    assert open_signed(Seal, kept[-1].seal, PRODUCER.public_key).digest == kept[-1].hash


def test_only_the_producer_writes(tmp_path: Path, guard: SealGuard) -> None:
    path = tmp_path / "a"
    with opened(path, guard) as chain:
        note(chain, b"")
    with LocalChain.open(path) as chain, pytest.raises(AssayError, match="only its producer"):
        chain.send(KEY, NOWHERE, b"")
    with pytest.raises(AssayError, match="another producer"):
        LocalChain.open(path, signer=Identity(b"\x09" * 32))


@pytest.mark.parametrize("reopened", [True, False])
def test_a_crash_after_the_seal_keeps_the_block(
    tmp_path: Path, guard: SealGuard, monkeypatch: pytest.MonkeyPatch, reopened: bool
) -> None:
    """Between the guard's commit and the chain's: the seal may be known, so the block stays."""
    path = tmp_path / "a"
    chain = opened(path, guard)
    first = note(chain, b"1")
    keep = guard.keep

    def cut(block: KeptBlock) -> None:
        keep(block)
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(guard, "keep", cut)
        with pytest.raises(RuntimeError, match="power cut"):
            chain.send(KEY, NOWHERE, b"2")
    assert chain.head_block().hash == first.hash
    if reopened:
        chain.close()
        chain = opened(path, guard)
    else:
        assert note(chain, b"3").number == 3
    _check_second(chain, guard)
    chain.close()


def test_a_disk_that_fails_after_the_seal_loses_nothing(
    tmp_path: Path, guard: SealGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is in the block that was sealed, so its sender is told that it is."""
    with opened(tmp_path / "a", guard) as chain:
        note(chain, b"1")
        keep = guard.keep

        def full(block: KeptBlock) -> None:
            keep(block)
            raise AssayError("storage_failed", "disk full")

        monkeypatch.setattr(guard, "keep", full)
        assert chain.send(KEY, NOWHERE, b"2").block == 2
        _check_second(chain, guard)


def _check_second(chain: LocalChain, guard: SealGuard) -> None:
    """Block 2 holds the note "2", and the chain ends where the seals do."""
    sealed, second, head = guard.highest(), chain.block(2), chain.head_block()
    assert sealed is not None
    assert second is not None
    found = chain.transaction(second.transactions[0])
    assert found is not None
    assert found.data == b"2"
    assert (head.number, head.hash) == (sealed.number, sealed.hash)


def test_a_crash_before_the_seal_leaves_nothing(
    tmp_path: Path, guard: SealGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "a", guard) as chain:
        with monkeypatch.context() as patch:
            patch.setattr(SqliteStore, "set_seal", _power_cut)
            with pytest.raises(RuntimeError):
                chain.send(KEY, NOWHERE, b"1")
        assert guard.highest() is None
        assert note(chain, b"2").number == 1


def _power_cut(store: SqliteStore, number: int, seal: bytes) -> None:
    raise RuntimeError("power cut")


def test_an_older_copy_is_brought_up_to_what_was_sealed(tmp_path: Path, guard: SealGuard) -> None:
    path, copy = tmp_path / "a", tmp_path / "copy"
    with opened(path, guard) as chain:
        note(chain, b"1")
        chain.backup(copy)
        kept = [note(chain, bytes([n])) for n in range(2, 5)]
    for lost in (copy, tmp_path / "empty"):  # or the whole file is gone
        with opened(lost, guard) as restored:
            assert restored.head_block().hash == kept[-1].hash
            assert restored.sealed_block(3) == kept[1]
            assert restored.nonce(GENESIS.poster) == 4


def test_a_chain_that_differs_from_what_was_sealed_is_refused(
    tmp_path: Path, guard: SealGuard
) -> None:
    with opened(tmp_path / "a", guard) as chain:
        note(chain, b"1")
        note(chain, b"2")
    with LocalChain.open(tmp_path / "b", genesis=GENESIS, signer=PRODUCER) as other:
        other.send(KEY, NOWHERE, b"other")
        other.send(KEY, NOWHERE, b"other")
    with pytest.raises(AssayError, match="chain_mismatch"):
        opened(tmp_path / "b", guard)


def test_the_guard_refuses_a_second_block_and_keeps_a_bounded_number(guard: SealGuard) -> None:
    def block(number: int, fill: int = 1) -> KeptBlock:
        return KeptBlock(number, bytes([fill]) * 32, b"raw", b"seal")

    guard.keep(block(5))
    guard.keep(block(5))
    for wrong in (block(5, 2), block(4)):
        with pytest.raises(AssayError, match="sealed before"):
            guard.keep(wrong)
    guard.keep(block(5 + KEPT_BLOCKS_MAX))
    assert [kept.number for kept in guard.after(0)] == [5 + KEPT_BLOCKS_MAX]
    with pytest.raises(AssayError, match="sealed before"):
        guard.keep(block(5))


def test_lost_blocks_that_nobody_kept_stop_the_start(tmp_path: Path, guard: SealGuard) -> None:
    guard.keep(KeptBlock(9, bytes(32), b"raw", b"seal"))
    with pytest.raises(AssayError, match="coordinator chain restore"):
        opened(tmp_path / "a", guard)


@pytest.mark.slow
def test_kill_minus_nine_and_older_copies_never_seal_twice(tmp_path: Path) -> None:
    program = """
import os, sys
from sqlalchemy import create_engine
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_contracts.adapters.outbox import METADATA
from assay_contracts.local.sealed import SealGuard
from assay_protocol.signing import Identity
seed = bytes(range(32))
key = poster_key(seed)
engine = create_engine("sqlite:///" + sys.argv[2])
METADATA.create_all(engine)
guard = SealGuard(engine)
keep = guard.keep
def told(block):
    keep(block)
    print(block.number, block.hash.hex(), flush=True)
guard.keep = told
genesis, signer = Genesis(address_of(key)), Identity(seed)
with LocalChain.open(sys.argv[1], genesis=genesis, signer=signer, guard=guard) as chain:
    while True:
        chain.send(key, bytes([5]) * 20, os.urandom(8))
"""
    path, copy, seals = tmp_path / "chain", tmp_path / "copy", tmp_path / "seals"
    told: dict[int, str] = {}
    for kill_after in (3, 1, 4, 2, 6):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(path), str(seals)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(kill_after)]
        os.kill(child.pid, signal.SIGKILL)
        lines += child.stdout.read().splitlines()
        child.stdout.close()
        child.wait()
        for line in lines:
            number, _, digest = line.strip().partition(" ")
            if len(digest) == 64:
                assert told.setdefault(int(number), digest) == digest, "sealed twice"
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True) if copy.exists() else None
        if copy.exists():
            shutil.copy(copy, path)  # an older chain each time
        else:
            with LocalChain.open(path, read_only=True) as chain:
                chain.backup(copy)
    engine = create_engine(f"sqlite:///{seals}")
    with LocalChain.open(path, signer=PRODUCER, guard=SealGuard(engine)) as chain:
        for height, sealed_hash in told.items():
            block = chain.block(height)
            assert block is not None
            assert block.hash.hex() == sealed_hash
    engine.dispose()
