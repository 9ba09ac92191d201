"""Rounds of the lottery, what jobs and audits keep of it, and notes on the chain."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _add("nodes", ("exact", sa.BigInteger(), "0"))
    _add("audits", ("candidates", sa.BigInteger(), "0"))
    _add(
        "jobs",
        ("verify", sa.String(), "sample"),
        ("round", sa.BigInteger(), "0"),
        ("numerator", sa.BigInteger(), "0"),
        ("denominator", sa.BigInteger(), "0"),
        ("booked_at", sa.BigInteger(), "0"),
        ("drawn_at", sa.BigInteger(), "0"),
        ("draw_seed", sa.LargeBinary(), _no_bytes()),
    )
    op.create_index("jobs_round", "jobs", ["round"])
    _rounds()
    chain_notes()


def downgrade() -> None:
    op.drop_table("chain_notes")
    op.drop_table("rounds")
    op.drop_index("jobs_round", "jobs")
    for table, names in _ADDED.items():
        with op.batch_alter_table(table) as batch:
            for name in names:
                batch.drop_column(name)


_ADDED = {
    "jobs": ("verify", "round", "numerator", "denominator", "booked_at", "drawn_at", "draw_seed"),
    "audits": ("candidates",),
    "nodes": ("exact",),
}


def _no_bytes() -> Any:
    sqlite = op.get_bind().dialect.name == "sqlite"
    return sa.text("x''" if sqlite else "''")


def _add(table: str, *columns: tuple[str, Any, Any]) -> None:
    """Columns of a table that may have rows; the default is for those."""
    with op.batch_alter_table(table) as batch:
        for name, kind, default in columns:
            batch.add_column(sa.Column(name, kind, nullable=False, server_default=default))


def _rounds() -> None:
    op.create_table(
        "rounds",
        sa.Column("number", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("probation_audits", sa.BigInteger(), nullable=False),
        sa.Column("audit_bps_min", sa.BigInteger(), nullable=False),
        sa.Column("chain", sa.BigInteger(), nullable=False),
        sa.Column("link", sa.LargeBinary(), nullable=False),
        sa.Column("anchored", sa.LargeBinary(), nullable=False),
        sa.Column("posted", sa.LargeBinary(), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.LargeBinary(), nullable=False),
        sa.Column("drawn_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )


def chain_notes() -> None:
    op.create_table(
        "chain_notes",
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=True),
        sa.Column("raw", sa.LargeBinary(), nullable=True),
        sa.Column("transaction_hash", sa.LargeBinary(32), nullable=True),
        sa.PrimaryKeyConstraint("key"),
    )
