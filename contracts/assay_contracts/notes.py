"""Notes: short texts put on chain in transactions that do nothing else, each exactly once.

For what only has to be public and dated, not enforced: the anchors and roots of the audit lottery.
The rules are the outbox's: a note is written down before its transaction exists, the signed bytes
before they are sent, and whether it is there is asked of the chain. A transaction that was signed
and not sent dies when another one takes its nonce, and only then a new one is signed: so a crash
between any two steps leaves one note on chain, never two.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Engine, LargeBinary, Row, String, Table, insert, select
from sqlalchemy import update as sql_update

from assay_contracts.ledger import CreditLedgerClient
from assay_contracts.outbox import KEY_CHARS_MAX, METADATA
from assay_contracts.records import Receipt
from assay_protocol.errors import AssayError

NOTE_BYTES_MAX: Final = 1_024

NOTES: Final = Table(
    "chain_notes",
    METADATA,
    Column("key", String(KEY_CHARS_MAX), primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("nonce", BigInteger),
    Column("raw", LargeBinary),
    Column("transaction_hash", LargeBinary(32)),
)


@dataclass(frozen=True, slots=True)
class Noted:
    """Where a note stands: its transaction and block, and the block that is `lag` later."""

    transaction: bytes
    block: int
    later: int
    later_hash: bytes


class Notes:
    """Synchronous; call it in a thread. `writer` is the lock of the poster's outbox."""

    def __init__(self, engine: Engine, ledger: CreditLedgerClient, writer: Lock) -> None:
        self._engine, self._ledger, self._writer = engine, ledger, writer

    def put(self, key: str, data: bytes, lag: int = 0) -> Noted:
        """Put `data` on chain under the local name `key`, if it is not there yet.

        Raises AssayError: "oversized"; "chain_mismatch" if the key is another note's; "busy" while
        the chain has no block that is `lag` after the note's.
        """
        if not 0 < len(key) <= KEY_CHARS_MAX or len(data) > NOTE_BYTES_MAX:
            raise AssayError("oversized", "a note of this length is not taken")
        with self._writer:
            row = self._row(key)
            if row is None:
                with self._engine.begin() as connection:
                    connection.execute(insert(NOTES).values(key=key, data=data))
                row = self._row(key)
            assert row is not None
            if row.data != data:
                raise AssayError("chain_mismatch", f"the note {key} is already another one")
            receipt = self._mined(row)
        later = self._ledger.chain.block(receipt.block + lag)
        if later is None:
            raise AssayError("busy", f"block {receipt.block + lag} is not there yet")
        return Noted(receipt.transaction_hash, receipt.block, later.number, later.hash)

    def _mined(self, row: Row[Any]) -> Receipt:
        chain = self._ledger.chain
        found = chain.receipt(row.transaction_hash) if row.transaction_hash else None
        if found is not None:
            return found
        nonce = chain.nonce(self._ledger.poster)
        raw = row.raw
        if raw is None or row.nonce != nonce:
            raw, name = self._ledger.sign_note(row.data, nonce)
            values = {"nonce": nonce, "raw": raw, "transaction_hash": name}
            with self._engine.begin() as connection:
                connection.execute(sql_update(NOTES).where(NOTES.c.key == row.key).values(values))
        return chain.send_raw(raw)

    def _row(self, key: str) -> Row[Any] | None:
        with self._engine.connect() as connection:
            return connection.execute(select(NOTES).where(NOTES.c.key == key)).first()
