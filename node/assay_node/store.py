"""A node's receipts on disk: what it is owed, and the proof of what it earned.

SQLite in WAL mode with synchronous=FULL: a receipt that `save` returned for survives kill -9 and a
power cut (D1). Prompts and answers are never here. Calls block: the runtime makes them from one
thread, in order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from assay_node.core.outbox import Owed
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.messages import Ticket
from assay_protocol.signing import peek

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_SECONDS: Final = 5.0
_SCHEMA: Final = """
create table if not exists receipts (
    ticket blob primary key,
    receipt blob not null,
    ack blob,
    ticket_blob blob not null,
    state text not null check (state in ('saved', 'booked', 'refused')),
    charged integer not null default 0,
    code text not null default '',
    saved_at integer not null
) without rowid
"""
_SAVE: Final = """
insert into receipts (ticket, receipt, ack, ticket_blob, state, saved_at)
values (?, ?, ?, ?, 'saved', ?)
on conflict (ticket) do update set receipt = excluded.receipt, ack = excluded.ack
"""


@dataclass(frozen=True, slots=True)
class Saved:
    """A row to save: ids and signed blobs; `saved_at` in microseconds."""

    ticket: bytes
    receipt: bytes
    ack: bytes | None
    ticket_blob: bytes
    saved_at: int


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of a receipt: state booked or refused; `charged` in micro-credits."""

    ticket: bytes
    state: str
    charged: int
    code: str


@dataclass(frozen=True, slots=True)
class Exported:
    """One row as it is, for checking credit without asking anybody."""

    ticket: bytes
    receipt: bytes
    ack: bytes | None
    ticket_blob: bytes
    state: str
    charged: int
    code: str
    saved_at: int


class ReceiptStore:
    """All receipts of one node. Every call raises AssayError disk_full or storage_failed."""

    def __init__(self, path: Path) -> None:
        with _storage_errors():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = full")
            with self._db:
                self._db.execute(_SCHEMA)

    def close(self) -> None:
        with _storage_errors():
            self._db.close()

    def write(self, saves: Iterable[Saved], marks: Iterable[Mark]) -> None:
        """Commit all of it, or raise and keep nothing of it."""
        with _storage_errors(), self._db:
            for one in saves:
                row = (one.ticket, one.receipt, one.ack, one.ticket_blob, one.saved_at)
                self._db.execute(_SAVE, row)
            for mark in marks:
                self._db.execute(
                    "update receipts set state = ?, charged = ?, code = ? where ticket = ?",
                    (mark.state, mark.charged, mark.code, mark.ticket),
                )

    def owed(self) -> list[Owed]:
        """Receipts neither booked nor refused, oldest first."""
        with _storage_errors():
            rows = self._db.execute(
                "select ticket, ticket_blob, receipt, ack from receipts"
                " where state = 'saved' order by saved_at"
            )
            return [Owed(*row) for row in rows]

    def has(self, ticket: bytes) -> bool:
        """Whether a receipt was ever saved for the ticket with this id."""
        with _storage_errors():
            row = self._db.execute("select 1 from receipts where ticket = ?", (ticket,)).fetchone()
            return row is not None

    def used_tickets(self, now: int) -> dict[bytes, int]:
        """Tickets that gave a receipt and have not expired: id -> expiry in microseconds."""
        used: dict[bytes, int] = {}
        with _storage_errors():
            for ticket, blob in self._db.execute("select ticket, ticket_blob from receipts"):
                try:
                    expires_at = peek(Ticket, blob).expires_at
                except ProtocolError as error:
                    raise AssayError("storage_failed", "a stored ticket is damaged") from error
                if expires_at > now:
                    used[ticket] = expires_at
        return used

    def export_receipts(self) -> list[Exported]:
        """Every receipt this node ever saved, oldest first."""
        with _storage_errors():
            rows = self._db.execute(
                "select ticket, receipt, ack, ticket_blob, state, charged, code, saved_at"
                " from receipts order by saved_at, ticket"
            )
            return [Exported(*row) for row in rows]


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
        raise AssayError("disk_full" if full else "storage_failed", str(error)) from error
    except OSError as error:
        raise AssayError("storage_failed", str(error)) from error
