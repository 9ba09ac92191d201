"""Credit by role, lines in the order booked, leaves by the file, and the rules that price epochs.

Until now auditors were paid in the role of nodes: that credit keeps its role and its place.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from alembic import op

from assay_protocol.credit_tree import CreditLeaf
from assay_protocol.leaf_file import LeafFile, encode_leaves

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_POLICY_BEFORE = bytes(31) + b"\x01"  # what headers said of prices
_LEAVES = ("account", "cumulative", "epoch_credit", "receipts_root")


def upgrade() -> None:
    _credit(with_role=True)
    _lines(with_role=True)
    _leaves_to_files()
    _number("epochs", "pricing", sa.LargeBinary())
    epochs = sa.table("epochs", sa.column("pricing", sa.LargeBinary()))
    op.get_bind().execute(epochs.update().values(pricing=_POLICY_BEFORE))
    op.create_table(
        "pricings",
        sa.Column("epoch", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("epoch"),
    )


def downgrade() -> None:
    """What is not of nodes' role has no place in the tables before."""
    op.drop_table("pricings")
    with op.batch_alter_table("epochs") as epochs:
        epochs.drop_column("pricing")
    _files_to_leaves()
    _lines(with_role=False)
    _credit(with_role=False)


def _credit(*, with_role: bool) -> None:
    role = [sa.Column("role", sa.BigInteger(), nullable=False, autoincrement=False)]
    op.create_table(
        "credit_made",
        sa.Column("account", sa.LargeBinary(), nullable=False),
        *(role if with_role else []),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("cumulative", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", *(["role"] if with_role else [])),
    )
    if with_role:
        chosen = "select account, 0, position, cumulative from credit"
    else:
        chosen = "select account, position, cumulative from credit where role = 0"
    op.execute(f"insert into credit_made {chosen}")
    op.drop_table("credit")
    op.rename_table("credit_made", "credit")


def _lines(*, with_role: bool) -> None:
    added = [
        sa.Column(name, sa.BigInteger(), nullable=False, autoincrement=False)
        for name in ("role", "position")
    ]
    keys = ["epoch", "account", *(["role", "position"] if with_role else ["kind", "ref"])]
    op.create_table(
        "lines_made",
        sa.Column("epoch", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("account", sa.LargeBinary(), nullable=False),
        *(added if with_role else []),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("ref", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(*keys),
    )
    place = "row_number() over (partition by epoch, account order by kind, ref) - 1"
    if with_role:
        chosen = f"epoch, account, 0, {place}, kind, ref, digest, amount from lines"
    else:
        chosen = "epoch, account, kind, ref, digest, amount from lines where role = 0"
    op.execute(f"insert into lines_made select {chosen}")
    op.drop_table("lines")
    op.rename_table("lines_made", "lines")


def _leaf_tables() -> tuple[sa.TableClause, sa.TableClause]:
    numbers = ("epoch", "position", "cumulative", "epoch_credit")
    columns: list[sa.ColumnClause[Any]] = [
        *(sa.column(name, sa.LargeBinary()) for name in ("account", "receipts_root")),
        *(sa.column(name, sa.BigInteger()) for name in numbers),
    ]
    files = sa.table(
        "epoch_leaves", sa.column("epoch", sa.BigInteger()), sa.column("data", sa.LargeBinary())
    )
    return sa.table("leaves", *columns), files


def _leaves_to_files() -> None:
    """What is not on the chain yet will be posted with the hash of its file."""
    op.create_table(
        "epoch_leaves",
        sa.Column("epoch", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("epoch"),
    )
    leaves, files = _leaf_tables()
    connection = op.get_bind()
    epochs = sa.table("epochs", *(sa.column(name) for name in ("epoch", "state", "data_hash")))
    for (epoch,) in connection.execute(sa.select(epochs.c.epoch)).all():
        rows = connection.execute(
            sa.select(*(leaves.c[name] for name in _LEAVES))
            .where(leaves.c.epoch == epoch)
            .order_by(leaves.c.position)
        )
        made = [CreditLeaf(account, 0, total, own, root) for account, total, own, root in rows]
        data = encode_leaves(epoch, (leaf.encode() for leaf in made))
        connection.execute(files.insert().values(epoch=epoch, data=data))
        queued = sa.and_(epochs.c.epoch == epoch, epochs.c.state == "queued")
        hashed = epochs.update().where(queued).values(data_hash=sha256(data).digest())
        connection.execute(hashed)
    op.drop_index("leaves_account", "leaves")
    op.drop_table("leaves")


def _files_to_leaves() -> None:
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
    leaves, files = _leaf_tables()
    connection = op.get_bind()
    for epoch, data in connection.execute(sa.select(files)).all():
        rows = [
            {name: getattr(leaf, name) for name in _LEAVES} | {"epoch": epoch, "position": place}
            for place, leaf in enumerate(LeafFile(data).leaves())
        ]
        if rows:
            connection.execute(leaves.insert(), rows)
    op.drop_table("epoch_leaves")


def _number(table: str, name: str, kind: sa.types.TypeEngine[bytes]) -> None:
    """A column for rows there may be already; nothing is its default afterwards."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table(table) as batch:
        first = sa.text("x''" if sqlite else "''")
        batch.add_column(sa.Column(name, kind, nullable=False, server_default=first))
    with op.batch_alter_table(table) as batch:
        batch.alter_column(name, existing_type=kind, server_default=None)
