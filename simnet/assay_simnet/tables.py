"""The coordinator's tables in memory: what a restart reads, and no history beyond it.

Rows are replaced by their KEY, as any database does. What the core never reads again (postings,
audits, old leaves, jobs that are over and past asking) is counted and let go: a run of a million
jobs has a million of them.
"""

from __future__ import annotations

from typing import Any

from assay_coordinator.core.coordinator import Stored
from assay_coordinator.core.epochs import StoredEpochs
from assay_coordinator.core.jobs import OPEN
from assay_coordinator.core.records import (
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
)
from assay_coordinator.core.statements import Statements

Key = tuple[Any, ...]
_LET_GO = (PostingRow, AuditRow, VerdictRow)


class Tables:
    """What was saved and is still of use."""

    def __init__(self) -> None:
        self._rows: dict[type, dict[Key, Any]] = {}
        self.postings = 0
        self.audits = 0
        self.rounds = 0

    def save(self, row: Row) -> None:
        if isinstance(row, PostingRow):
            self.postings = max(self.postings, row.seq)
        elif isinstance(row, AuditRow):
            self.audits += 1
        elif isinstance(row, RoundRow):
            self.rounds = max(self.rounds, row.number)
        if not isinstance(row, _LET_GO):
            key = tuple([getattr(row, name) for name in row.KEY])
            self._rows.setdefault(type(row), {})[key] = row

    def rows(self, cls: type[Any]) -> list[Any]:
        """All that are kept, in the order in which they were first saved."""
        return list(self._rows.get(cls, {}).values())

    def get(self, cls: type[Any], *key: Any) -> Any:
        return self._rows.get(cls, {}).get(key)

    def load(self, now: int) -> Stored:
        """What the core needs to go on, as adapters/store.py reads it."""
        epochs = sorted(self.rows(EpochRow), key=lambda row: row.epoch)
        running = epochs[-1].epoch + 1 if epochs else 1
        undrawn = [row for row in self.rows(RoundRow) if row.state != "drawn"]
        first = min((row.number for row in undrawn), default=self.rounds + 1)
        jobs = sorted(self.rows(JobRow), key=lambda row: (row.deadline_at, row.ticket))
        return Stored(
            nodes=self.rows(NodeRow),
            balances=self.rows(BalanceRow),
            credit=self.rows(CreditRow),
            jobs=[row for row in jobs if row.state in OPEN or row.deadline_at > now],
            epochs=StoredEpochs(
                last=epochs[-1] if epochs else None,
                unposted=[row for row in epochs if row.state != "posted"],
                statements=Statements.of(self._lines(running)),
                pricings=sorted(self.rows(PricingRow), key=lambda row: row.epoch)[-2:],
            ),
            next_posting=self.postings + 1,
            audits=self.audits,
            last_round=self.rounds,
            undrawn=undrawn,
            entries=[row for row in jobs if row.round >= first],
            rules=next(iter(self.rows(RulesRow)), None),
        )

    def _lines(self, epoch: int) -> list[LineRow]:
        lines = [line for line in self.rows(LineRow) if line.epoch == epoch]
        return sorted(lines, key=lambda line: (line.account, line.role, line.position))

    def forget(self, now: int) -> None:
        """Let go of what no restart would read."""
        last = max((row.epoch for row in self.rows(EpochRow)), default=0)
        waiting = [row.number for row in self.rows(RoundRow) if row.state != "drawn"]
        first = min(waiting, default=self.rounds + 1)
        self._keep(
            JobRow,
            lambda row: row.state in OPEN or row.deadline_at > now or row.round >= first,
        )
        self._keep(LineRow, lambda row: row.epoch >= last)
        self._keep(LeavesRow, lambda row: row.epoch >= last)
        self._keep(EpochRow, lambda row: row.epoch >= last or row.state != "posted")
        self._keep(RoundRow, lambda row: row.number >= first - 1)

    def _keep(self, cls: type, wanted: Any) -> None:
        rows = self._rows.get(cls)
        if rows:
            self._rows[cls] = {key: row for key, row in rows.items() if wanted(row)}
