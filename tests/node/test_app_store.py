"""Receipts on disk: what `write` returned for is there after the process is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from assay_node.core.outbox import Owed
from assay_node.store import Mark, ReceiptStore, Saved
from assay_protocol.errors import AssayError
from assay_protocol.signing import seal
from node.core.node_bench import COORDINATOR, NOW, SECOND, make_ticket

KILLED = """
import os, signal, sys
from pathlib import Path
from assay_node.store import ReceiptStore, Saved
store = ReceiptStore(Path(sys.argv[1]))
store.write([Saved(bytes([n]) * 16, b"receipt", None, b"ticket", n) for n in range(3)], [])
os.kill(os.getpid(), signal.SIGKILL)
"""


def saved(number: int, ack: bytes | None = None) -> Saved:
    ticket = make_ticket(number)
    return Saved(ticket.ticket, b"receipt", ack, seal(COORDINATOR, ticket), NOW + number)


def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "receipts.sqlite"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], env=environment, timeout=20, check=False
    )
    assert done.returncode == -9
    store = ReceiptStore(path)
    assert [one.ticket for one in store.owed()] == [bytes([n]) * 16 for n in range(3)]
    store.close()


def test_a_newer_ack_replaces_the_older_and_booking_ends_the_debt(tmp_path: Path) -> None:
    store = ReceiptStore(tmp_path / "receipts.sqlite")
    store.write([saved(1), saved(2)], [])
    store.write([saved(1, b"ack")], [])
    one = saved(1, b"ack")
    assert store.owed()[0] == Owed(one.ticket, one.ticket_blob, b"receipt", b"ack")
    store.write([], [Mark(one.ticket, "booked", 42, ""), Mark(saved(2).ticket, "refused", 0, "x")])
    assert store.owed() == []
    rows = store.export_receipts()
    assert [(row.state, row.charged, row.code) for row in rows] == [
        ("booked", 42, ""),
        ("refused", 0, "x"),
    ]
    store.close()


def test_used_tickets_are_those_that_have_not_expired(tmp_path: Path) -> None:
    store = ReceiptStore(tmp_path / "receipts.sqlite")
    store.write([saved(1)], [])
    end = NOW + 600 * SECOND
    assert store.used_tickets(NOW) == {saved(1).ticket: end}
    assert store.used_tickets(end) == {}
    store.close()


def test_a_batch_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    store = ReceiptStore(tmp_path / "receipts.sqlite")
    with pytest.raises(AssayError) as caught:
        store.write([saved(1)], [Mark(saved(1).ticket, "nonsense", 0, "")])
    assert caught.value.code == "storage_failed"
    assert store.export_receipts() == []
    store.close()


def test_a_full_disk_has_its_own_code(tmp_path: Path) -> None:
    store = ReceiptStore(tmp_path / "receipts.sqlite")
    pages = store._db.execute("pragma page_count").fetchone()[0]
    store._db.execute(f"pragma max_page_count = {pages + 1}")
    with pytest.raises(AssayError) as caught:
        store.write([Saved(b"t" * 16, bytes(200_000), None, b"t", NOW)], [])
    assert caught.value.code == "disk_full"
    store.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "receipts.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(AssayError) as caught:
        ReceiptStore(path)
    assert caught.value.code == "storage_failed"
