import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, select

from assay_contracts.chain import LocalChain
from assay_contracts.genesis import Genesis, address_of, poster_key
from assay_contracts.ledger import CreditLedgerClient
from assay_contracts.ledger_abi import Header
from assay_contracts.outbox import OUTBOX, Outbox
from assay_protocol.errors import AssayError

KEY = poster_key(bytes(range(32)))


def header(epoch: int, mark: int = 0) -> Header:
    return Header(bytes([epoch, mark]) * 16, epoch * 100, 5, 3, b"\x01" * 32, b"\x02" * 32)


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    made = create_engine(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield made
    made.dispose()


@pytest.fixture
def outbox(engine: Engine, ledger: CreditLedgerClient) -> Outbox:
    made = Outbox(engine, ledger)
    made.create_tables()
    return made


def code_of(action: Callable[[], Any]) -> str:
    with pytest.raises(AssayError) as caught:
        action()
    return caught.value.code


def test_submitted_epochs_are_posted_in_order(outbox: Outbox, ledger: CreditLedgerClient) -> None:
    for epoch in (1, 2, 3):
        outbox.submit(f"epoch-{epoch}", epoch, header(epoch))
    assert (outbox.pending(), ledger.head()) == (3, 0)
    assert outbox.pump() == 3
    assert (outbox.pending(), ledger.head()) == (0, 3)
    assert all(ledger.is_posted(epoch, header(epoch)) for epoch in (1, 2, 3))
    assert outbox.pump() == 0


def test_a_row_tells_its_block_and_transaction(
    outbox: Outbox, engine: Engine, chain: LocalChain
) -> None:
    outbox.submit("one", 1, header(1))
    outbox.pump()
    with engine.connect() as connection:
        row = connection.execute(select(OUTBOX)).one()
    head = chain.head_block()
    assert (row.block, row.transaction_hash) == (head.number, head.transactions[0])
    assert (row.state, row.attempts, row.nonce) == ("posted", 1, 1)


def test_the_same_submission_twice_is_one(outbox: Outbox, chain: LocalChain) -> None:
    for _ in range(2):
        outbox.submit("one", 1, header(1))
        outbox.pump()
    assert chain.head_block().number == 2  # the deployment and one post


@pytest.mark.parametrize(
    ("key", "epoch", "mark"), [("one", 1, 1), ("one", 2, 0), ("other", 1, 0), ("other", 1, 1)]
)
@pytest.mark.parametrize("pumped", [False, True])
def test_a_key_or_epoch_belongs_to_one_header(
    outbox: Outbox, pumped: bool, key: str, epoch: int, mark: int
) -> None:
    outbox.submit("one", 1, header(1))
    if pumped:
        outbox.pump()
    assert code_of(lambda: outbox.submit(key, epoch, header(epoch, mark))) == "chain_mismatch"
    assert outbox.pending() == (0 if pumped else 1)


def test_an_epoch_posted_without_the_outbox_is_done(
    outbox: Outbox, ledger: CreditLedgerClient, chain: LocalChain
) -> None:
    ledger.post(1, header(1))
    blocks = chain.head_block().number
    outbox.submit("one", 1, header(1))
    assert outbox.pending() == 0
    outbox.pump()
    assert chain.head_block().number == blocks


def test_another_root_on_chain_is_a_mismatch(outbox: Outbox, ledger: CreditLedgerClient) -> None:
    outbox.submit("one", 1, header(1))
    ledger.post(1, header(1, mark=9))
    assert code_of(outbox.pump) == "chain_mismatch"
    assert code_of(lambda: outbox.submit("one", 1, header(1))) == "chain_mismatch"


def test_a_gap_is_out_of_order(outbox: Outbox) -> None:
    assert code_of(lambda: outbox.submit("two", 2, header(2))) == "epoch_out_of_order"
    outbox.submit("one", 1, header(1))
    outbox.submit("two", 2, header(2))  # its predecessor waits in the outbox
    assert code_of(lambda: outbox.submit("four", 4, header(4))) == "epoch_out_of_order"


@pytest.mark.parametrize("key", ["", "k" * 129])
def test_a_key_is_bounded(outbox: Outbox, key: str) -> None:
    assert code_of(lambda: outbox.submit(key, 1, header(1))) == "oversized"


def test_a_refusal_of_the_contract_is_raised_and_retried(
    outbox: Outbox, ledger: CreditLedgerClient
) -> None:
    outbox.submit("one", 1, header(1))
    zero = Header(bytes(32), 500, 0, 0, bytes(32), bytes(32))
    outbox.submit("two", 2, zero)
    for _ in range(2):
        assert code_of(outbox.pump) == "contract_refused"
        assert (ledger.head(), outbox.pending()) == (1, 1)


def test_an_older_copy_of_the_chain_gets_its_epochs_again(
    tmp_path: Path, engine: Engine, chain: LocalChain, chain_path: Path, outbox: Outbox
) -> None:
    outbox.submit("one", 1, header(1))
    outbox.pump()
    copy = tmp_path / "copy.sqlite"
    for suffix in ("", "-wal"):
        shutil.copy(f"{chain_path}{suffix}", f"{copy}{suffix}")
    for epoch in (2, 3):
        outbox.submit(str(epoch), epoch, header(epoch))
        outbox.pump()
    chain.close()

    with LocalChain.open(copy) as restored:
        ledger = CreditLedgerClient(restored, KEY)
        assert ledger.head() == 1
        assert Outbox(engine, ledger).pump() == 2
        assert all(ledger.is_posted(epoch, header(epoch)) for epoch in (1, 2, 3))


def test_a_chain_that_lost_more_than_the_outbox_has_is_out_of_order(
    tmp_path: Path, engine: Engine, outbox: Outbox, ledger: CreditLedgerClient
) -> None:
    ledger.post(1, header(1))
    outbox.submit("two", 2, header(2))
    outbox.pump()
    with LocalChain.open(tmp_path / "new.sqlite", genesis=Genesis(address_of(KEY))) as fresh:
        empty = CreditLedgerClient(fresh, KEY)
        empty.deploy()
        assert code_of(Outbox(engine, empty).pump) == "epoch_out_of_order"


class Crash(BaseException):
    """Not an Exception: nothing may catch it and go on."""


class Fuse:
    """Burns at the n-th step: before or after every statement, commit and transaction sent."""

    def __init__(self, path: Path, send: Callable[[bytes], Any]) -> None:
        self.left = 0
        self.burnt_at = ""
        self.engine = create_engine(f"sqlite:///{path}")
        self._opened: list[Any] = []
        self._send = send
        for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(self.engine, name, self.step)
        event.listen(self.engine, "connect", lambda raw, _: self._opened.append(raw))

    def step(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise Crash

    def send_raw(self, raw: bytes) -> Any:
        self.burnt_at = "before sending"
        self.step()
        receipt = self._send(raw)
        self.burnt_at = "after sending"
        self.step()
        self.burnt_at = ""
        return receipt

    def die(self) -> None:
        """What the end of a process does: its connections close, its open transactions are gone."""
        for raw in self._opened:
            with suppress(sqlite3.ProgrammingError):  # SQLAlchemy closed it before us
                raw.rollback()
                raw.close()
        gc.collect()  # SQLite holds its lock until the last statement object is gone


@pytest.mark.slow
def test_a_crash_at_any_step_posts_exactly_once(
    tmp_path: Path, chain: LocalChain, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every n: crash at the n-th step of submit and pump, start again, find one post."""
    send = chain.send_raw
    ledger = CreditLedgerClient(chain, KEY)
    finished, epoch, places = False, 0, set()
    while not finished:
        epoch += 1
        fuse = Fuse(tmp_path / "ledger.sqlite", send)
        fuse.left = epoch
        monkeypatch.setattr(chain, "send_raw", fuse.send_raw)
        try:
            crashing = Outbox(fuse.engine, ledger)
            crashing.submit(f"epoch-{epoch}", epoch, header(epoch))
            crashing.pump()
            finished = True
        except Crash:
            places.add(fuse.burnt_at)
        fuse.die()  # not while the exception lives: its frames hold statements
        monkeypatch.setattr(chain, "send_raw", send)
        outbox.submit(f"epoch-{epoch}", epoch, header(epoch))
        outbox.pump()
        assert ledger.is_posted(epoch, header(epoch))
        assert (ledger.head(), outbox.pending()) == (epoch, 0)
        assert chain.head_block().number == 1 + epoch
    assert places == {"", "before sending", "after sending"}
    assert epoch > 10


@pytest.mark.slow
def test_kill_minus_nine_posts_exactly_once(tmp_path: Path) -> None:
    program = """
import sys
from sqlalchemy import create_engine
from assay_contracts.chain import LocalChain
from assay_contracts.genesis import Genesis, address_of, poster_key
from assay_contracts.ledger import CreditLedgerClient
from assay_contracts.ledger_abi import Header
from assay_contracts.outbox import Outbox
key = poster_key(bytes(range(32)))
chain = LocalChain.open(sys.argv[1] + "/chain", genesis=Genesis(address_of(key)))
ledger = CreditLedgerClient(chain, key)
ledger.deploy()
outbox = Outbox(create_engine(f"sqlite:///{sys.argv[1]}/ledger"), ledger)
outbox.create_tables()
outbox.pump()
while True:
    epoch = ledger.head() + 1
    header = Header(bytes([epoch, 0]) * 16, epoch * 100, 5, 3, b"\\1" * 32, b"\\2" * 32)
    outbox.submit(str(epoch), epoch, header)
    print(epoch, flush=True)
    outbox.pump()
"""
    for lines in (1, 2, 4):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        submitted = 0
        for _ in range(lines):
            submitted = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        submitted = int((child.stdout.read().split() or [str(submitted)])[-1])
        child.stdout.close()
        child.wait()
        _finish_and_check(tmp_path, submitted)


def _finish_and_check(folder: Path, submitted: int) -> None:
    engine = create_engine(f"sqlite:///{folder / 'ledger'}")
    with LocalChain.open(folder / "chain") as chain:
        ledger = CreditLedgerClient(chain, KEY)
        outbox = Outbox(engine, ledger)
        outbox.pump()
        assert ledger.head() >= submitted
        assert all(ledger.is_posted(n, header(n)) for n in range(1, ledger.head() + 1))
        assert chain.head_block().number == 1 + ledger.head()
        assert outbox.pending() == 0
    engine.dispose()


def test_deploying_again_finds_the_ledger(chain: LocalChain, ledger: CreditLedgerClient) -> None:
    first, blocks = ledger.deploy(), chain.head_block().number
    assert CreditLedgerClient(chain, KEY).deploy() == first
    assert chain.head_block().number == blocks
    assert (first.address, first.poster) == (ledger.address, address_of(KEY))


def test_a_poster_that_sent_something_else_first_has_no_ledger(chain: LocalChain) -> None:
    chain.send(KEY, b"\x05" * 20, b"")
    assert code_of(CreditLedgerClient(chain, KEY).deploy) == "chain_mismatch"


def test_other_code_where_the_ledger_should_be_is_a_mismatch(chain: LocalChain) -> None:
    chain.send(KEY, None, bytes.fromhex("600160005360016000f3"))  # a contract of one byte
    assert code_of(CreditLedgerClient(chain, KEY).deploy) == "chain_mismatch"


def test_a_ledger_of_another_poster_is_a_mismatch(chain: LocalChain) -> None:
    from assay_contracts.artefact import load

    chain.send(KEY, None, load("CreditLedger").bytecode + bytes(12) + b"\x05" * 20)
    assert code_of(CreditLedgerClient(chain, KEY).deploy) == "chain_mismatch"


def test_posting_directly_keeps_the_order(ledger: CreditLedgerClient) -> None:
    assert code_of(lambda: ledger.post(2, header(2))) == "epoch_out_of_order"
    ledger.post(1, header(1))
    ledger.post(1, header(1))
    assert code_of(lambda: ledger.post(1, header(1, mark=9))) == "chain_mismatch"
    assert ledger.head() == 1
