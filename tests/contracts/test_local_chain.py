import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import rlp

from assay_contracts import calls
from assay_contracts.artefact import load
from assay_contracts.local.chain import ContractRefused, LocalChain
from assay_contracts.local.evm import AtomicDB
from assay_contracts.local.genesis import (
    GENESIS_SECONDS,
    Genesis,
    address_of,
    contract_address,
    poster_key,
)
from assay_contracts.local.kv import SqliteStore
from assay_protocol.errors import AssayError, ProtocolError

KEY = poster_key(bytes(range(32)))
POSTER = address_of(KEY)
CREATION = calls.constructor("CreditToken", POSTER, POSTER)
NOWHERE = b"\x05" * 20
# A contract that returns TIMESTAMP and NUMBER, and what creates it.
TELLS_TIME_AND_NUMBER = bytes.fromhex("6a425f524360205260405ff35f52600b6015f3")


def test_the_genesis_follows_from_the_poster_alone(tmp_path: Path) -> None:
    first, second, other = (
        LocalChain.open(tmp_path / name, genesis=Genesis(poster))
        for name, poster in [("a", POSTER), ("b", POSTER), ("c", NOWHERE)]
    )
    assert first.genesis_hash == second.genesis_hash != other.genesis_hash
    assert first.head_block().timestamp == GENESIS_SECONDS
    # Pinned: followers of a running network derive this hash, so a change forks them off.
    assert first.genesis_hash.hex().startswith("9afc0ed39281a619")
    for chain in (first, second, other):
        chain.close()


def test_a_block_holds_one_transaction_and_can_be_read_back(chain: LocalChain, clock: Any) -> None:
    clock.now = 1_900_000_000
    receipt = chain.send(KEY, None, CREATION)

    head = chain.head_block()
    assert (head.number, head.timestamp) == (1, 1_900_000_000)
    assert head.transactions == (receipt.transaction_hash,)
    assert head.parent_hash == chain.genesis_hash
    assert (receipt.block, receipt.block_hash, receipt.sender) == (1, head.hash, POSTER)
    assert receipt.contract == contract_address(POSTER, 0)
    assert load("CreditToken").is_code(chain.code(contract_address(POSTER, 0)))
    assert chain.code(contract_address(POSTER, 0), at=0) == b""
    assert chain.block(1) == chain.block(head.hash) == head
    transaction = chain.transaction(receipt.transaction_hash)
    assert transaction is not None
    assert (transaction.data, transaction.to, transaction.nonce) == (CREATION, None, 0)


def test_unknown_things_are_none(chain: LocalChain) -> None:
    assert chain.block(9) is None
    assert chain.block(bytes(32)) is None
    assert chain.receipt(bytes(32)) is None
    assert chain.transaction(bytes(32)) is None
    assert chain.code(NOWHERE) == b""
    with pytest.raises(AssayError, match="chain_mismatch"):
        chain.code(NOWHERE, at=9)


def test_block_times_rise_even_if_the_clock_does_not(chain: LocalChain, clock: Any) -> None:
    times = []
    for now in (5, 2_000_000_000, 2_000_000_000, 7):
        clock.now = now
        chain.send(KEY, NOWHERE, b"")
        times.append(chain.head_block().timestamp)
    assert times == [GENESIS_SECONDS + 1, 2_000_000_000, 2_000_000_001, 2_000_000_002]


def test_a_call_sees_the_block_that_a_transaction_sent_now_gets(
    chain: LocalChain, clock: Any
) -> None:
    clock.now = 2_000_000_000
    teller = chain.send(KEY, None, TELLS_TIME_AND_NUMBER).contract
    assert teller is not None
    head = chain.head_block()
    assert chain.call(teller, b"", at=head.number) == _words(head.timestamp, head.number)
    for now in (head.timestamp + 60, head.timestamp):  # the second: the clock is behind the head
        clock.now = now
        seen = chain.call(teller, b"")
        chain.send(KEY, teller, b"")
        mined = chain.head_block()
        assert seen == _words(mined.timestamp, mined.number)


def _words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(32) for number in numbers)


def test_what_is_over_for_a_call_is_over_for_what_is_sent_later(
    chain: LocalChain, clock: Any
) -> None:
    clock.now = 2_000_000_000
    chain.call(NOWHERE, b"")
    clock.now = 7
    chain.send(KEY, NOWHERE, b"")
    assert chain.head_block().timestamp == 2_000_000_000


def test_a_refused_transaction_leaves_no_block(chain: LocalChain) -> None:
    head = chain.head_block()
    with pytest.raises(ContractRefused) as caught:
        chain.send(KEY, None, calls.constructor("CreditToken", bytes(20), POSTER))
    assert load("CreditToken").error_name(caught.value.output) == "ZeroMinter"
    assert chain.head_block() == head
    assert chain.nonce(POSTER) == 0
    chain.send(KEY, None, CREATION)
    assert chain.head_block().number == 1


@pytest.mark.parametrize("nonce", [1, 5])
def test_a_transaction_out_of_turn_is_refused(chain: LocalChain, nonce: int) -> None:
    raw, _ = chain.sign(KEY, NOWHERE, b"", nonce=nonce)
    with pytest.raises(AssayError, match="chain_mismatch"):
        chain.send_raw(raw)
    assert chain.head_block().number == 0


def test_a_transaction_twice_is_refused(chain: LocalChain) -> None:
    raw, _ = chain.sign(KEY, NOWHERE, b"", nonce=0)
    chain.send_raw(raw)
    with pytest.raises(AssayError, match="chain_mismatch"):
        chain.send_raw(raw)
    assert chain.head_block().number == 1


@pytest.mark.parametrize("raw", [b"", b"\x02", b"\x02\xc0", b"\xff" * 40, bytes(200)])
def test_bytes_that_are_no_transaction_are_refused(chain: LocalChain, raw: bytes) -> None:
    with pytest.raises(AssayError) as caught:
        chain.send_raw(raw)
    assert caught.value.code == "chain_mismatch"
    assert chain.head_block().number == 0


def test_an_oversized_transaction_is_refused_unparsed(chain: LocalChain) -> None:
    with pytest.raises(AssayError, match="oversized"):
        chain.send_raw(bytes(128 * 1024 + 1))


def test_whoever_owns_nothing_sends_for_nothing(chain: LocalChain) -> None:
    poor = poster_key(b"\x09" * 32)
    chain.send(poor, NOWHERE, b"")
    assert (chain.nonce(address_of(poor)), chain.balance(address_of(poor))) == (1, 0)


def test_a_restart_opens_the_same_head(chain: LocalChain, chain_path: Path) -> None:
    chain.send(KEY, None, CREATION)
    head = chain.head_block()
    chain.close()
    for genesis in (Genesis(POSTER), None):
        with LocalChain.open(chain_path, genesis=genesis) as again:
            assert again.head_block() == head
            assert again.nonce(POSTER) == 1


@pytest.mark.parametrize("genesis", [Genesis(NOWHERE), Genesis(POSTER, chain_id=7)])
def test_another_genesis_is_a_mismatch(
    chain: LocalChain, chain_path: Path, genesis: Genesis
) -> None:
    with pytest.raises(AssayError) as caught:
        LocalChain.open(chain_path, genesis=genesis)
    assert caught.value.code == "chain_mismatch"


@pytest.mark.parametrize("read_only", [True, False])
def test_what_is_no_chain_is_not_opened(tmp_path: Path, read_only: bool) -> None:
    with pytest.raises(AssayError, match="chain_mismatch"):
        LocalChain.open(tmp_path / "absent", read_only=read_only)
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"no database" * 100)
    with pytest.raises(AssayError, match="chain_mismatch"):
        LocalChain.open(garbage, genesis=Genesis(POSTER), read_only=read_only)


def test_a_genesis_needs_an_address_and_an_id() -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        Genesis(b"short")
    with pytest.raises(ProtocolError, match="malformed"):
        Genesis(POSTER, chain_id=0)


def test_a_reader_follows_the_writer_and_cannot_write(chain: LocalChain, chain_path: Path) -> None:
    with LocalChain.open(chain_path, read_only=True) as reader:
        chain.send(KEY, None, CREATION)
        assert reader.head_block() == chain.head_block()
        chain.send(KEY, NOWHERE, b"")
        assert reader.head_block() == chain.head_block()
        assert reader.nonce(POSTER) == 2
        with pytest.raises(AssayError, match="storage_failed"):
            reader.send(KEY, NOWHERE, b"")


def test_a_crash_inside_a_block_leaves_the_block_before(
    chain: LocalChain, chain_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails the n-th write of a block, for every n, and finds the chain untouched."""
    write = SqliteStore.__setitem__
    left = [0]

    def failing(store: SqliteStore, key: bytes, value: bytes) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("power cut")
        write(store, key, value)

    monkeypatch.setattr(SqliteStore, "__setitem__", failing)
    head, writes = chain.head_block(), 0
    while True:
        writes += 1
        left[0] = writes
        try:
            chain.send(KEY, NOWHERE, b"")
            break
        except RuntimeError:
            assert chain.head_block() == head
            assert chain.nonce(POSTER) == 0
    assert writes > 3
    assert chain.head_block().number == 1


def test_threads_share_a_chain(chain: LocalChain) -> None:
    senders = [
        threading.Thread(target=lambda: [chain.send(KEY, NOWHERE, b"") for _ in range(3)])
        for _ in range(3)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert (chain.head_block().number, chain.nonce(POSTER)) == (9, 9)


def test_a_follower_executes_the_chain_again_and_sees_tampering(chain: LocalChain) -> None:
    chain.send(KEY, None, CREATION)
    chain.send(KEY, NOWHERE, b"x")
    source: Any = chain._chain
    blocks = [rlp.encode(source.get_canonical_block_by_number(n)) for n in (1, 2)]

    follower: Any = Genesis(POSTER).create(AtomicDB())
    sedes = follower.get_vm().get_block_class()
    follower.import_block(rlp.decode(blocks[0], sedes=sedes))
    forged = rlp.decode(blocks[1], sedes=sedes)
    forged = forged.copy(header=forged.header.copy(state_root=b"\x01" * 32))
    with pytest.raises(Exception, match="state_root"):
        follower.import_block(forged)
    follower.import_block(rlp.decode(blocks[1], sedes=sedes))
    assert follower.get_canonical_head().hash == chain.head_block().hash


@pytest.mark.slow
def test_kill_minus_nine_leaves_whole_blocks(chain_path: Path) -> None:
    program = """
import sys
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.evm import AtomicDB
from assay_contracts.local.genesis import Genesis, address_of, poster_key
key = poster_key(bytes(range(32)))
with LocalChain.open(sys.argv[1], genesis=Genesis(address_of(key))) as chain:
    while True:
        print(chain.send(key, bytes([5]) * 20, b"").block, flush=True)
"""
    command = [sys.executable, "-c", program, str(chain_path)]
    acknowledged = 0
    for stop_after in (3, 7):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(stop_after):
            acknowledged = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read().split("\n")[:-1]
        acknowledged = int(rest[-1]) if rest else acknowledged
        child.stdout.close()
        child.wait()
        with LocalChain.open(chain_path) as chain:
            head = chain.head_block().number
            assert acknowledged <= head <= acknowledged + 1
            assert chain.nonce(POSTER) == head


@pytest.mark.slow
def test_importing_the_chain_keeps_the_recursion_limit() -> None:
    """A raised limit lets nested JSON overflow the C stack (see evm.py)."""
    program = (
        "import sys; limit = sys.getrecursionlimit(); import assay_contracts.local.chain;"
        "print(limit == sys.getrecursionlimit())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
