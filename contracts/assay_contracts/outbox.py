"""The outbox: every epoch is written down, with its signed transaction, before it is sent.

Rules. One Outbox per poster key and it alone sends (the one writer of nonces). The row exists
before the transaction does; the signed bytes are stored before they are sent, so a retry sends the
very same transaction. Whether an epoch is done is asked of the chain, never of the row: a crash
between any two steps is repaired by the next `pump`, and so is a chain restored from an older
copy. The contract refuses any epoch but head + 1, so even two outboxes could not post one twice.
Invariant L5: what is on chain is what was submitted, or `chain_mismatch` is raised.
"""

from __future__ import annotations

import threading
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    func,
    insert,
    or_,
    select,
    update,
)

from assay_contracts.ledger import CreditLedgerClient
from assay_contracts.ledger_abi import Header
from assay_protocol.errors import AssayError

KEY_CHARS_MAX: Final = 128

METADATA: Final = MetaData()
OUTBOX: Final = Table(
    "chain_outbox",
    METADATA,
    Column("key", String(KEY_CHARS_MAX), primary_key=True),
    Column("epoch", BigInteger, nullable=False, unique=True),
    Column("root", LargeBinary(32), nullable=False),
    Column("total_cum", LargeBinary(16), nullable=False),
    Column("jobs", BigInteger, nullable=False),
    Column("leaves", BigInteger, nullable=False),
    Column("data_hash", LargeBinary(32), nullable=False),
    Column("policy", LargeBinary(32), nullable=False),
    Column("state", String(8), nullable=False),  # waiting, signed, posted
    Column("attempts", Integer, nullable=False, default=0),
    Column("nonce", BigInteger),
    Column("raw", LargeBinary),
    Column("transaction_hash", LargeBinary(32)),
    Column("block", BigInteger),
)


class Outbox:
    """Synchronous; call it in a thread. `engine` may be the coordinator's own database."""

    def __init__(self, engine: Engine, ledger: CreditLedgerClient) -> None:
        self._engine = engine
        self._ledger = ledger
        self.writer = threading.Lock()  # whoever else sends for this poster takes it, too

    def create_tables(self) -> None:
        """For a database without migrations; others take `METADATA`."""
        METADATA.create_all(self._engine)

    def submit(self, key: str, epoch: int, header: Header) -> None:
        """Writes the epoch down; the same key and header again is a no-op.

        Raises AssayError: "chain_mismatch" if the key, the epoch here or the epoch on chain is
        already another header's; "epoch_out_of_order" if the epoch before it is neither on chain
        nor in the outbox; "oversized" for a long key.
        """
        if not 0 < len(key) <= KEY_CHARS_MAX:
            raise AssayError("oversized", f"an outbox key has 1 to {KEY_CHARS_MAX} characters")
        with self.writer:
            posted = self._ledger.is_posted(epoch, header)
            head = self._ledger.head()
            with self._engine.begin() as connection:
                same = or_(OUTBOX.c.key == key, OUTBOX.c.epoch == epoch)
                rows = connection.execute(select(OUTBOX).where(same)).all()
                if rows:
                    _check_same(rows, key, epoch, header)
                    return
                newest = connection.execute(select(func.max(OUTBOX.c.epoch))).scalar() or 0
                if not posted and epoch != max(head, newest) + 1:
                    raise AssayError("epoch_out_of_order", f"epoch {epoch} after {head}")
                state = "posted" if posted else "waiting"
                connection.execute(insert(OUTBOX).values(_columns(key, epoch, header, state)))

    def pump(self) -> int:
        """Brings the chain up to the outbox, in order of epoch; returns how many it settled.

        Raises AssayError: "chain_mismatch", "epoch_out_of_order" (the chain lost an epoch this
        outbox never had), "contract_refused"; rows before the one at fault are settled.
        """
        with self.writer:
            head = self._ledger.head()
            # Rows beyond the head count as open whatever they say: the chain may be an older copy.
            unsettled = or_(OUTBOX.c.state != "posted", OUTBOX.c.epoch > head)
            with self._engine.connect() as connection:
                rows = connection.execute(
                    select(OUTBOX).where(unsettled).order_by(OUTBOX.c.epoch)
                ).all()
            for row in rows:
                self._settle(row)
            return len(rows)

    def pending(self) -> int:
        """Epochs submitted and not yet known to be on chain."""
        query = select(func.count()).select_from(OUTBOX).where(OUTBOX.c.state != "posted")
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def _settle(self, row: Row[Any]) -> None:
        header = _header(row)
        transaction_hash = row.transaction_hash
        if not self._ledger.is_posted(row.epoch, header):
            head = self._ledger.head()
            if row.epoch != head + 1:
                raise AssayError("epoch_out_of_order", f"epoch {row.epoch} after {head}")
            raw, transaction_hash = self._signed(row, header)
            self._ledger.chain.send_raw(raw)
            assert self._ledger.is_posted(row.epoch, header)
        receipt = self._ledger.chain.receipt(transaction_hash) if transaction_hash else None
        self._update(row.key, state="posted", block=receipt.block if receipt else None)

    def _signed(self, row: Row[Any], header: Header) -> tuple[bytes, bytes]:
        nonce = self._ledger.chain.nonce(self._ledger.poster)
        attempts = row.attempts + 1
        if row.raw is not None and row.nonce == nonce:
            self._update(row.key, state="signed", attempts=attempts)
            return row.raw, row.transaction_hash
        raw, digest = self._ledger.sign_post(row.epoch, header, nonce)
        self._update(
            row.key,
            state="signed",
            attempts=attempts,
            nonce=nonce,
            raw=raw,
            transaction_hash=digest,
        )
        return raw, digest

    def _update(self, key: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(update(OUTBOX).where(OUTBOX.c.key == key).values(values))


def _columns(key: str, epoch: int, header: Header, state: str) -> dict[str, Any]:
    return {
        "key": key,
        "epoch": epoch,
        "root": header.root,
        "total_cum": header.total_cum.to_bytes(16),
        "jobs": header.jobs,
        "leaves": header.leaves,
        "data_hash": header.data_hash,
        "policy": header.policy,
        "state": state,
    }


def _header(row: Row[Any]) -> Header:
    return Header(
        row.root,
        int.from_bytes(row.total_cum),
        row.jobs,
        row.leaves,
        row.data_hash,
        row.policy,
    )


def _check_same(rows: Any, key: str, epoch: int, header: Header) -> None:
    if any((row.key, row.epoch, _header(row)) != (key, epoch, header) for row in rows):
        raise AssayError(
            "chain_mismatch", f"key or epoch {epoch} already belongs to another header"
        )
