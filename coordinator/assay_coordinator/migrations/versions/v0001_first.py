"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _nodes()
    _balances()
    _postings()
    _credit()
    _jobs()
    _lines()
    _leaves()
    _epochs()
    _audits()
    chain_outbox()


def downgrade() -> None:
    for name in _TABLES:
        op.drop_table(name)


_TABLES = (
    "chain_outbox",
    "audits",
    "epochs",
    "leaves",
    "lines",
    "jobs",
    "credit",
    "postings",
    "balances",
    "nodes",
)


def _nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("node", sa.LargeBinary(), nullable=False),
        sa.Column("operator", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.Column("verified", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("audits_done", sa.BigInteger(), nullable=False),
        sa.Column("audit_faults", sa.BigInteger(), nullable=False),
        sa.Column("evidence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node"),
    )


def _balances() -> None:
    op.create_table(
        "balances",
        sa.Column("purse", sa.String(), nullable=False),
        sa.Column("owner", sa.LargeBinary(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("purse", "owner"),
    )


def _postings() -> None:
    op.create_table(
        "postings",
        sa.Column("seq", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("source_owner", sa.LargeBinary(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("target_owner", sa.LargeBinary(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("ref", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )


def _credit() -> None:
    op.create_table(
        "credit",
        sa.Column("account", sa.LargeBinary(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("cumulative", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account"),
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("ticket", sa.LargeBinary(), nullable=False),
        sa.Column("client", sa.LargeBinary(), nullable=False),
        sa.Column("node", sa.LargeBinary(), nullable=False),
        sa.Column("model", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("ticket_blob", sa.LargeBinary(), nullable=False),
        sa.Column("receipt_blob", sa.LargeBinary(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("deadline_at", sa.BigInteger(), nullable=False),
        sa.Column("held_epoch", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("ticket"),
    )
    op.create_index("jobs_node", "jobs", ["node"])
    op.create_index("jobs_open", "jobs", ["state", "deadline_at"])


def _lines() -> None:
    op.create_table(
        "lines",
        sa.Column("epoch", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("account", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("ref", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "account", "kind", "ref"),
    )


def _leaves() -> None:
    op.create_table(
        "leaves",
        sa.Column("epoch", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("position", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("account", sa.LargeBinary(), nullable=False),
        sa.Column("cumulative", sa.BigInteger(), nullable=False),
        sa.Column("epoch_credit", sa.BigInteger(), nullable=False),
        sa.Column("receipts_root", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", "position"),
    )
    op.create_index("leaves_account", "leaves", ["account", "epoch"])


def _epochs() -> None:
    op.create_table(
        "epochs",
        sa.Column("epoch", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.Column("leaves", sa.BigInteger(), nullable=False),
        sa.Column("data_hash", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("epoch"),
    )


def _audits() -> None:
    op.create_table(
        "audits",
        sa.Column("audit", sa.LargeBinary(), nullable=False),
        sa.Column("ticket", sa.LargeBinary(), nullable=False),
        sa.Column("executor", sa.LargeBinary(), nullable=False),
        sa.Column("auditor", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("replayed", sa.BigInteger(), nullable=False),
        sa.Column("mismatches", sa.BigInteger(), nullable=False),
        sa.Column("equal_logits", sa.BigInteger(), nullable=False),
        sa.Column("evidence", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("audit"),
    )
    op.create_index("audits_ticket", "audits", ["ticket"])


def chain_outbox() -> None:
    op.create_table(
        "chain_outbox",
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False, unique=True),
        sa.Column("root", sa.LargeBinary(32), nullable=False),
        sa.Column("total_cum", sa.LargeBinary(16), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.Column("leaves", sa.BigInteger(), nullable=False),
        sa.Column("data_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("policy", sa.LargeBinary(32), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=True),
        sa.Column("raw", sa.LargeBinary(), nullable=True),
        sa.Column("transaction_hash", sa.LargeBinary(32), nullable=True),
        sa.Column("block", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key"),
    )
