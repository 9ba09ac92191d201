"""Every query of the dashboard walks an index: none looks through a table that grows for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from assay_coordinator.adapters.store import Store
from assay_coordinator.dashboard import postings, tallies
from assay_protocol.errors import AssayError

KEY, TICKET = b"\x07" * 32, b"\x08" * 16
# What is bounded however long a network lives: rounds that wait, and epochs that were voided.
BOUNDED = ("SCAN voids",)
QUERIES: dict[str, Callable[[Connection], object]] = {
    "jobs": lambda c: tallies.newest_jobs(c, b"", None, 50),
    "jobs, later": lambda c: tallies.newest_jobs(c, b"", (9, 9, TICKET), 50),
    "jobs of a node": lambda c: tallies.newest_jobs(c, KEY, None, 50),
    "jobs of a node, later": lambda c: tallies.newest_jobs(c, KEY, (9, 9, TICKET), 50),
    "a job": lambda c: tallies.one_job(c, TICKET),
    "audits of": lambda c: tallies.newest_audits(c, "executor", KEY, None, 50),
    "audits by, later": lambda c: tallies.newest_audits(c, "auditor", KEY, (9, TICKET), 50),
    "verdicts": lambda c: tallies.newest_verdicts(c, (), None, 50),
    "verdicts, later": lambda c: tallies.newest_verdicts(c, (), (9, TICKET), 50),
    "verdicts of an outcome": lambda c: tallies.newest_verdicts(c, ("failed",), None, 50),
    "verdicts by span": lambda c: tallies.verdicts_by_span(c, 10**15, 10**9),
    "receipts by span": lambda c: tallies.receipts_by_span(c, 10**15, 10**9),
    "epochs": lambda c: postings.newest_epochs(c, (9,), 50),
    "an epoch": lambda c: postings.one_epoch(c, 9),
    "earnings": lambda c: postings.earned_by_epoch(c, KEY, range(1, 31)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path_factory.mktemp('plans') / 'coordinator.db'}")
    yield made
    made.close()


def plans(store: Store, query: Callable[[Connection], object]) -> list[str]:
    """How the database would carry out each statement of `query`."""
    said: list[tuple[str, Any]] = []
    with store.engine.connect() as connection:

        def hear(_c: Any, _cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
            said.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", hear)
        with suppress(AssayError):  # what it asks for is not there
            query(connection)
        event.remove(connection, "before_cursor_execute", hear)
        return [
            str(row[3])
            for statement, parameters in said
            for row in connection.exec_driver_sql(f"explain query plan {statement}", parameters)
        ]


@pytest.mark.parametrize("name", QUERIES)
def test_it_walks_an_index(store: Store, name: str) -> None:
    steps = plans(store, QUERIES[name])
    assert steps
    for step in steps:
        indexed = "USING" in step and ("INDEX" in step or "PRIMARY KEY" in step)
        right_part = "TEMP B-TREE FOR LAST" in step or "TEMP B-TREE FOR RIGHT" in step
        grouped = step == "USE TEMP B-TREE FOR GROUP BY"  # of a bounded span of time
        listed = "subquery" in step.lower() or step == "SCAN CONSTANT ROW"  # of what was found
        assert indexed or right_part or grouped or listed or step.startswith(BOUNDED), step


def test_the_rule_finds_an_offender(store: Store) -> None:
    steps = plans(store, lambda c: c.execute(text("select * from jobs order by charged")))
    assert any(step.startswith("SCAN jobs") and "USING" not in step for step in steps)
    assert "USE TEMP B-TREE FOR ORDER BY" in steps
