"""A node's receipts are read from its store as it wrote them, and as it prints them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from assay.own_receipts import KEY_FILE, RECEIPTS_FILE, kept_in, kept_of, key_in
from assay_contracts.credit.own import Kept
from assay_node import app
from assay_node.cli import main
from assay_node.store import ReceiptStore, Saved
from assay_protocol.errors import AssayError
from assay_protocol.keyfile import format_key
from assay_protocol.signing import Identity

ROWS = [
    Kept(bytes([n]) * 16, b"receipt %d" % n, b"ack" if n else None, b"ticket %d" % n)
    for n in range(3)
]


def node_folder(folder: Path) -> Path:
    store = ReceiptStore(folder / app.RECEIPTS_FILE)
    saves = [
        Saved(r.ticket, r.receipt, r.ack, r.ticket_blob or b"", at) for at, r in enumerate(ROWS)
    ]
    store.write(saves, [])
    store.close()
    return folder


def test_the_store_is_the_nodes_and_is_not_written_to(tmp_path: Path) -> None:
    assert (KEY_FILE, RECEIPTS_FILE) == (app.KEY_FILE, app.RECEIPTS_FILE)
    folder = node_folder(tmp_path)
    running = ReceiptStore(folder / RECEIPTS_FILE)  # a node that has it open
    assert kept_in(folder) == tuple(ROWS)
    running.close()


def test_what_a_node_prints_is_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = node_folder(tmp_path)
    assert main(["credit", "receipts", "--data-dir", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert kept_of(printed) == tuple(ROWS)
    bare = [
        {key: json.loads(line)[key] for key in ("ticket", "receipt")}
        for line in printed.split()
        if line.startswith("{") and line.endswith("}")
    ]
    assert kept_of("\n".join(map(json.dumps, bare))) == tuple(
        Kept(row.ticket, row.receipt) for row in ROWS[: len(bare)]
    )


@pytest.mark.parametrize(
    "text", ["x", "{}", "[]", '{"ticket": null, "receipt": "00"}', '{"ticket": "0", "receipt": ""}']
)
def test_other_text_is_malformed(text: str) -> None:
    with pytest.raises(AssayError, match="malformed"):
        kept_of(text)


def test_a_store_that_is_not_there_or_none_has_its_code(tmp_path: Path) -> None:
    with pytest.raises(AssayError) as caught:
        kept_in(tmp_path)
    assert caught.value.code == "config_invalid"
    with pytest.raises(AssayError) as caught:
        key_in(tmp_path)
    assert caught.value.code == "config_invalid"
    (tmp_path / RECEIPTS_FILE).write_bytes(b"no database" * 500)
    with pytest.raises(AssayError) as caught:
        kept_in(tmp_path)
    assert caught.value.code == "storage_failed"
    (tmp_path / RECEIPTS_FILE).unlink()
    sqlite3.connect(tmp_path / RECEIPTS_FILE).close()
    with pytest.raises(AssayError) as caught:
        kept_in(tmp_path)
    assert caught.value.code == "storage_failed"


def test_the_account_is_the_nodes_key(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    path.touch(mode=0o600)
    path.write_bytes(format_key(b"\x07" * 32))
    assert key_in(tmp_path) == Identity(b"\x07" * 32).public_key
