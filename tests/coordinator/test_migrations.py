"""A database of the first version becomes one of this version, rows and all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from assay_coordinator.adapters.store import Store, open_engine
from assay_coordinator.core.evidence import FRESH, unpack
from assay_coordinator.core.records import AuditRow, NodeRow

NODE = (
    "insert into nodes (node, operator, state, jobs, verified, failed, audits_done, audit_faults,"
    " evidence) values (:node, x'02', :state, 9, 8, 1, 2, 0, 77)"
)
AUDIT = (
    "insert into audits (audit, ticket, executor, auditor, at, replayed, mismatches, equal_logits,"
    " evidence, outcome) values (x'01', x'02', x'03', x'04', 5, 96, 2, 90, -3, 'good')"
)


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
