"""The outbox over a real EVM: with and without a pool, and dying between any two of its steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import Engine, create_engine, event

from assay_contracts.adapters.embedded_chain import EmbeddedChain
from assay_contracts.adapters.offers import Call
from assay_contracts.adapters.outbox import METADATA, Outbox, Request
from assay_contracts.adapters.outbox_core import Alarm, Patience
from assay_contracts.adapters.wallet import Wallet
from assay_contracts.artefact import CONTRACTS
from assay_contracts.credit import ledger_abi
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_protocol.errors import AssayError
from contracts.rpc_node import RpcNode

KEY = poster_key(bytes(range(32)))
WALLET = Wallet(KEY)
CONFIRMATIONS = 2
DEPLOYED = len(CONTRACTS)  # blocks before ours


def header(epoch: int, mark: int = 0) -> Header:
    return Header(bytes([epoch, mark]) * 16, epoch * 100, 5, 3, b"\x01" * 32, b"\x02" * 32)


def post(ledger: bytes, epoch: int, mark: int = 0, keep: bool = True) -> Request:
    call = Call(ledger, ledger_abi.post_call(epoch, header(epoch, mark)))
    return Request(key=f"epoch-{epoch}", call=call, lane="epochs", keep=keep)


def note(number: int, lag: int = 0) -> Request:
    call = Call(WALLET.address, b"note %d" % number)
    return Request(key=f"note-{number}", call=call, lag=lag, keep=True)


async def code_of(action: Callable[[], Awaitable[Any]]) -> str:
    with pytest.raises(AssayError) as caught:
        await action()
    return caught.value.code


def opened(url: str) -> Engine:
    engine = create_engine(url)
    METADATA.create_all(engine)
    return engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = opened(f"sqlite:///{tmp_path / 'outbox.db'}")
    yield made
    made.dispose()


@pytest.fixture
def outbox(engine: Engine, ledger: CreditLedgerClient, chain: LocalChain) -> Outbox:
    return Outbox(engine, EmbeddedChain(chain), WALLET, Patience())


# ---- the embedded chain ----


async def test_submitted_calls_are_mined_in_order(
    outbox: Outbox, ledger: CreditLedgerClient, chain: LocalChain
) -> None:
    for epoch in (1, 2, 3):
        await outbox.submit(post(ledger.address, epoch))
        await outbox.submit(note(epoch))
    assert ledger.head() == 0
    await outbox.pump()
    assert (ledger.head(), outbox.pending, chain.head_block().number) == (3, 0, DEPLOYED + 6)
    place = (await outbox.settled("note-2")).place
    assert place is not None
    found = chain.transaction(place.transaction)
    assert found is not None
    assert (found.data, found.to, found.block_hash) == (
        b"note 2",
        WALLET.address,
        place.block_hash,
    )
    await outbox.pump()
    assert chain.head_block().number == DEPLOYED + 6


async def test_a_key_is_one_call(outbox: Outbox, ledger: CreditLedgerClient) -> None:
    for _ in range(2):
        await outbox.submit(post(ledger.address, 1))
        await outbox.pump()
    assert await code_of(lambda: outbox.submit(post(ledger.address, 1, mark=9))) == "chain_mismatch"
    assert ledger.head() == 1


async def test_keys_and_calls_are_bounded(outbox: Outbox) -> None:
    for key, size in (("", 1), ("k" * 129, 1), ("k", 100_001)):
        request = Request(key=key, call=Call(WALLET.address, bytes(size)))
        assert await code_of(lambda r=request: outbox.submit(r)) == "oversized"  # type: ignore[misc]
    assert await code_of(lambda: outbox.settled("nothing")) == "chain_mismatch"


async def test_who_waits_is_woken(outbox: Outbox, ledger: CreditLedgerClient) -> None:
    ended: list[int] = []

    async def wait(epoch: int) -> None:
        settlement = await outbox.settled(f"epoch-{epoch}")
        assert settlement.place is not None
        ended.append(settlement.place.block)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for epoch in (1, 2):
                await outbox.submit(post(ledger.address, epoch))
                nursery.start_soon(wait, epoch)
            nursery.start_soon(outbox.run)
            while len(ended) < 2:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert ended == [DEPLOYED + 1, DEPLOYED + 2]


async def test_what_the_contract_refuses_fails_or_is_kept(
    outbox: Outbox, ledger: CreditLedgerClient, chain: LocalChain
) -> None:
    await outbox.submit(post(ledger.address, 2, keep=False))
    await outbox.pump()
    settlement = await outbox.settled("epoch-2")
    assert settlement.place is None
    assert "EpochOutOfOrder" in settlement.reason or "Revert" in settlement.reason
    assert chain.nonce(WALLET.address) == DEPLOYED, "no nonce was burnt"
    await outbox.submit(post(ledger.address, 1))
    await outbox.submit(post(ledger.address, 2, keep=False))  # and now it is tried again
    await outbox.pump()
    assert ledger.head() == 2


async def test_an_older_copy_of_the_chain_gets_what_it_lost_again(
    tmp_path: Path, engine: Engine, chain: LocalChain, chain_path: Path, outbox: Outbox
) -> None:
    ledger = CreditLedgerClient(chain, KEY)
    await outbox.submit(post(ledger.address, 1))
    await outbox.pump()
    copy = tmp_path / "copy.sqlite"
    chain.backup(copy)
    for epoch in (2, 3):
        await outbox.submit(post(ledger.address, epoch))
    await outbox.submit(note(1))
    await outbox.pump()
    before = [chain.block(n) for n in range(DEPLOYED + 2, DEPLOYED + 5)]
    with LocalChain.open(copy) as restored:
        older = CreditLedgerClient(restored, KEY)
        assert older.head() == 1
        alarms: list[Alarm] = []
        again = Outbox(engine, EmbeddedChain(restored), WALLET, Patience(), on_alarm=alarms.append)
        await again.pump()
        assert all(older.is_posted(epoch, header(epoch)) for epoch in (1, 2, 3))
        after = [restored.block(n) for n in range(DEPLOYED + 2, DEPLOYED + 5)]
        assert [b and b.transactions for b in after] == [b and b.transactions for b in before]
        assert [alarm.code for alarm in alarms] == ["chain_mismatch"]


async def test_an_outbox_is_of_one_chain(
    tmp_path: Path, engine: Engine, outbox: Outbox, ledger: CreditLedgerClient
) -> None:
    await outbox.submit(note(1))
    genesis = Genesis(WALLET.address, chain_id=7)
    with LocalChain.open(tmp_path / "other.sqlite", genesis=genesis) as other:
        strange = Outbox(engine, EmbeddedChain(other), WALLET, Patience())
        assert await code_of(strange.pump) == "chain_mismatch"
        assert await code_of(lambda: strange.submit(note(1))) == "chain_mismatch"
        assert other.head_block().number == 0


BEFORE_SENDING, AFTER_SENDING, ELSEWHERE = 71, 72, 73


class Fuse:
    """Ends the process at its n-th step: around every statement, commit and transaction sent."""

    def __init__(self, left: int) -> None:
        self.left, self.place = left, ELSEWHERE

    def step(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(self.place)

    def watch(self, engine: Engine) -> None:
        for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(engine, name, self.step)


class FusedChain(EmbeddedChain):
    """Dies before or after sending, too."""

    def __init__(self, chain: LocalChain, fuse: Fuse) -> None:
        super().__init__(chain)
        self._fuse = fuse

    async def send_raw(self, raw: bytes) -> bytes:
        self._fuse.place = BEFORE_SENDING
        self._fuse.step()
        name = await super().send_raw(raw)
        self._fuse.place = AFTER_SENDING
        self._fuse.step()
        self._fuse.place = ELSEWHERE
        return name


async def epoch_and_note(folder: Path, turn: int, fuse: Fuse) -> None:
    """Submit both and pump; the fuse may end it anywhere. Then they are there, once."""
    engine = create_engine(f"sqlite:///{folder / 'outbox'}")
    with LocalChain.open(folder / "chain") as chain:
        ledger = CreditLedgerClient(chain, KEY)
        fuse.watch(engine)
        outbox = Outbox(engine, FusedChain(chain, fuse), WALLET, Patience())
        await outbox.submit(post(ledger.address, turn))
        await outbox.submit(note(turn))
        await outbox.pump()
        assert ledger.is_posted(turn, header(turn))
        assert (ledger.head(), outbox.pending) == (turn, 0)
        assert chain.head_block().number == DEPLOYED + 2 * turn, "an epoch and a note each time"
    engine.dispose()


def die_everywhere(folder: Path) -> None:
    """For every n: a child that ends at the n-th step, and another that finds one of each."""
    opened(f"sqlite:///{folder / 'outbox'}").dispose()
    with LocalChain.open(folder / "chain", genesis=Genesis(WALLET.address)) as chain:
        CreditLedgerClient(chain, KEY).deploy()
    turn, ends = 0, []
    while 0 not in ends:
        turn += 1
        ends.append(in_child(folder, turn, Fuse(turn)))
        assert in_child(folder, turn, Fuse(0)) == 0, turn
    assert set(ends) == {0, BEFORE_SENDING, AFTER_SENDING, ELSEWHERE}
    print(turn)


def in_child(folder: Path, turn: int, fuse: Fuse) -> int:
    """The exit code of a forked process."""
    child = os.fork()
    if child == 0:
        try:
            trio.run(epoch_and_note, folder, turn, fuse)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def program(text: str, folder: Path) -> subprocess.Popen[str]:
    """A process of its own with this module's names; `folder` is defined."""
    lines = ["from contracts.test_outbox import *", f"folder = Path({str(folder)!r})", text]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_a_crash_at_any_step_posts_exactly_once(tmp_path: Path) -> None:
    dying = program("die_everywhere(folder)", tmp_path)
    out, _ = dying.communicate(timeout=240)
    assert dying.returncode == 0
    assert int(out) > 20, "many steps were tried"


@pytest.mark.slow
def test_kill_minus_nine_posts_exactly_once(tmp_path: Path) -> None:
    text = """
async def main():
    chain = LocalChain.open(folder / "chain", genesis=Genesis(WALLET.address))
    ledger = CreditLedgerClient(chain, KEY)
    ledger.deploy()
    engine = opened(f"sqlite:///{folder / 'outbox'}")
    outbox = Outbox(engine, EmbeddedChain(chain), WALLET, Patience())
    await outbox.pump()
    while True:
        epoch = ledger.head() + 1
        await outbox.submit(post(ledger.address, epoch))
        print(epoch, flush=True)
        await outbox.pump()
trio.run(main)
"""
    for lines in (1, 2, 4):
        child = program(text, tmp_path)
        assert child.stdout is not None
        submitted = 0
        for _ in range(lines):
            submitted = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        submitted = int((child.stdout.read().split() or [str(submitted)])[-1])
        child.stdout.close()
        child.wait()
        trio.run(_finish_and_check, tmp_path, submitted)


async def _finish_and_check(folder: Path, submitted: int) -> None:
    engine = create_engine(f"sqlite:///{folder / 'outbox'}")
    with LocalChain.open(folder / "chain") as chain:
        ledger = CreditLedgerClient(chain, KEY)
        outbox = Outbox(engine, EmbeddedChain(chain), WALLET, Patience())
        await outbox.pump()
        assert ledger.head() >= submitted
        assert all(ledger.is_posted(n, header(n)) for n in range(1, ledger.head() + 1))
        assert chain.head_block().number == DEPLOYED + ledger.head()
        assert outbox.pending == 0
    engine.dispose()


def test_deploying_again_finds_the_ledger(chain: LocalChain, ledger: CreditLedgerClient) -> None:
    first, blocks = ledger.deploy(), chain.head_block().number
    assert CreditLedgerClient(chain, KEY).deploy() == first
    assert chain.head_block().number == blocks
    assert (first.address, first.poster) == (ledger.address, address_of(KEY))


# ---- a chain that others mine ----


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RpcNode]:
    (tmp_path / "node").mkdir()
    made = RpcNode(tmp_path / "node", Genesis(WALLET.address))
    yield made
    made.close()


@dataclass
class Remote:
    """An outbox over the node, with what it alarmed of, and a clock that a test moves."""

    node: RpcNode
    engine: Engine
    alarms: list[Alarm] = field(default_factory=list)
    now: int = 0

    def __post_init__(self) -> None:
        self.outbox = self.restarted()

    def restarted(self) -> Outbox:
        return Outbox(
            self.engine,
            self.node.rpc(),
            WALLET,
            Patience(confirmations=CONFIRMATIONS, has_pool=True),
            on_alarm=self.alarms.append,
            clock=lambda: self.now,
        )

    async def until_settled(self) -> None:
        for _ in range(60):
            await self.outbox.pump()
            if not self.outbox.pending:
                return
            self.node.mine()
            self.now += 12_000_000
        raise AssertionError("it never ends")

    def notes(self) -> list[bytes]:
        chain = self.node.chain
        found = []
        for number in range(1, chain.head_block().number + 1):
            block = chain.block(number)
            assert block is not None
            for name in block.transactions:
                mined = chain.transaction(name)
                assert mined is not None
                found += [mined.data] if mined.sender == WALLET.address else []
        return found


@pytest.fixture
def remote(node: RpcNode, engine: Engine) -> Remote:
    return Remote(node, engine)


async def test_over_json_rpc_it_waits_for_its_depth(remote: Remote) -> None:
    for number in (1, 2):
        await remote.outbox.submit(note(number, lag=1))
    await remote.until_settled()
    place = (await remote.outbox.settled("note-1")).place
    assert place is not None
    assert remote.node.chain.head_block().number >= place.block + CONFIRMATIONS + 1
    assert remote.notes() == [b"note 1", b"note 2"]


async def test_a_node_that_forgets_and_a_fork_lose_nothing(remote: Remote) -> None:
    await remote.outbox.submit(note(1))
    await remote.outbox.pump()
    remote.node.forget()
    await remote.outbox.pump()
    assert len(remote.node.pool) == 1
    remote.node.mine()
    await remote.outbox.pump()
    remote.node.go_back(1, keep_pool=False, other=2)
    assert remote.notes() == []
    await remote.until_settled()
    assert remote.notes() == [b"note 1"]


async def test_a_node_restored_from_an_older_state_gets_the_same_nonces(remote: Remote) -> None:
    for number in (1, 2, 3):
        await remote.outbox.submit(note(number))
    await remote.until_settled()
    names = [(await remote.outbox.settled(f"note-{n}")).place for n in (1, 2, 3)]
    remote.node.go_back(4, keep_pool=False)
    remote.outbox = remote.restarted()
    await remote.until_settled()
    again = [(await remote.outbox.settled(f"note-{n}")).place for n in (1, 2, 3)]
    assert [p and p.transaction for p in names] == [p and p.transaction for p in again]
    assert remote.notes() == [b"note 1", b"note 2", b"note 3"]
    assert "chain_mismatch" in [alarm.code for alarm in remote.alarms]


async def test_another_transaction_of_the_wallet_takes_no_call_away(remote: Remote) -> None:
    await remote.outbox.submit(note(1))
    await remote.outbox.pump()
    remote.node.forget()
    remote.node.chain.send(KEY, WALLET.address, b"by hand")
    await remote.until_settled()
    assert remote.notes() == [b"by hand", b"note 1"]


async def test_dear_gas_is_paid_in_steps(remote: Remote) -> None:
    remote.node.base_fee, remote.node.tip = 100, 3
    await remote.outbox.submit(note(1))
    await remote.outbox.pump()
    remote.node.base_fee = 900
    for _ in range(40):
        remote.now += 60_000_000
        await remote.outbox.pump()
        if len(remote.node.pool) == 0:
            break
        for key, raw in list(remote.node.pool.items()):
            remote.node.pool[key] = raw
        remote.node.mine()
    await remote.until_settled()
    assert remote.notes() == [b"note 1"]
    with remote.engine.connect() as connection:
        fees = connection.exec_driver_sql("select fee from chain_attempts order by number").all()
    assert len(fees) > 1


async def test_a_node_that_is_down_or_talks_nonsense_changes_nothing(remote: Remote) -> None:
    import httpx

    await remote.outbox.submit(note(1))
    answers = {
        "chain_unavailable": [httpx.Response(503), httpx.Response(429)],
        "chain_mismatch": [
            httpx.Response(200, text="<html>"),
            httpx.Response(200, json={"jsonrpc": "2.0", "id": 0, "result": 5}),
            httpx.Response(200, json=[]),
        ],
    }
    for code, responses in answers.items():
        for response in responses:
            remote.node.fault = lambda asked, r=response: r  # type: ignore[misc]
            assert await code_of(remote.outbox.pump) == code
    remote.node.fault = lambda asked: None
    await remote.until_settled()
    assert remote.notes() == [b"note 1"]


async def test_another_chain_behind_the_same_url_is_refused(remote: Remote) -> None:
    await remote.outbox.submit(note(1))
    await remote.outbox.pump()
    remote.node.chain_id = 7
    assert await code_of(remote.outbox.pump) == "chain_mismatch"


async def test_cancelled_in_the_middle_it_reads_its_rows_again(
    engine: Engine, chain: LocalChain, ledger: CreditLedgerClient
) -> None:
    outbox = Outbox(engine, EmbeddedChain(chain), WALLET, Patience())
    await outbox.submit(note(1))
    for checkpoints in range(1, 40):
        with trio.CancelScope() as scope:

            async def cancel(after: int, scope: trio.CancelScope) -> None:
                for _ in range(after):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel, checkpoints, scope)
                await outbox.pump()
    await outbox.pump()
    assert chain.head_block().number == DEPLOYED + 1
