"""One outbox for every transaction, its attempts, blocks that were sealed, epochs voided.

The local chain of before has another first block, so no transaction of it can be gone on with: the
old outboxes are dropped, and a data directory of before is begun anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from assay_coordinator.migrations.versions.v0001_first import chain_outbox
from assay_coordinator.migrations.versions.v0002_rounds import chain_notes

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("chain_outbox")
    op.drop_table("chain_notes")
    op.create_table(
        "chain_items",
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("chain", sa.BigInteger(), nullable=False),
        sa.Column("sender", sa.LargeBinary(20), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("lane", sa.String(32), nullable=False),
        sa.Column("target", sa.LargeBinary(20), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("lag", sa.BigInteger(), nullable=False),
        sa.Column("keep", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=True),
        sa.Column("block_hash", sa.LargeBinary(32), nullable=True),
        sa.Column("transaction_hash", sa.LargeBinary(32), nullable=True),
        sa.Column("reason", sa.String(300), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        sa.UniqueConstraint("seq"),
    )
    op.create_index("ix_chain_items_state", "chain_items", ["state"])
    op.create_index("ix_chain_items_block", "chain_items", ["block"])
    op.create_table(
        "chain_attempts",
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("gas", sa.BigInteger(), nullable=False),
        sa.Column("fee", sa.BigInteger(), nullable=False),
        sa.Column("tip", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index("ix_chain_attempts_key", "chain_attempts", ["key"])
    op.create_table(
        "chain_sealed",
        sa.Column("number", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "voids",
        sa.Column("epoch", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("standing", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("epoch"),
    )


def downgrade() -> None:
    """Back to the two outboxes of before, empty."""
    for table in ("voids", "chain_sealed", "chain_attempts", "chain_items"):
        op.drop_table(table)
    chain_outbox()
    chain_notes()
