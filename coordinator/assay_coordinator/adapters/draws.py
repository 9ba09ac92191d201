"""What the tables say of audits to anybody who asks: a round's draw, and how a job stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from assay_coordinator.adapters.store import Store
from assay_coordinator.adapters.tables import TABLES
from assay_coordinator.core.lottery import UNDRAWN, entry_of
from assay_coordinator.core.records import JobRow, RoundRow, VerdictRow
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError
from assay_protocol.messages import JobVerdict, RoundDraws, VerdictRecord

_AUDITED: Final = frozenset({"passed", "failed", "unequal", "withheld", "unproven", "unaudited"})
_FINAL: Final = frozenset({"released", "refunded", "expired"})


def round_draws(store: Store, key: bytes) -> bytes:
    """The document of the round whose number `key` holds, big-endian.

    Raises AssayError("unknown_round") until it is drawn.
    """
    number = int.from_bytes(key, "big")
    if number >= 1 << 63:
        raise AssayError("unknown_round")
    rounds: list[RoundRow] = store.rows(RoundRow, TABLES[RoundRow].c.number == number)
    if not rounds or rounds[0].state != "drawn":
        raise AssayError("unknown_round")
    jobs: list[JobRow] = store.rows(JobRow, TABLES[JobRow].c.round == number)
    return encode(document_of(rounds[0], jobs))


def document_of(row: RoundRow, jobs: Iterable[JobRow]) -> RoundDraws:
    """What is published of a drawn round; `jobs`: all that were booked in it."""
    entries = (entry_of(job, outcome(job)) for job in jobs)
    return RoundDraws(
        number=row.number,
        chain=row.chain,
        link=row.link,
        anchored=row.anchored,
        posted=row.posted,
        block=row.block,
        block_hash=row.block_hash,
        closed_at=row.closed_at,
        drawn_at=row.drawn_at,
        entries=tuple(sorted(entries, key=lambda entry: entry.receipt)),
    )


def outcome(job: JobRow) -> str:
    """What became of a booked job, in the words of `DrawEntry`."""
    if job.drawn_at:
        return "open" if job.state == "drawn" else job.verdict
    if job.state == "drawn" or job.verdict in _AUDITED:
        return "inquiry"
    return job.verdict if job.state == "refunded" else UNDRAWN  # with all of a convicted node's


def job_verdict(store: Store, client: bytes, ticket: bytes) -> JobVerdict:
    """How a ticket of `client` stands. Raises AssayError("unknown_ticket") for another's."""
    rows: list[JobRow] = store.rows(JobRow, TABLES[JobRow].c.ticket == ticket)
    if not rows or rows[0].client != client:
        raise AssayError("unknown_ticket")
    row = rows[0]
    decided = row.verdict if row.state in _FINAL else ""
    table = TABLES[VerdictRow]
    verdicts: list[VerdictRow] = store.rows(VerdictRow, table.c.ticket == ticket)
    said = [one for row in verdicts for one in decode_as(VerdictRecord, row.blob).findings]
    return JobVerdict(
        ticket=ticket,
        state=row.state,
        outcome=decided,
        statements=tuple(one.statement for one in said),
        auditors=tuple(one.auditor for one in said),
    )
