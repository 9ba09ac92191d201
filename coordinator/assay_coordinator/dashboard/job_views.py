"""Jobs, and what became of those that were audited."""

from __future__ import annotations

from collections import Counter
from typing import Final

from sqlalchemy import Connection

from assay_coordinator.core.records import JobRow
from assay_coordinator.dashboard.asked import Asked, cursor
from assay_coordinator.dashboard.shapes import Shape, audit_shape, job_shape, page, verdict_shape
from assay_coordinator.dashboard.tallies import (
    HOUR_US,
    OUTCOMES,
    newest_jobs,
    newest_verdicts,
    one_job,
    verdicts_by_span,
)
from assay_coordinator.dashboard.views import Views
from assay_protocol.errors import AssayError

HOURS: Final = 24


async def jobs(views: Views, asked: Asked) -> Shape:
    """Booked jobs, newest first. A job without a receipt yet is not told."""
    node, after, limit = asked.key("node"), asked.after(0, 0, 16), asked.limit()
    catalogue = views.subject.core().catalogue

    def shown(connection: Connection) -> Shape:
        found = newest_jobs(connection, node, after, limit + 1)
        shapes = [job_shape(job, found.drawn(job), catalogue) for job in found.jobs[:limit]]
        return page(shapes, _following(found.jobs, limit))

    return await views.subject.read(shown)


async def job(views: Views, asked: Asked) -> Shape:
    """One job and, once its audit has ended, every replay of it."""
    found, audits = await views.subject.read(one_job, asked.name("ticket", 16))
    if not found.jobs:
        raise AssayError("unknown_ticket", "no receipt of such a ticket is booked")
    (row,) = found.jobs
    shape = job_shape(row, found.drawn(row), views.subject.core().catalogue)
    over = shape["outcome"] not in (None, "open", "undrawn")  # who audits now is not told
    return {
        **shape,
        "verify": row.verify if found.drawn(row) else None,
        "chance": [row.numerator, row.denominator],
        "audits": [audit_shape(audit) for audit in audits] if over else [],
    }


async def verification(views: Views, asked: Asked) -> Shape:
    """How the audits of a day ended, by the hour."""
    core, now = views.subject.core(), views.subject.clock()
    first = (now // HOUR_US - HOURS + 1) * HOUR_US
    spans = await views.subject.read(verdicts_by_span, first, HOUR_US)
    total: Counter[str] = Counter()
    for counted in spans.values():
        total.update(counted)
    census = await views.census()
    return {
        "first_at": first,
        "span_us": HOUR_US,
        "outcomes": {one: total[one] for one in OUTCOMES},
        "by_hour": {
            one: [spans.get(first // HOUR_US + i, Counter())[one] for i in range(HOURS)]
            for one in OUTCOMES
        },
        "replays": core.audits.finished,
        "open": len(core.audits.cases),
        "standing": {
            state: census.states[state] for state in ("inquiry", "suspended", "convicted")
        },
        "policy": {
            "probation_audits": core.policy.probation_audits,
            "audit_bps_min": core.policy.audit_bps_min,
            "replays_max": core.policy.replays_max,
            "convicting_jobs": core.policy.convicting_jobs,
        },
    }


async def verdicts(views: Views, asked: Asked) -> Shape:
    """Audits that ended, newest first."""
    outcome = asked.filter("outcome", OUTCOMES)
    after, limit = asked.after(0, 16), asked.limit()
    wanted = (outcome,) if outcome else ()
    found = await views.subject.read(newest_verdicts, wanted, after, limit + 1)
    catalogue = views.subject.core().catalogue
    last = found[limit - 1][0] if len(found) > limit else None
    following = None if last is None else cursor(last.at, last.ticket)
    shown = [verdict_shape(verdict, row, catalogue) for verdict, row in found[:limit]]
    return page(shown, following)


def _following(found: list[JobRow], limit: int) -> str | None:
    if len(found) <= limit:
        return None
    last = found[limit - 1]
    return cursor(last.round, last.booked_at, last.ticket)
