"""What recent jobs looked like, as JSON lines: the pattern that `assay probe` cuts its probes to.

Of tickets and receipts, so there is no word of a prompt in it and no key: accounts are numbered in
the order in which they appear. Of an answer that was resumed or drawn twice the first job counts.
Probes themselves are left out, or the pattern would drift towards its own copies; and so are jobs
that embed, which no probe does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from assay_coordinator.adapters.store import Store
from assay_coordinator.core.records import JobRow
from assay_network.keystore import load_key
from assay_protocol.messages import Receipt, Ticket
from assay_protocol.signing import Identity, peek

SHAPES_MAX: Final = 100_000  # the newest
_MILLISECOND: Final = 1_000  # microseconds


def job_shapes(url: str, probes: frozenset[bytes] = frozenset()) -> Iterator[str]:
    """A line for each recent job whose client is not one of `probes`, oldest first."""
    store = Store(url)
    try:
        rows: list[JobRow] = store.rows(JobRow)
    finally:
        store.close()
    booked = [row for row in rows if row.receipt_blob and row.client not in probes]
    tickets = [(peek(Ticket, row.ticket_blob), row) for row in booked]
    drawn = [(t, row) for t, row in tickets if t.sampler.texts is None]
    first = [(t, row) for t, row in drawn if not t.start and t.seed_ticket == t.ticket]
    first.sort(key=lambda one: one[0].issued_at)
    accounts: dict[bytes, int] = {}
    for ticket, row in first[-SHAPES_MAX:]:
        account = accounts.setdefault(ticket.client, len(accounts))
        yield json.dumps(_shape(account, ticket, peek(Receipt, row.receipt_blob)))


def probe_keys(folder: Path) -> frozenset[bytes]:
    """The public keys that `assay probe --keys` has or had in `folder`."""
    return frozenset(Identity(load_key(file)).public_key for file in folder.rglob("*.key"))


def _shape(account: int, ticket: Ticket, receipt: Receipt) -> dict[str, Any]:
    settings = {name: value for name, value in asdict(ticket.sampler).items() if value is not None}
    grammar = settings.pop("grammar", None) is not None
    if bias := settings.get("logit_bias"):
        settings["logit_bias"] = {str(one["token"]): one["bias"] for one in bias}
    return {
        "account": account,
        "at_ms": ticket.issued_at // _MILLISECOND,
        "n_in": ticket.n_in,
        "n_out": receipt.n_out,
        "max_tokens": ticket.max_tokens,
        "sampling": settings,
        "grammar": grammar,
    }
