"""A note is on chain once, whatever crashes when, and whoever else sends for the same poster."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from assay_contracts.chain import LocalChain
from assay_contracts.genesis import address_of, poster_key
from assay_contracts.ledger import CreditLedgerClient
from assay_contracts.notes import NOTE_BYTES_MAX, Notes
from assay_contracts.outbox import METADATA, Outbox
from assay_contracts.readers import FileChain, HttpChain, MinedNote
from assay_contracts.rpc import _answer_all
from assay_protocol.errors import AssayError
from contracts.test_outbox import Crash, Fuse, header

KEY = poster_key(bytes(range(32)))
POSTER = address_of(KEY)


@pytest.fixture
def engine(tmp_path: Path) -> Any:
    made = create_engine(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    METADATA.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
def notes(engine: Engine, ledger: CreditLedgerClient) -> Notes:
    return Notes(engine, ledger, Lock())


def code_of(action: Callable[[], Any]) -> str:
    with pytest.raises(AssayError) as caught:
        action()
    return caught.value.code


def test_a_note_is_there_once_and_says_where(notes: Notes, chain: LocalChain) -> None:
    first = notes.put("one", b"hello")
    assert notes.put("one", b"hello") == first
    assert chain.head_block().number == 2, "the ledger and one note"
    found = chain.transaction(first.transaction)
    assert found is not None
    assert (found.data, found.sender, found.to) == (b"hello", POSTER, POSTER)
    assert (found.block, found.block_hash) == (first.block, first.later_hash)


def test_a_name_has_one_text(notes: Notes) -> None:
    notes.put("one", b"hello")
    assert code_of(lambda: notes.put("one", b"other")) == "chain_mismatch"
    assert code_of(lambda: notes.put("", b"x")) == "oversized"
    assert code_of(lambda: notes.put("two", bytes(NOTE_BYTES_MAX + 1))) == "oversized"


def test_a_later_block_is_waited_for(notes: Notes, chain: LocalChain) -> None:
    """On a chain that others mine, the block that decides is not there at once."""
    assert code_of(lambda: notes.put("one", b"hello", lag=1)) == "busy"
    notes.put("two", b"the next block")
    told = notes.put("one", b"hello", lag=1)
    assert told.later == told.block + 1
    assert told.later_hash == chain.head_block().hash


def test_epochs_and_notes_share_the_poster(
    notes: Notes, engine: Engine, ledger: CreditLedgerClient, chain: LocalChain
) -> None:
    """Whatever was signed and not sent dies when the other takes its nonce."""
    outbox = Outbox(engine, ledger)
    for epoch in (1, 2, 3):
        outbox.submit(str(epoch), epoch, header(epoch))
        notes.put(f"round-{epoch}", bytes([epoch]))
        outbox.pump()
    assert chain.head_block().number == 1 + 6
    assert ledger.head() == 3


@pytest.mark.slow
def test_a_crash_at_any_step_leaves_one_note(
    tmp_path: Path,
    engine: Engine,
    chain: LocalChain,
    ledger: CreditLedgerClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For every n: crash at the n-th step of a note, let an epoch go first, start again."""
    send, places, turn, finished = chain.send_raw, set[str](), 0, False
    outbox = Outbox(engine, ledger)
    while not finished:
        turn += 1
        fuse = Fuse(tmp_path / "ledger.sqlite", send)
        fuse.left = turn
        monkeypatch.setattr(chain, "send_raw", fuse.send_raw)
        try:
            Notes(fuse.engine, ledger, Lock()).put(f"note-{turn}", bytes([turn]))
            finished = True
        except Crash:
            places.add(fuse.burnt_at)
        fuse.die()
        monkeypatch.setattr(chain, "send_raw", send)
        outbox.submit(f"epoch-{turn}", turn, header(turn))
        outbox.pump()
        noted = Notes(engine, ledger, Lock()).put(f"note-{turn}", bytes([turn]))
        found = chain.transaction(noted.transaction)
        assert found is not None
        assert found.data == bytes([turn])
        assert chain.head_block().number == 1 + 2 * turn, "an epoch and a note each time"
    assert places == {"", "before sending", "after sending"}
    assert turn > 6


def test_notes_read_the_same_from_the_file_and_by_json_rpc(
    notes: Notes, chain: LocalChain, chain_path: Path
) -> None:
    noted = notes.put("one", b"hello")
    file = FileChain(chain_path)

    def answer(request: bytes) -> bytes:
        return json.dumps(_answer_all(chain, json.loads(request))).encode()

    with HttpChain("http://node/", send=answer) as rpc:
        for reader in (file, rpc):
            assert reader.transaction(noted.transaction) == MinedNote(
                POSTER, POSTER, b"hello", noted.block
            )
            assert reader.transaction(bytes(32)) is None
            assert reader.block_hash(noted.block) == noted.later_hash
            assert reader.block_hash(99) is None
            assert [one.data for one in reader.notes(noted.block)] == [b"hello"]
            assert reader.notes(1)[0].to == b"", "the ledger was created"
            assert reader.notes(99) == ()
    file.close()


@pytest.mark.parametrize(
    "result",
    ["x", {}, {"hash": 7}, {"hash": "zz"}, {"hash": "0xzz"}, [], {"transactions": 5}],
)
def test_a_node_s_nonsense_is_a_mismatch(result: Any) -> None:
    answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    reader = HttpChain("http://node/", send=lambda _: answer)
    assert code_of(lambda: reader.block_hash(1)) == "chain_mismatch"
    assert code_of(lambda: reader.notes(1)) == "chain_mismatch"
    if not isinstance(result, dict):
        assert code_of(lambda: reader.transaction(bytes(32))) == "chain_mismatch"


def test_a_transaction_that_waits_is_not_there_yet() -> None:
    answer = b'{"jsonrpc": "2.0", "id": 1, "result": {"blockNumber": null}}'
    assert HttpChain("http://node/", send=lambda _: answer).transaction(bytes(32)) is None
