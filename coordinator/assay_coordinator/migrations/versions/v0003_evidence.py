"""Evidence by alternatives, states with a beginning, verdicts for all to read."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0001"
branch_labels = None
depends_on = None

_NODE_COLUMNS = (
    ("since", sa.BigInteger(), "0"),
    ("audited_at", sa.BigInteger(), "0"),
    ("detectors", sa.LargeBinary(), ""),
    ("proof", sa.LargeBinary(), ""),
    ("disproved", sa.BigInteger(), "0"),
    ("outvoted", sa.BigInteger(), "0"),
    ("exact", sa.BigInteger(), "0"),
    ("offered", sa.LargeBinary(), ""),
)
_AUDIT_COLUMNS = (
    ("class_id", sa.String(), ""),
    ("drift", sa.BigInteger(), "0"),
    ("equal", sa.BigInteger(), "-1"),
)


def upgrade() -> None:
    """Nodes suspended before are banned: that was what suspension meant."""
    _add("nodes", _NODE_COLUMNS)
    _add("audits", _AUDIT_COLUMNS)
    with op.batch_alter_table("audits") as audits:
        audits.drop_column("equal_logits")
    op.execute("update nodes set state = 'convicted' where state = 'suspended'")
    op.execute("update nodes set evidence = 0")  # of the one test there was before
    now = "cast(strftime('%s', 'now') as integer)"
    if op.get_bind().dialect.name == "postgresql":
        now = "cast(extract(epoch from now()) as bigint)"
    op.execute(f"update nodes set since = {now} * 1000000, audited_at = {now} * 1000000")
    op.create_table(
        "verdicts",
        sa.Column("ticket", sa.LargeBinary(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("ticket"),
    )


def downgrade() -> None:
    op.drop_table("verdicts")
    op.execute("update nodes set state = 'suspended' where state in ('convicted', 'inquiry')")
    _drop("nodes", _NODE_COLUMNS)
    _drop("audits", _AUDIT_COLUMNS)
    with op.batch_alter_table("audits") as audits:
        audits.add_column(
            sa.Column("equal_logits", sa.BigInteger(), nullable=False, server_default="0")
        )


_Columns = tuple[tuple[str, Any, str], ...]


def _add(table: str, columns: _Columns) -> None:
    """With a default for the rows there are, and none for those to come."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table(table) as batch:
        for name, kind, default in columns:
            blob = sqlite and isinstance(kind, sa.LargeBinary)
            first = sa.text("x''") if blob else default  # else SQLite would keep a text there
            batch.add_column(sa.Column(name, kind, nullable=False, server_default=first))
    with op.batch_alter_table(table) as batch:
        for name, kind, _ in columns:
            batch.alter_column(name, existing_type=kind, server_default=None)


def _drop(table: str, columns: _Columns) -> None:
    with op.batch_alter_table(table) as batch:
        for name, _, _ in columns:
            batch.drop_column(name)
