"""Indexes that the dashboard's pages are read by: newest first, of a node or of an outcome."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_NEW = (
    ("jobs_node", "jobs", ["node", "round"]),
    ("audits_executor", "audits", ["executor", "at"]),
    ("audits_auditor", "audits", ["auditor", "at"]),
    ("verdicts_at", "verdicts", ["at"]),
    ("verdicts_outcome", "verdicts", ["outcome", "at"]),
)


def upgrade() -> None:
    op.drop_index("jobs_node", "jobs")
    for name, table, columns in _NEW:
        op.create_index(name, table, columns)


def downgrade() -> None:
    for name, table, _ in _NEW:
        op.drop_index(name, table)
    op.create_index("jobs_node", "jobs", ["node"])
