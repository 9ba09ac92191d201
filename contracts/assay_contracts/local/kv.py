"""py-evm's key-value store on one SQLite file, with a transaction around each block.

A block is written whole or not at all: the chain is never left between two blocks, whatever kills
the process. Readers in other processes see whole blocks too (write-ahead log).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from assay_contracts.local.evm import AtomicDB, BaseDB
from assay_protocol.errors import AssayError

CACHE_ENTRIES_MAX: Final = 50_000
BUSY_SECONDS: Final = 10.0
_HASH_BYTES: Final = 32

_SCHEMA: Final = """
create table if not exists kv (k blob primary key, v blob not null) without rowid;
create table if not exists meta (name text primary key, value blob not null) without rowid;
create table if not exists seals (number integer primary key, seal blob not null);
"""


class SqliteStore(BaseDB):  # type: ignore[misc]  # py-evm is untyped here
    """Bytes by bytes. Writes outside `block()` are refused: half a block must not exist."""

    def __init__(
        self, path: Path, *, read_only: bool, durable: bool = True, exclusive: bool = False
    ) -> None:
        """Not `durable`: a power cut, not a crash, may take back the newest blocks. `exclusive`: no
        other such store of this file is open; raises AssayError("chain_unavailable") if one is."""
        self._lock = _locked(path) if exclusive else None
        mode = "ro" if read_only else "rwc"
        self._read_only = read_only
        self._writing = False
        self._cache: dict[bytes, bytes] = {}
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=BUSY_SECONDS,
            )
            if not read_only:
                self._connection.execute("pragma journal_mode=wal")
                self._connection.execute(f"pragma synchronous={'full' if durable else 'normal'}")
                self._connection.executescript(_SCHEMA)
            self._connection.execute("select count(*) from meta").fetchone()
        except sqlite3.Error as error:
            self._unlock()
            raise AssayError(
                "chain_mismatch", f"{path} cannot be opened as a chain: {error}"
            ) from None

    def atomic(self) -> AtomicDB:
        return AtomicDB(self)

    @contextmanager
    def block(self) -> Iterator[None]:
        """One SQLite transaction; rolled back, cache included, if the body raises.

        Raises AssayError("storage_failed") if SQLite cannot write: read-only, locked, or disk full.
        """
        if self._read_only:
            raise AssayError("storage_failed", "the chain is open for reading only")
        try:
            self._connection.execute("begin immediate")
            self._writing = True
            yield
            self._connection.execute("commit")
        except BaseException as error:
            self._cache.clear()
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            if isinstance(error, sqlite3.Error):
                raise AssayError(
                    "storage_failed", f"the chain cannot be written: {error}"
                ) from error
            raise
        finally:
            self._writing = False

    def meta(self, name: str) -> bytes | None:
        row = self._connection.execute("select value from meta where name=?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_meta(self, name: str, value: bytes) -> None:
        assert self._writing
        self._connection.execute("insert or replace into meta values (?, ?)", (name, value))

    def seal(self, number: int) -> bytes | None:
        """The producer's seal of a block; None if it has none."""
        query = "select seal from seals where number=?"
        row = self._connection.execute(query, (number,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_seal(self, number: int, seal: bytes) -> None:
        """Raises sqlite3.IntegrityError if the block has one: a seal is never replaced."""
        assert self._writing
        self._connection.execute("insert into seals values (?, ?)", (number, seal))

    def backup(self, path: Path) -> None:
        """A copy of the newest whole block's state, made while others read and write."""
        target = sqlite3.connect(path)
        try:
            self._connection.backup(target)
        finally:
            target.close()

    def close(self) -> None:
        self._connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __getitem__(self, key: bytes) -> bytes:
        found = self._cache.get(key)
        if found is not None:
            return found
        row = self._connection.execute("select v from kv where k=?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        value = bytes(row[0])
        self._remember(key, value)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        assert self._writing, "a chain write outside a block"
        self._connection.execute(
            "insert or replace into kv values (?, ?)", (bytes(key), bytes(value))
        )
        self._remember(key, bytes(value))

    def __delitem__(self, key: bytes) -> None:
        assert self._writing, "a chain write outside a block"
        if not self._connection.execute("delete from kv where k=?", (key,)).rowcount:
            raise KeyError(key)
        self._cache.pop(key, None)

    def _exists(self, key: bytes) -> bool:
        if key in self._cache:
            return True
        return self._connection.execute("select 1 from kv where k=?", (key,)).fetchone() is not None

    def _remember(self, key: bytes, value: bytes) -> None:
        # A 32-byte key is the hash of its value and can never change under us, not even by another
        # process; the other keys (head, number -> hash) can, so they are always read.
        if len(key) == _HASH_BYTES:
            if len(self._cache) >= CACHE_ENTRIES_MAX:
                self._cache.clear()
            self._cache[bytes(key)] = value


def _locked(path: Path) -> int:
    """A lock beside the file, which the system drops with the process."""
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AssayError("chain_unavailable", f"another process writes {path}") from None
    return lock
