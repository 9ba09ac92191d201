"""`assay audit recheck --verdicts`: that what a round calls audited, auditors did audit.

A round's document is the coordinator's word for how each audit ended. The record of a verdict is
the auditors': signed statements, and the reveals they bound. Here each such word is held to its
record: the same ticket and receipt, the same outcome, and as many signed findings as that needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from assay.steps import Step
from assay.verdicts import check_record
from assay_protocol.errors import AssayError
from assay_protocol.messages import DrawEntry, RoundDraws, Ticket, VerdictRecord
from assay_protocol.signing import digest, peek

DECIDED: Final = frozenset(
    {"passed", "failed", "unequal"}
)  # outcomes that auditors have signed for

Fetch = Callable[[bytes], VerdictRecord]


def verdict_step(document: RoundDraws, fetch: Fetch, coordinator: bytes) -> Step:
    """One step for all verdicts of a round. `fetch` gives the record of a ticket, or raises
    AssayError; a record that is not to be had is a verdict that does not hold."""
    decided = [one for one in document.entries if one.outcome in DECIDED]
    for entry in decided:
        if (fault := _fault(entry, fetch, coordinator)) is not None:
            return Step("verdicts", False, f"ticket {entry.ticket.hex()}: {fault}")
    return Step("verdicts", True, f"{len(decided)} rest on what auditors signed")


def _fault(entry: DrawEntry, fetch: Fetch, coordinator: bytes) -> str | None:
    """Why the entry's word does not hold; None if it does."""
    try:
        record = fetch(entry.ticket)
        ticket = peek(Ticket, record.ticket)
    except AssayError as error:
        return f"no record: {error}"
    if (ticket.ticket, digest(record.receipt)) != (entry.ticket, entry.receipt):
        return "the record is of another receipt"
    if record.outcome != entry.outcome:
        return f"called {entry.outcome}, the record says {record.outcome}"
    checked = check_record(record, coordinator)
    return None if checked.ok else f"its record does not hold: {', '.join(checked.failed)}"
