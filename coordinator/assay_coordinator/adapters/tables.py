"""The core's rows as SQL tables: one table per row class, one column per field.

Bytes are LargeBinary, integers BigInteger (money fits 63 bits by messages.Credit), text String.
The migrations create these tables; a test holds the two against each other.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final
from typing import get_type_hints as type_hints

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, String, Table

from assay_contracts.adapters.outbox import METADATA as OUTBOX_METADATA
from assay_contracts.local.sealed import SEALED
from assay_coordinator.core.records import (
    ROWS,
    AuditRow,
    BalanceRow,
    CreditRow,
    EpochRow,
    JobRow,
    LeavesRow,
    LineRow,
    NodeRow,
    PostingRow,
    PricingRow,
    RoundRow,
    Row,
    RulesRow,
    VerdictRow,
    VoidRow,
)

METADATA: Final = MetaData()
_NAMES: Final[dict[type[Row], str]] = {
    NodeRow: "nodes",
    BalanceRow: "balances",
    PostingRow: "postings",
    CreditRow: "credit",
    JobRow: "jobs",
    RoundRow: "rounds",
    LineRow: "lines",
    LeavesRow: "epoch_leaves",
    PricingRow: "pricings",
    EpochRow: "epochs",
    VoidRow: "voids",
    AuditRow: "audits",
    VerdictRow: "verdicts",
    RulesRow: "rules",
}
_TYPES: Final[dict[type, Any]] = {bytes: LargeBinary, int: BigInteger, str: String}


def _table(cls: type[Row]) -> Table:
    hints = type_hints(cls)
    columns = [
        Column(
            item.name,
            _TYPES[hints[item.name]],
            primary_key=item.name in cls.KEY,
            nullable=False,
            autoincrement=False,
        )
        for item in fields(cls)
    ]
    return Table(_NAMES[cls], METADATA, *columns)


TABLES: Final[dict[type[Row], Table]] = {cls: _table(cls) for cls in ROWS}
Index("jobs_open", TABLES[JobRow].c.state, TABLES[JobRow].c.deadline_at)
Index("jobs_round", TABLES[JobRow].c.round)
Index("jobs_node", TABLES[JobRow].c.node, TABLES[JobRow].c.round)
Index("audits_ticket", TABLES[AuditRow].c.ticket)
Index("audits_executor", TABLES[AuditRow].c.executor, TABLES[AuditRow].c.at)
Index("audits_auditor", TABLES[AuditRow].c.auditor, TABLES[AuditRow].c.at)
Index("verdicts_at", TABLES[VerdictRow].c.at)
Index("verdicts_outcome", TABLES[VerdictRow].c.outcome, TABLES[VerdictRow].c.at)

assert SEALED.name in OUTBOX_METADATA.tables
for _table_of_chain in OUTBOX_METADATA.tables.values():
    _table_of_chain.to_metadata(METADATA)
