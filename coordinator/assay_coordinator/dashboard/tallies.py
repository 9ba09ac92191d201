"""What the tables say of jobs and audits: pages by key, and counts over bounded spans of time.

Every query walks an index from where it begins and stops at its limit, so it costs the same after
a million jobs as after ten. A booked job stands in a round, and rounds in their order: newest
rounds first is newest jobs first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    exists,
    func,
    literal_column,
    select,
    true,
    tuple_,
)

from assay_coordinator.adapters.tables import TABLES
from assay_coordinator.core.records import AuditRow, JobRow, RoundRow, VerdictRow
from assay_coordinator.dashboard.asked import Cursor

OUTCOMES: Final = (
    "passed", "failed", "unequal", "withheld", "unproven", "unaudited", "convicted",
)  # fmt: skip
AGAINST: Final = ("failed", "unequal", "withheld", "convicted")  # its client has its money back
ROUNDS_MAX: Final = 50_000  # the newest, that are looked through
HOUR_US: Final = 3_600_000_000
_JOBS, _ROUNDS = TABLES[JobRow].c, TABLES[RoundRow].c
_AUDITS, _VERDICTS = TABLES[AuditRow].c, TABLES[VerdictRow].c


@dataclass(frozen=True, slots=True)
class FoundJobs:
    """Jobs, and up to which round all are drawn: what is later is not told to be audited."""

    jobs: list[JobRow]
    drawn_up_to: int

    def drawn(self, job: JobRow) -> bool:
        return job.round <= self.drawn_up_to


def newest_jobs(connection: Connection, node: bytes, after: Cursor | None, most: int) -> FoundJobs:
    """Booked jobs, of `node` or (empty) of all, newest round first, those after the cursor."""
    place = (_JOBS.round, _JOBS.booked_at, _JOBS.ticket)
    wanted = select(TABLES[JobRow]).where(_JOBS.round > 0)
    if node:
        wanted = wanted.where(_JOBS.node == node)
    if after is not None:
        wanted = wanted.where(_JOBS.round <= after[0], tuple_(*place) < tuple_(*after))
    ordered = wanted.order_by(*(column.desc() for column in place)).limit(most)
    return _with_rounds(connection, [JobRow(*row) for row in connection.execute(ordered)])


def one_job(connection: Connection, ticket: bytes) -> tuple[FoundJobs, list[AuditRow]]:
    """The booked job of a ticket, if it is one, and the replays of it."""
    wanted = select(TABLES[JobRow]).where(_JOBS.ticket == ticket, _JOBS.round > 0)
    jobs = [JobRow(*row) for row in connection.execute(wanted)]
    replays = connection.execute(select(TABLES[AuditRow]).where(_AUDITS.ticket == ticket))
    audits = sorted((AuditRow(*row) for row in replays), key=lambda audit: audit.at)
    return _with_rounds(connection, jobs), audits


def newest_audits(
    connection: Connection, role: str, node: bytes, after: Cursor | None, most: int
) -> list[AuditRow]:
    """Replays of what `node` answered ("executor"), or that it made ("auditor"), newest first.

    Only of jobs that have a verdict: whoever is asked next must not know what the first one found.
    """
    column = _AUDITS.executor if role == "executor" else _AUDITS.auditor
    ended = exists().where(_VERDICTS.ticket == _AUDITS.ticket)
    wanted = select(TABLES[AuditRow]).where(column == node, ended)
    if after is not None:
        place = (_AUDITS.at, _AUDITS.audit)
        wanted = wanted.where(_AUDITS.at <= after[0], tuple_(*place) < tuple_(*after))
    ordered = wanted.order_by(_AUDITS.at.desc(), _AUDITS.audit.desc()).limit(most)
    return [AuditRow(*row) for row in connection.execute(ordered)]


def newest_verdicts(
    connection: Connection, outcomes: Iterable[str], after: Cursor | None, most: int
) -> list[tuple[VerdictRow, JobRow]]:
    """Verdicts of these outcomes (none: all), newest first, with their jobs."""
    each = [_VERDICTS.outcome == one for one in outcomes] or [true()]
    found = [one for which in each for one in _verdicts(connection, which, after, most)]
    verdicts = sorted(found, key=lambda one: (one.at, one.ticket), reverse=True)[:most]
    tickets = [verdict.ticket for verdict in verdicts]
    rows = connection.execute(select(TABLES[JobRow]).where(_JOBS.ticket.in_(tickets)))
    jobs = {job.ticket: job for job in (JobRow(*row) for row in rows)}
    return [(verdict, jobs[verdict.ticket]) for verdict in verdicts]


def _verdicts(
    connection: Connection, which: ColumnElement[bool], after: Cursor | None, most: int
) -> list[VerdictRow]:
    wanted = select(TABLES[VerdictRow]).where(which)
    if after is not None:
        place = (_VERDICTS.at, _VERDICTS.ticket)
        wanted = wanted.where(_VERDICTS.at <= after[0], tuple_(*place) < tuple_(*after))
    ordered = wanted.order_by(_VERDICTS.at.desc(), _VERDICTS.ticket.desc()).limit(most)
    return [VerdictRow(*row) for row in connection.execute(ordered)]


def verdicts_by_span(connection: Connection, since: int, width: int) -> Mapping[int, Counter[str]]:
    """How many audits ended how since then, by span of `width` microseconds; times and widths in
    microseconds."""
    span = _span(_VERDICTS.at, width)
    spans: dict[int, Counter[str]] = {}
    for one in OUTCOMES:  # each a range of one index
        wanted = select(span, func.count()).where(_VERDICTS.outcome == one, _VERDICTS.at >= since)
        for number, count in connection.execute(wanted.group_by(span)):
            spans.setdefault(int(number), Counter())[one] = count
    return spans


def receipts_by_span(connection: Connection, since: int, width: int) -> Mapping[int, int]:
    """How many receipts closed rounds hold since then, by span of time. A round closes soon after
    its first receipt, so this is when jobs ended, give or take a minute."""
    newest = connection.execute(select(func.max(_ROUNDS.number))).scalar() or 0
    span = _span(_ROUNDS.closed_at, width)
    lately = (_ROUNDS.number > newest - ROUNDS_MAX, _ROUNDS.closed_at >= since)
    wanted = select(span, func.sum(_ROUNDS.count)).where(*lately).group_by(span)
    return {int(number): int(count) for number, count in connection.execute(wanted)}


def _span(at: Column[int], width: int) -> ColumnElement[int]:
    """The number of the span that a time is in; whole numbers divide to whole ones."""
    return at.op("/")(literal_column(str(width)))


def _with_rounds(connection: Connection, jobs: list[JobRow]) -> FoundJobs:
    drawn = select(_ROUNDS.number).where(_ROUNDS.state == "drawn")
    newest: Any = connection.execute(drawn.order_by(_ROUNDS.number.desc()).limit(1)).scalar()
    return FoundJobs(jobs, newest or 0)
