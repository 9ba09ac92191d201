"""Every corruption of the tables is found, and sound books raise nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import inspect

from assay_coordinator.adapters.check import check_books
from assay_coordinator.adapters.store import Store, open_engine
from assay_coordinator.adapters.tables import METADATA, TABLES
from assay_coordinator.cli import main
from assay_coordinator.core.links import Links
from assay_coordinator.core.lottery import UNDRAWN, entry_of
from assay_coordinator.core.records import (
    BalanceRow,
    CreditRow,
    EpochRow,
    JobRow,
    LeavesRow,
    LineRow,
    NodeRow,
    PostingRow,
    PricingRow,
    RoundRow,
    Row,
)
from assay_protocol.codec import encode
from assay_protocol.credit_tree import CreditLeaf, CreditLine, account_tree, receipts_root
from assay_protocol.errors import AssayError
from assay_protocol.leaf_file import encode_leaves
from assay_protocol.lottery import round_tree
from assay_protocol.splits import AUDITOR, no_splits

NOBODY, CLIENT, NODE = bytes(32), b"c" * 32, b"n" * 32
PAID, HELD = b"p" * 16, b"h" * 16
LINES_ROOT, _ = receipts_root([CreditLine("job", PAID, bytes(32), 100)])
LEAF = CreditLeaf(NODE, 0, 100, 100, LINES_ROOT)
TREE, RULES = account_tree([LEAF]), no_splits(0)
LEAVES = encode_leaves(1, [LEAF.encode()])


def _leaves(*leaves: CreditLeaf) -> LeavesRow:
    return LeavesRow(1, encode_leaves(1, (leaf.encode() for leaf in leaves)))


def _posting(seq: int, source: str, target: str, amount: int, reason: str, ref: bytes) -> Row:
    owners = {"mint": NOBODY, "available": CLIENT, "reserved": CLIENT}
    return PostingRow(
        seq,
        seq,
        source,
        owners.get(source, NODE),
        target,
        owners.get(target, NODE),
        amount,
        reason,
        ref,
    )


def _job(ticket: bytes, state: str, charged: int) -> JobRow:
    return JobRow(ticket, CLIENT, NODE, bytes(32), state, b"t", ticket, charged, charged, 1, 1, "")


LINKS = Links(b"\x05" * 32, 8)


def _booked(job: JobRow, numerator: int) -> JobRow:
    """In round 1, at rate 1 or 0: drawn if and only if it has a rate."""
    return replace(
        job, round=1, numerator=numerator, denominator=1, booked_at=1, drawn_at=5 * numerator
    )


JOBS = (_booked(_job(PAID, "released", 100), 1), _booked(_job(HELD, "held", 50), 0))


def _round(number: int, jobs: Sequence[JobRow]) -> RoundRow:
    tree = round_tree(entry_of(job, UNDRAWN) for job in jobs)
    link = LINKS.of_round(number)
    blank = bytes(32)
    return RoundRow(
        number, "drawn", 2, tree.root, len(jobs), 4, 500, 1, link, blank, blank, 7, blank, 3
    )


SOUND: tuple[Row, ...] = (
    _posting(1, "mint", "available", 1000, "grant", bytes(16)),
    _posting(2, "available", "reserved", 100, "reserve", PAID),
    _posting(3, "reserved", "escrow", 100, "charge", PAID),
    _posting(4, "escrow", "earned", 100, "pay", PAID),
    _posting(5, "available", "reserved", 50, "reserve", HELD),
    _posting(6, "reserved", "escrow", 50, "charge", HELD),
    BalanceRow("mint", NOBODY, -1000),
    BalanceRow("available", CLIENT, 850),
    BalanceRow("reserved", CLIENT, 0),
    BalanceRow("escrow", NODE, 50),
    BalanceRow("earned", NODE, 100),
    *JOBS,
    _round(1, JOBS),
    _round(2, ()),
    CreditRow(NODE, 0, 0, 100),
    LineRow(1, NODE, 0, 0, "job", PAID, bytes(32), 100),
    LeavesRow(1, LEAVES),
    PricingRow(1, RULES.digest, encode(RULES.pricing)),
    EpochRow(1, 1, TREE.root, TREE.total, 1, 1, sha256(LEAVES).digest(), RULES.digest, "posted"),
)


def _books(folder: Path, changes: Sequence[Row] = (), without: Sequence[Row] = ()) -> str:
    url = f"sqlite:///{folder / 'coordinator.db'}"
    store = Store(url)
    with store.engine.begin() as connection:
        for row in (*(row for row in SOUND if row not in without), *changes):
            table, key = TABLES[type(row)], type(row).KEY
            same: Any = [table.c[name] == getattr(row, name) for name in key]
            connection.execute(table.delete().where(*same))
            values = {column.name: getattr(row, column.name) for column in table.columns}
            connection.execute(table.insert().values(values))
    store.close()
    return url


def _of(cls: type[Any], **key: Any) -> Any:
    """The sound row of a class with these fields."""
    rows = [r for r in SOUND if isinstance(r, cls)]
    return next(r for r in rows if all(getattr(r, k) == v for k, v in key.items()))


def test_sound_books_raise_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_books(_books(tmp_path)) == []
    assert main(["check", "--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "the books are in order\n"


@pytest.mark.parametrize(
    ("changes", "without", "finding"),
    [
        ([BalanceRow("available", CLIENT, 851)], [], "L1: purse available"),
        ([BalanceRow("treasury", NOBODY, 7)], [], "L1: purse treasury"),
        ([replace(_of(PostingRow, seq=1), amount=10)], [], "is negative"),
        ([], [_of(PostingRow, seq=4)], "L1: postings are not numbered"),
        ([replace(_of(PostingRow, seq=6), ref=PAID)], [], "charged 2 times"),
        ([], [_of(JobRow, ticket=HELD)], "L3: charge without ticket"),
        ([replace(_of(JobRow, ticket=PAID), receipt_blob=b"")], [], "without a receipt"),
        ([replace(_of(JobRow, ticket=PAID), charged=99)], [], "L3: ticket"),
        ([replace(_of(JobRow, ticket=HELD), state="released")], [], "L1: escrow"),
        ([replace(_of(CreditRow), cumulative=101)], [], "L1: credit"),
        ([], [_of(CreditRow)], "L1: credit"),
        ([], [_of(LineRow)], "L1: credit"),
        ([replace(_of(EpochRow), root=b"x" * 32)], [], "L5: epoch 1 has another root"),
        ([replace(_of(EpochRow), total=101)], [], "L5: epoch 1 has another root"),
        ([replace(_of(CreditRow), role=AUDITOR)], [_of(CreditRow)], "L1: credit"),
        ([replace(_of(LineRow), role=AUDITOR)], [_of(LineRow)], "in role"),
        ([replace(_of(CreditRow), position=1)], [], "L5: accounts do not each have a place"),
        ([_leaves(replace(LEAF, cumulative=99))], [], "L5: the leaves of epoch 1"),
        ([_leaves(replace(LEAF, receipts_root=bytes(32)))], [], "L5: the leaves of epoch 1"),
        ([_leaves(LEAF, LEAF)], [], "L5: the leaves of epoch 1"),
        ([replace(_of(LineRow), digest=b"d" * 32)], [], "L5: the leaves of epoch 1"),
        ([_leaves()], [], "L5: epoch 1 has another root"),
        ([replace(_of(EpochRow), data_hash=bytes(32))], [], "L5: epoch 1 has another leaf file"),
        ([], [_of(LeavesRow)], "L5: the leaves of epoch 1 are missing"),
        ([], [_of(PricingRow)], "L5: the rules that priced epoch 1"),
        ([replace(_of(EpochRow), epoch=2)], [_of(EpochRow)], "L5: epoch 1 is missing"),
        ([replace(JOBS[0], drawn_at=0)], [], "V1: ticket"),
        ([replace(JOBS[1], drawn_at=9)], [], "V1: ticket"),
        ([replace(JOBS[1], denominator=2)], [], "V1: round 1 has another root"),
        ([replace(JOBS[1], round=2)], [], "V1: round 1 has another root"),
        ([], [_of(RoundRow, number=1)], "V1: round 1 is missing"),
        ([replace(_of(RoundRow, number=2), link=bytes(32))], [], "V1: the link of round 2"),
    ],
)
def test_each_corruption_is_found(
    tmp_path: Path, changes: list[Row], without: list[Row], finding: str
) -> None:
    found = check_books(_books(tmp_path, changes, without))
    assert any(finding in line for line in found), found
    assert main(["check", "--data-dir", str(tmp_path)]) == 1


def test_migrations_make_the_tables_of_the_code(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'coordinator.db'}")
    seen = inspect(store.engine)
    for name, table in METADATA.tables.items():
        made = {(c["name"], str(c["type"]), c["nullable"]) for c in seen.get_columns(name)}
        wanted = {(c.name, c.type.compile(store.engine.dialect), c.nullable) for c in table.columns}
        assert made == wanted, name
        keys = seen.get_pk_constraint(name)["constrained_columns"]
        assert set(keys) == {c.name for c in table.primary_key}
        assert {i["name"] for i in seen.get_indexes(name)} == {i.name for i in table.indexes}
    store.close()


def test_saving_twice_is_once_but_a_posting_is_never_replaced(tmp_path: Path) -> None:
    store = Store(_books(tmp_path))
    store.commit([replace(_of(CreditRow), cumulative=1), replace(_of(CreditRow), cumulative=2)])
    assert [row.cumulative for row in store.rows(CreditRow)] == [2]
    with pytest.raises(AssayError) as refused:
        store.commit([BalanceRow("mint", NOBODY, 5), replace(_of(PostingRow, seq=1), amount=2)])
    assert refused.value.code == "storage_failed"
    amounts = {(row.purse, row.amount) for row in store.rows(BalanceRow)}
    assert ("mint", -1000) in amounts, "the whole batch was undone"
    store.close()


def test_a_full_database_has_its_own_code_and_takes_rows_again_later(tmp_path: Path) -> None:
    store = Store(_books(tmp_path))
    big = replace(_of(JobRow, ticket=PAID), receipt_blob=bytes(1 << 20))
    with store.engine.connect() as connection:  # the pool gives the same one back
        connection.exec_driver_sql("pragma max_page_count=1")
    with pytest.raises(AssayError) as refused:
        store.commit([big])
    assert refused.value.code == "disk_full"
    with store.engine.connect() as connection:
        connection.exec_driver_sql("pragma max_page_count=1000000")
    store.commit([big])
    assert big in store.rows(JobRow)
    store.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "coordinator.db").write_bytes(b"not a database" * 1_000)
    with pytest.raises(AssayError) as refused:
        Store(f"sqlite:///{tmp_path / 'coordinator.db'}")
    assert refused.value.code == "storage_failed"


def test_rows_of_the_first_tables_are_still_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'coordinator.db'}"
    engine, config = open_engine(url), Config()
    config.set_main_option("script_location", "assay_coordinator:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        blob = "x'" + "00" * 16 + "'"
        values = ", ".join([blob] * 4 + ["'held'"] + [blob] * 2 + ["1"] * 4 + ["''"])
        connection.exec_driver_sql(f"insert into jobs values ({values})")
        values = ", ".join([blob] * 2 + ["'active'"] + ["1"] * 6)
        connection.exec_driver_sql(f"insert into nodes values ({values})")
    engine.dispose()
    store = Store(url)
    assert [(row.verify, row.round, row.draw_seed) for row in store.rows(JobRow)] == [
        ("sample", 0, b"")
    ]
    assert [row.exact for row in store.rows(NodeRow)] == [0]
    loaded = store.load(0)
    assert (len(loaded.jobs), loaded.entries, loaded.last_round) == (1, [], 0)
    store.close()
