"""Every block that was sealed, kept a second time: the producer never seals two at one height.

The row is durable before the chain's own transaction is, so it knows of every seal that anybody can
have seen. A chain that is behind it (killed in between, or restored from an older copy) takes the
blocks from here; a chain that differs is refused. If both were lost together, only followers know
what was sealed: `coordinator chain restore` takes it from one of them before anything is mined.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import BigInteger, Column, Engine, LargeBinary, Table, delete, func, insert, select
from sqlalchemy.exc import DBAPIError

from assay_contracts.adapters.outbox import METADATA
from assay_contracts.records import KeptBlock
from assay_protocol.errors import AssayError

KEPT_BLOCKS_MAX: Final = 4_096
_PAGE_BLOCKS: Final = 64

SEALED: Final = Table(
    "chain_sealed",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("seal", LargeBinary, nullable=False),
)


class SealGuard:
    """Synchronous; `engine` is another database than the chain's own file.

    Raises AssayError("storage_failed") if that cannot be read or written.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, block: KeptBlock) -> None:
        """Returns once the row is durable; the same block again is a no-op.

        Raises AssayError("chain_mismatch") if another one was sealed at its height or above.
        """
        with _storage(), self._engine.begin() as connection:
            highest = connection.execute(select(func.max(SEALED.c.number))).scalar()
            if highest is not None and block.number <= highest:
                query = select(SEALED.c.hash).where(SEALED.c.number == block.number)
                if connection.execute(query).scalar() != block.hash:
                    raise AssayError(
                        "chain_mismatch", f"another block {block.number} was sealed before"
                    )
                return
            connection.execute(
                insert(SEALED).values(
                    number=block.number, hash=block.hash, raw=block.raw, seal=block.seal
                )
            )
            oldest = block.number - KEPT_BLOCKS_MAX
            connection.execute(delete(SEALED).where(SEALED.c.number <= oldest))

    def highest(self) -> KeptBlock | None:
        """The newest block that was sealed, whatever the chain's file holds."""
        query = select(SEALED).order_by(SEALED.c.number.desc()).limit(1)
        with _storage(), self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else KeptBlock(row.number, row.hash, row.raw, row.seal)

    def after(self, number: int) -> Iterator[KeptBlock]:
        """The kept blocks above `number`, ascending."""
        while True:
            query = select(SEALED).where(SEALED.c.number > number).order_by(SEALED.c.number)
            with _storage(), self._engine.connect() as connection:
                rows = connection.execute(query.limit(_PAGE_BLOCKS)).all()
            if not rows:
                return
            for row in rows:
                yield KeptBlock(row.number, row.hash, row.raw, row.seal)
            number = rows[-1].number


@contextmanager
def _storage() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise AssayError("storage_failed", f"seals cannot be kept: {error.orig}") from error
