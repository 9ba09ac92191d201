"""What was used and spent, added up for `assay cost`: by day, caller, answerer and model.

Totals and no requests: there is nothing in it of what was asked. What is new is written once a
second, in one transaction; a crash forgets that much. Budgets of callers are kept apart, and
durably (admission.py); an upstream's budget begins with what is written here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from assay_network.logs import get_logger
from assay_protocol.errors import AssayError

FLUSH_SECONDS: Final = 1.0
BUSY_SECONDS: Final = 5.0
UNWRITTEN_MAX: Final = 65_536  # totals that wait for a disk that does not take them
DAY_SECONDS: Final = 86_400
NETWORK: Final = ""  # as an answerer
_TABLE: Final = """create table if not exists used (
    day integer, caller text, upstream text, model text, requests integer, tokens_in integer,
    tokens_out integer, credit integer, price integer,
    primary key (day, caller, upstream, model))"""
_ADD: Final = """insert into used values (?, ?, ?, ?, ?, ?, ?, ?, ?)
    on conflict (day, caller, upstream, model) do update set
    requests = requests + excluded.requests, tokens_in = tokens_in + excluded.tokens_in,
    tokens_out = tokens_out + excluded.tokens_out, credit = credit + excluded.credit,
    price = price + excluded.price"""
_log = get_logger("gateway")


@dataclass(frozen=True, slots=True)
class Used:
    """A total. `day` counts from 1970 (UTC), `upstream` is "" for the network; `credit` in
    micro-credits, `price` in micro-units of the upstream's currency."""

    day: int
    caller: str
    upstream: str
    model: str
    requests: int
    tokens_in: int
    tokens_out: int
    credit: int
    price: int


class Usage:
    """The totals in `path`. Raises AssayError("storage_failed")."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._new: dict[tuple[int, str, str, str], list[int]] = {}
        with _store(path) as store:
            store.execute(_TABLE)
            rows = store.execute("select upstream, sum(price) from used group by upstream")
            self.prices: dict[str, int] = dict(rows)  # of each upstream, when this was opened

    def add(self, used: Used) -> None:
        """Count it; written within a second."""
        key = (used.day, used.caller, used.upstream, used.model)
        if key not in self._new and len(self._new) >= UNWRITTEN_MAX:
            _log.error("usage_not_kept", code="storage_failed")
            return
        total = self._new.setdefault(key, [0] * 5)
        more = (used.requests, used.tokens_in, used.tokens_out, used.credit, used.price)
        for place, value in enumerate(more):
            total[place] += value

    async def run(self) -> None:
        """Write what is new, until cancelled. Whoever cancels it writes the rest: `flush`."""
        while True:
            await trio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what is new, though cancelled; what the disk does not take is tried again."""
        if not self._new:
            return
        taken, self._new = self._new, {}
        try:
            with trio.CancelScope(shield=True):  # BUSY_SECONDS bounds it
                await trio.to_thread.run_sync(self._write, taken)
        except AssayError as error:
            _log.error("usage_not_kept", code=error.code)
            for key, values in taken.items():
                self.add(Used(*key, *values))

    def _write(self, taken: dict[tuple[int, str, str, str], list[int]]) -> None:
        with _store(self._path) as store:
            store.executemany(_ADD, [(*key, *values) for key, values in taken.items()])


def read_usage(path: Path, since_day: int = 0) -> tuple[Used, ...]:
    """All totals of a gateway's file, oldest first. Raises AssayError: "config_invalid" if there
    is none, "storage_failed"."""
    if not path.exists():
        raise AssayError("config_invalid", f"no gateway kept its usage at {path}")
    with _store(path) as store:
        if not store.execute("select 1 from sqlite_master where name = 'used'").fetchone():
            return ()
        query = "select * from used where day >= ? order by day, caller, upstream, model"
        return tuple(Used(*row) for row in store.execute(query, (since_day,)))


@contextmanager
def _store(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as store, store:
            yield store
    except sqlite3.Error as error:
        raise AssayError("storage_failed", f"{path}: {error}") from error
