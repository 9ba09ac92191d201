"""The database: group commits of rows, and the working set at start. Synchronous; used in threads.

SQLite (WAL, synchronous FULL) or anything SQLAlchemy speaks with the same upsert; PostgreSQL does.
One thread writes. A commit is all or nothing: when it fails nothing of the batch was acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import StaticPool

from assay_contracts.adapters.storage import storage_errors
from assay_coordinator.adapters.tables import TABLES
from assay_coordinator.core.coordinator import Stored
from assay_coordinator.core.epochs import StoredEpochs
from assay_coordinator.core.jobs import OPEN
from assay_coordinator.core.records import (
    AuditRow,
    BalanceRow,
    CreditRow,
    EpochRow,
    JobRow,
    LineRow,
    NodeRow,
    PostingRow,
    PricingRow,
    RoundRow,
    Row,
    RulesRow,
)
from assay_coordinator.core.statements import Statements

BUSY_TIMEOUT_MS: Final = 5_000
CACHE_KIB: Final = 65_536  # of a connection
STREAM_ROWS: Final = 10_000
_MIGRATIONS: Final = "assay_coordinator:migrations"


class Store:
    """One database."""

    def __init__(self, url: str) -> None:
        """Open (and for SQLite create) it, and bring its tables to this version."""
        self.engine = open_engine(url)
        with storage_errors():
            migrate(self.engine)
        self._keys: dict[type[Row], Callable[[Row], Any]] = {
            cls: attrgetter(*cls.KEY) for cls in TABLES
        }
        self._upserts = {cls: self._upsert(cls) for cls in TABLES}

    def commit(self, rows: Sequence[Row]) -> None:
        """Make `rows` durable together. Raises AssayError("disk_full" or "storage_failed")."""
        batches: dict[type[Row], dict[Any, Row]] = {}
        for row in rows:
            key = self._keys[type(row)](row)
            batches.setdefault(type(row), {})[key] = row  # the last one wins
        with storage_errors(), self.engine.begin() as connection:
            for cls, batch in batches.items():
                self._write(connection, cls, list(batch.values()))

    def load(self, now: int) -> Stored:
        """What the coordinator needs to go on; history stays in the tables. Raises as `commit`."""
        with storage_errors(), self.engine.connect() as connection:
            last = _newest_epoch(connection)
            running = last.epoch + 1 if last else 1
            jobs, epochs = TABLES[JobRow], TABLES[EpochRow]
            recent = or_(jobs.c.state.in_(OPEN), jobs.c.deadline_at > now)
            top = connection.execute(select(func.max(TABLES[PostingRow].c.seq))).scalar()
            audits = connection.execute(select(func.count()).select_from(TABLES[AuditRow]))
            rounds = TABLES[RoundRow]
            undrawn: list[RoundRow] = _rows(connection, RoundRow, rounds.c.state != "drawn")
            last_round = connection.execute(select(func.max(rounds.c.number))).scalar() or 0
            first = min((row.number for row in undrawn), default=last_round + 1)
            return Stored(
                nodes=_rows(connection, NodeRow),
                balances=_rows(connection, BalanceRow),
                credit=_rows(connection, CreditRow),
                jobs=_rows(connection, JobRow, recent),
                epochs=StoredEpochs(
                    last=last,
                    unposted=_rows(connection, EpochRow, epochs.c.state != "posted"),
                    statements=Statements.of(_stream(connection, LineRow, running)),
                    pricings=_pricings(connection),
                ),
                next_posting=(top or 0) + 1,
                audits=int(audits.scalar_one()),
                last_round=last_round,
                undrawn=undrawn,
                entries=_rows(connection, JobRow, jobs.c.round >= first),
                rules=next(iter(_rows(connection, RulesRow)), None),
            )

    def rows(self, cls: type[Any], *where: Any) -> list[Any]:
        """All rows of a table that match, for reports and bundles. Raises as `commit`."""
        with storage_errors(), self.engine.connect() as connection:
            return _rows(connection, cls, *where)

    def close(self) -> None:
        self.engine.dispose()

    def _write(self, connection: Connection, cls: type[Row], rows: list[Row]) -> None:
        self._upserts[cls].run(connection, rows)

    def _upsert(self, cls: type[Row]) -> _Statement:
        return _Statement(self._upsert_of(cls), self.engine)

    def _upsert_of(self, cls: type[Row]) -> Any:
        table = TABLES[cls]
        dialect: Any = postgresql if self.engine.dialect.name == "postgresql" else sqlite
        insert = dialect.insert(table)
        if cls is PostingRow:  # append-only: a second posting with one number is our own bug
            return insert
        changed = {c.name: insert.excluded[c.name] for c in table.columns if c.name not in cls.KEY}
        return insert.on_conflict_do_update(index_elements=list(cls.KEY), set_=changed)


class _Statement:
    """A statement for many rows, compiled once and handed to the driver as it is: SQLAlchemy's own
    way with parameters takes longer than the database."""

    def __init__(self, statement: Any, engine: Engine) -> None:
        compiled = statement.compile(engine)
        self._sql = str(compiled)
        names = compiled.positiontup if compiled.positional else tuple(compiled.params)
        self._values: Callable[[Row], Any] = attrgetter(*names)
        self._names = None if compiled.positional else names

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        values: list[Any] = [self._values(row) for row in rows]
        if self._names is not None:
            values = [dict(zip(self._names, row, strict=True)) for row in values]
        connection.exec_driver_sql(self._sql, values)


def open_engine(url: str) -> Engine:
    """An engine with the settings durability needs."""
    in_memory = url.endswith(":memory:")  # it lasts as long as its one connection
    engine = create_engine(url, poolclass=StaticPool if in_memory else None)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_settings)
    return engine


def migrate(engine: Engine) -> None:
    """Bring the tables to this version (Alembic): all of it, or, if it is killed, nothing."""
    config = Config()
    config.set_main_option("script_location", _MIGRATIONS)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":  # else it commits each statement that makes a table
            connection.exec_driver_sql("begin immediate")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _sqlite_settings(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("pragma journal_mode=wal")
    cursor.execute("pragma synchronous=full")  # acknowledged means durable (D1)
    cursor.execute("pragma foreign_keys=on")
    cursor.execute(f"pragma busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute(f"pragma cache_size=-{CACHE_KIB}")  # keys are hashes: writes go everywhere
    cursor.close()


def _rows(connection: Connection, cls: type[Any], *where: Any) -> list[Any]:
    table = TABLES[cls]
    ordered = select(table).where(*where).order_by(*(table.c[name] for name in _order(cls)))
    return [cls(*row) for row in connection.execute(ordered)]


def _stream(connection: Connection, cls: type[Any], epoch: int) -> Iterator[Any]:
    """The rows of one epoch in order of their key, a few at a time: there may be millions."""
    table = TABLES[cls]
    wanted = select(table).where(table.c.epoch == epoch).order_by(*(table.c[n] for n in cls.KEY))
    streaming = connection.execution_options(yield_per=STREAM_ROWS)
    return (cls(*row) for row in streaming.execute(wanted))


def _pricings(connection: Connection) -> list[PricingRow]:
    """The rules in force and those that come next: the last two, oldest first."""
    table = TABLES[PricingRow]
    newest = connection.execute(select(table).order_by(table.c.epoch.desc()).limit(2))
    return [PricingRow(*row) for row in newest][::-1]


def _order(cls: type[Row]) -> tuple[str, ...]:
    return ("deadline_at", "ticket") if cls is JobRow else cls.KEY


def _newest_epoch(connection: Connection) -> EpochRow | None:
    table = TABLES[EpochRow]
    row = connection.execute(select(table).order_by(table.c.epoch.desc()).limit(1)).first()
    return None if row is None else EpochRow(*row)


__all__ = ["Store", "migrate", "open_engine", "storage_errors"]
