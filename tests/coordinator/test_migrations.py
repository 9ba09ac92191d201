"""A database of the first version becomes one of this version, rows and all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from assay_coordinator.adapters.check import check_books
from assay_coordinator.adapters.store import Store, open_engine
from assay_coordinator.core.evidence import FRESH, unpack
from assay_coordinator.core.records import AuditRow, EpochRow, LeavesRow, LineRow, NodeRow
from assay_protocol.credit_tree import (
    COMPUTE,
    CreditLeaf,
    CreditLine,
    account_tree,
    receipts_root,
)
from assay_protocol.leaf_file import LeafFile

NODE = (
    "insert into nodes (node, operator, state, jobs, verified, failed, audits_done, audit_faults,"
    " evidence) values (:node, x'02', :state, 9, 8, 1, 2, 0, 77)"
)
AUDIT = (
    "insert into audits (audit, ticket, executor, auditor, at, replayed, mismatches, equal_logits,"
    " evidence, outcome) values (x'01', x'02', x'03', x'04', 5, 96, 2, 90, -3, 'good')"
)

ACCOUNT = b"\x0a" * 32
LINES = (("audit", 1), ("audit", 7), ("job", 3))  # as their tree was ordered then
LINE = "insert into lines values (1, :a, :kind, :ref, :digest, :amount)"
CREDIT = "insert into credit values (:a, 0, :total)"
LEAF = "insert into leaves values (1, 0, :a, :total, :total, :root)"
EPOCH = "insert into epochs values (1, 1, :root, :total, 1, 1, x'00', 'queued')"


def test_nodes_keep_their_record_and_begin_with_fresh_evidence(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'coordinator.db'}"
    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", "assay_coordinator:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for node, state in ((b"\x01", "active"), (b"\x09", "suspended")):
            connection.execute(text(NODE), {"node": node, "state": state})
        connection.execute(text(AUDIT))
    engine.dispose()
    store = Store(url)
    active, banned = store.rows(NodeRow)
    assert (active.state, active.verified, active.evidence) == ("active", 8, 0)
    assert banned.state == "convicted", "that was what suspension meant"
    assert unpack(active.detectors) == unpack(active.proof) == FRESH
    assert active.offered == b""
    assert active.since == active.audited_at > 10**15, "idleness counts from now on"
    [audit] = store.rows(AuditRow)
    assert (audit.mismatches, audit.equal, audit.class_id) == (2, -1, "")
    store.close()
    again = Store(url)  # nothing is left to do
    assert len(again.rows(NodeRow)) == 2
    again.close()


def test_a_migration_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    """At whatever statement: the next start makes all tables."""
    program = """
import os, sys
from sqlalchemy import event
from assay_coordinator.adapters import store
left = int(sys.argv[2])
def step(*_):
    global left
    left -= 1
    if left == 0:
        os._exit(7)
engine = store.open_engine(sys.argv[1])
event.listen(engine, "after_cursor_execute", step)
store.migrate(engine)
"""
    for steps in (3, 20, 60, 90):
        url = f"sqlite:///{tmp_path / f'{steps}.db'}"
        killed = subprocess.run([sys.executable, "-c", program, url, str(steps)], check=False)
        assert killed.returncode == 7
        store = Store(url)
        assert store.rows(NodeRow) == []
        store.close()


def test_credit_gets_roles_and_leaves_become_files(tmp_path: Path) -> None:
    """And the books of the version before stay in order; going back gives the leaves back."""
    url = f"sqlite:///{tmp_path / 'coordinator.db'}"
    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", "assay_coordinator:migrations")
    lines = [CreditLine(kind, bytes([n]) * 16, bytes(32), n) for kind, n in LINES]
    root, total = receipts_root(lines)
    leaf = CreditLeaf(ACCOUNT, COMPUTE, total, total, root)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for line in reversed(lines):
            values = {"a": ACCOUNT, "kind": line.kind, "ref": line.id, "amount": line.amount}
            values["digest"] = line.digest
            connection.execute(text(LINE), values)
        connection.execute(text(CREDIT), {"a": ACCOUNT, "total": total})
        connection.execute(text(LEAF), {"a": ACCOUNT, "total": total, "root": root})
        tree = account_tree([leaf])
        connection.execute(text(EPOCH), {"root": tree.root, "total": total})
    engine.dispose()
    store = Store(url)
    [row] = store.rows(LeavesRow)
    assert list(LeafFile(row.data).leaves()) == [leaf]
    [epoch] = store.rows(EpochRow)
    assert epoch.data_hash == LeafFile(row.data).digest, "it is posted with its file's hash"
    assert [line.position for line in store.rows(LineRow)] == [0, 1, 2]
    stored = store.load(0)
    assert [(one.account, one.role) for one in stored.credit] == [(ACCOUNT, COMPUTE)]
    assert not [fault for fault in check_books(url) if fault.startswith("L5")]
    with store.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
        again = connection.execute(text("select account, cumulative, receipts_root from leaves"))
        assert [tuple(one) for one in again] == [(ACCOUNT, total, root)]
        assert connection.execute(text("select count(*) from lines")).scalar() == 3
    store.close()
