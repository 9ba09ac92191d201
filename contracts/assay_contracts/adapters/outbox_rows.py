"""The outbox's rows: items, and every transaction that was signed for one. Synchronous.

An attempt's signed bytes are durable before they are sent, so a retry sends the very same ones.
Raises AssayError("disk_full" or "storage_failed") when the database does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from assay_contracts.adapters.offers import Call, Offer
from assay_contracts.adapters.outbox_core import Attempt, Item, Place
from assay_contracts.adapters.storage import storage_errors
from assay_protocol.errors import AssayError

KEY_CHARS_MAX: Final = 128
DATA_BYTES_MAX: Final = 100_000  # a transaction of the local chain has 128 KiB at most
REASON_CHARS_MAX: Final = 300
_OPEN: Final = ("waiting", "signed", "mined")

METADATA: Final = MetaData()
ITEMS: Final = Table(
    "chain_items",
    METADATA,
    Column("key", String(KEY_CHARS_MAX), primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("chain", BigInteger, nullable=False),
    Column("sender", LargeBinary(20), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("lane", String(32), nullable=False),
    Column("target", LargeBinary(20)),
    Column("data", LargeBinary, nullable=False),
    Column("lag", BigInteger, nullable=False),
    Column("keep", BigInteger, nullable=False),
    Column("state", String(8), nullable=False, index=True),
    Column("block", BigInteger, index=True),
    Column("block_hash", LargeBinary(32)),
    Column("transaction_hash", LargeBinary(32)),
    Column("reason", String(REASON_CHARS_MAX), nullable=False),
)
ATTEMPTS: Final = Table(
    "chain_attempts",
    METADATA,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("key", String(KEY_CHARS_MAX), nullable=False, index=True),
    Column("number", BigInteger, nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("gas", BigInteger, nullable=False),
    Column("fee", BigInteger, nullable=False),
    Column("tip", BigInteger, nullable=False),
    Column("raw", LargeBinary, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call to be made exactly once, under a name of the caller's (see `outbox_core.Item`)."""

    key: str
    call: Call
    kind: str = "call"
    lane: str = ""
    lag: int = 0
    keep: bool = False


class OutboxRows:
    """The rows of one wallet on one chain. One thread at a time."""

    def __init__(self, engine: Engine, sender: bytes) -> None:
        self._engine, self._sender = engine, sender

    def create_tables(self) -> None:
        """For a database without migrations."""
        with storage_errors():
            METADATA.create_all(self._engine)

    def put(self, chain: int, request: Request) -> tuple[Item, bool]:
        """The durable item of that key, and whether it is new or begins again after a failure.

        Raises AssayError("oversized"), or "chain_mismatch" if the key is another call's.
        """
        if not 0 < len(request.key) <= KEY_CHARS_MAX or len(request.call.data) > DATA_BYTES_MAX:
            raise AssayError("oversized", "a key or call of this length is not taken")
        with storage_errors(), self._engine.begin() as connection:
            row = _row(connection, request.key)
            newest = connection.execute(select(func.max(ITEMS.c.seq))).scalar() or 0
            if row is None:
                columns = _columns(chain, self._sender, newest + 1, request)
                connection.execute(insert(ITEMS).values(columns))
                row = _row(connection, request.key)
                assert row is not None
                return _item(row, ()), True
            same = (row.target, row.data, row.sender, row.chain, row.lag)
            wanted = (request.call.to, request.call.data, self._sender, chain, request.lag)
            if same != wanted:
                raise AssayError("chain_mismatch", f"{request.key} is already another call")
            if row.state != "failed":
                return _item(row, _attempts(connection, request.key)), False
            values = {"state": "waiting", "reason": "", "seq": newest + 1}
            connection.execute(update(ITEMS).where(ITEMS.c.key == request.key).values(values))
            row = _row(connection, request.key)
            assert row is not None
            return _item(row, _attempts(connection, request.key)), True

    def get(self, key: str) -> Item | None:
        with storage_errors(), self._engine.connect() as connection:
            row = _row(connection, key)
            return None if row is None else _item(row, _attempts(connection, key))

    def open_items(self, chain: int) -> list[Item]:
        """What is neither final nor failed. Raises "chain_mismatch" if any is for another chain."""
        query = select(ITEMS).where(ITEMS.c.state.in_(_OPEN), ITEMS.c.sender == self._sender)
        with storage_errors(), self._engine.connect() as connection:
            rows = connection.execute(query.order_by(ITEMS.c.seq)).all()
            others = {row.chain for row in rows} - {chain}
            if others:
                raise AssayError("chain_mismatch", f"the outbox is of chain {min(others)}")
            return [_item(row, _attempts(connection, row.key)) for row in rows]

    def raw(self, transaction: bytes) -> bytes:
        with storage_errors(), self._engine.connect() as connection:
            query = select(ATTEMPTS.c.raw).where(ATTEMPTS.c.hash == transaction)
            return bytes(connection.execute(query).scalar_one())

    def save(self, item: Item, dropped: bytes = b"") -> None:
        """The item as it stands now; a `dropped` attempt is forgotten."""
        with storage_errors(), self._engine.begin() as connection:
            connection.execute(update(ITEMS).where(ITEMS.c.key == item.key).values(_moved(item)))
            if dropped:
                connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.hash == dropped))

    def keep_attempt(self, key: str, attempt: Attempt, raw: bytes) -> None:
        """The signed bytes, and that the item is signed, in one transaction. Twice is once."""
        with storage_errors(), self._engine.begin() as connection:
            query = select(func.max(ATTEMPTS.c.number)).where(ATTEMPTS.c.key == key)
            number = (connection.execute(query).scalar() or 0) + 1
            # Signing is deterministic: the same nonce and offer give the same bytes again.
            connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.hash == attempt.hash))
            values = {
                "hash": attempt.hash,
                "key": key,
                "number": number,
                "nonce": attempt.nonce,
                "gas": attempt.offer.gas,
                "fee": attempt.offer.fee,
                "tip": attempt.offer.tip,
                "raw": raw,
            }
            connection.execute(insert(ATTEMPTS).values(values))
            moved = {"state": "signed", "reason": ""}
            connection.execute(update(ITEMS).where(ITEMS.c.key == key).values(moved))

    def finals(self, skipped: int, count: int) -> list[Item]:
        """Final items from the newest block downwards, the first `skipped` left out."""
        query = select(ITEMS).where(ITEMS.c.state == "final", ITEMS.c.sender == self._sender)
        ordered = query.order_by(ITEMS.c.block.desc(), ITEMS.c.seq.desc())
        with storage_errors(), self._engine.connect() as connection:
            rows = connection.execute(ordered.offset(skipped).limit(count))
            return [_item(row, ()) for row in rows]

    def last_final(self, lane: str) -> Item | None:
        """The newest item of a lane that is final."""
        query = select(ITEMS).where(
            ITEMS.c.state == "final", ITEMS.c.sender == self._sender, ITEMS.c.lane == lane
        )
        with storage_errors(), self._engine.connect() as connection:
            row = connection.execute(query.order_by(ITEMS.c.seq.desc()).limit(1)).first()
            return None if row is None else _item(row, ())

    def reopen(self, keys: Iterable[str]) -> list[Item]:
        """Items that the chain lost wait again, with all their attempts."""
        opened: list[Item] = []
        with storage_errors(), self._engine.begin() as connection:
            for key in keys:
                attempts = _attempts(connection, key)
                values = {
                    "state": "signed" if attempts else "waiting",
                    "block": None,
                    "block_hash": None,
                    "transaction_hash": None,
                }
                connection.execute(update(ITEMS).where(ITEMS.c.key == key).values(values))
                row = _row(connection, key)
                assert row is not None
                opened.append(_item(row, attempts))
        return opened


def _row(connection: Connection, key: str) -> Row[Any] | None:
    return connection.execute(select(ITEMS).where(ITEMS.c.key == key)).first()


def _attempts(connection: Connection, key: str) -> tuple[Attempt, ...]:
    query = select(ATTEMPTS).where(ATTEMPTS.c.key == key).order_by(ATTEMPTS.c.number)
    return tuple(
        Attempt(row.hash, row.nonce, Offer(row.gas, row.fee, row.tip))
        for row in connection.execute(query)
    )


def _item(row: Row[Any], attempts: tuple[Attempt, ...]) -> Item:
    place = None
    if row.block is not None:
        place = Place(row.transaction_hash, row.block, row.block_hash)
    return Item(
        key=row.key,
        seq=row.seq,
        kind=row.kind,
        call=Call(row.target, row.data),
        lane=row.lane,
        lag=row.lag,
        keep=bool(row.keep),
        state=row.state,
        attempts=attempts,
        place=place,
        reason=row.reason,
    )


def _moved(item: Item) -> dict[str, Any]:
    place = item.place
    return {
        "state": item.state,
        "reason": item.reason[:REASON_CHARS_MAX],
        "block": None if place is None else place.block,
        "block_hash": None if place is None else place.block_hash,
        "transaction_hash": None if place is None else place.transaction,
    }


def _columns(chain: int, sender: bytes, seq: int, request: Request) -> dict[str, Any]:
    return {
        "key": request.key,
        "seq": seq,
        "chain": chain,
        "sender": sender,
        "kind": request.kind,
        "lane": request.lane,
        "target": request.call.to,
        "data": request.call.data,
        "lag": request.lag,
        "keep": int(request.keep),
        "state": "waiting",
        "reason": "",
    }
