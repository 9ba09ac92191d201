"""Runs the migrations on the connection that `adapters.store.migrate` hands over (Alembic)."""

from __future__ import annotations

from alembic import context

from assay_coordinator.adapters.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite cannot alter columns in place
)
with context.begin_transaction():
    context.run_migrations()
