"""What each key has spent, by its name, in a file that outlives the gateway.

Credit at the network, and money at each upstream. What was added is on disk when `add` returns; a
crash forgets only what was under way.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import trio

from assay_network.logs import get_logger
from assay_protocol.errors import AssayError

BUSY_SECONDS: Final = 5.0
_TABLES: Final = (
    "create table if not exists spent (name text primary key, micro integer)",
    """create table if not exists spent_upstream
    (name text, upstream text, micro integer, primary key (name, upstream))""",
)
_log = get_logger("gateway")


class Spending:
    """Micro-credits by key, and micro-units of its currency by key and upstream; in memory without
    a `path`. Raises AssayError("storage_failed")."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._turn = trio.CapacityLimiter(1)
        self.by_name: dict[str, int] = {}
        self._upstream: dict[tuple[str, str], int] = {}
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with closing(_open(path)) as store, store:
                for table in _TABLES:
                    store.execute(table)
                self.by_name |= store.execute("select name, micro from spent")
                self._upstream |= _spent_upstream(store)
        except sqlite3.Error as error:
            raise AssayError("storage_failed", f"{path}: {error}") from error

    def at_upstream(self, upstream: str) -> dict[str, int]:
        """What each key has spent there."""
        return {name: micro for (name, at), micro in self._upstream.items() if at == upstream}

    async def add(self, name: str, micro: int, upstream: str = "") -> None:
        """Durable when it returns; what the disk does not take counts until the gateway ends."""
        if upstream:
            total = self._upstream.get((name, upstream), 0) + micro
            self._upstream[name, upstream] = total
        else:
            self.by_name[name] = self.by_name.get(name, 0) + micro
        if self._path is not None:
            await trio.to_thread.run_sync(
                self._write, self._path, name, upstream, limiter=self._turn
            )

    def _write(self, path: Path, name: str, upstream: str) -> None:
        try:
            with closing(_open(path)) as store, store:
                if upstream:
                    row = (name, upstream, self._upstream[name, upstream])
                    store.execute("replace into spent_upstream values (?, ?, ?)", row)
                else:
                    store.execute("replace into spent values (?, ?)", (name, self.by_name[name]))
        except sqlite3.Error:
            _log.error("spending_not_kept", code="storage_failed")


def read_spent_upstream(path: Path) -> dict[tuple[str, str], int]:
    """What is kept in `path` of each key (its name) at each upstream, in micro-units of its
    currency. Raises AssayError("storage_failed")."""
    try:
        with closing(_open(path)) as store:
            known = "select 1 from sqlite_master where name = 'spent_upstream'"
            if not store.execute(known).fetchone():
                return {}
            return _spent_upstream(store)
    except sqlite3.Error as error:
        raise AssayError("storage_failed", f"{path}: {error}") from error


def _spent_upstream(store: sqlite3.Connection) -> dict[tuple[str, str], int]:
    rows = store.execute("select name, upstream, micro from spent_upstream")
    return {(name, upstream): micro for name, upstream, micro in rows}


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_SECONDS)
