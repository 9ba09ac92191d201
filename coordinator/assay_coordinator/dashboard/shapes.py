"""Rows as JSON. Keys and hashes are hex, times microseconds since the epoch, and credit a decimal
string of micro-credits: a browser's numbers end at 2**53.

No shape has a client's key, a prompt, a token, an address or an auditor still at work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from assay_coordinator.adapters.draws import outcome
from assay_coordinator.core.coordinator import Coordinator, Listed
from assay_coordinator.core.evidence import ALARM, MICRO
from assay_coordinator.core.jobs import FINAL
from assay_coordinator.core.oversight import proven
from assay_coordinator.core.records import AuditRow, EpochRow, JobRow, NodeRow, VerdictRow
from assay_coordinator.dashboard.census import SeenNode
from assay_protocol.messages import Receipt, Ticket
from assay_protocol.signing import digest, peek

Shape = dict[str, Any]
BOOKED: Final = "booked"  # of a job whose round is not drawn: whether it is audited is open


def credit(amount: int) -> str:
    """Micro-credits as they are sent."""
    return str(amount)


def model_ref(model: bytes, catalogue: Mapping[bytes, Listed]) -> Shape:
    """A model by its id and, if it is listed, its name."""
    listed = catalogue.get(model)
    return {"id": model.hex(), "name": listed.name if listed else None}


def node_shape(node: SeenNode, core: Coordinator) -> Shape:
    """A node as lists show it."""
    row = node.row
    return {
        "node": row.node.hex(),
        "operator": row.operator.hex(),
        "state": node.state,
        "standing": row.state,
        "since": row.since,
        "draining": node.draining,
        "device": node.device,
        "region": node.region,
        "models": [model_ref(model, core.catalogue) for model in node.offers],
        "jobs": row.jobs,
        "running": node.running,
        "waiting": node.waiting,
        "slots": node.slots,
        "free_slots": node.free_slots,
        "audits_passed": row.verified,
        "audits_failed": row.failed,
        "evidence_nats": round(row.evidence / MICRO, 3),
        "alarm_nats": round(ALARM / MICRO, 3),
        "earned": credit(node.earned),
        "escrow": credit(node.escrow),
        "disproved": row.disproved,
        "convicted_for": _convicted_for(row, core),
        "suspended_until": row.since + core.policy.suspension_us
        if row.state == "suspended"
        else None,
    }


def job_shape(job: JobRow, drawn: bool, catalogue: Mapping[bytes, Listed]) -> Shape:
    """A booked job as the round that lists it and its receipt tell. `drawn`: its round is."""
    ticket, receipt = peek(Ticket, job.ticket_blob), peek(Receipt, job.receipt_blob)
    ended = job.state in FINAL
    return {
        "ticket": job.ticket.hex(),
        "node": job.node.hex(),
        "model": model_ref(job.model, catalogue),
        "state": job.state if ended or (drawn and job.state != "pending") else BOOKED,
        "outcome": outcome(job) if drawn else job.verdict if ended else None,
        "round": job.round,
        "tokens_in": receipt.n_in,
        "tokens_out": receipt.n_out,
        "finish": receipt.finish,
        "resumed_at": ticket.start,
        "started_at": receipt.started_at,
        "first_at": receipt.first_at,
        "ended_at": receipt.ended_at,
        "booked_at": job.booked_at,
        "charged": credit(job.charged),
        "receipt": digest(job.receipt_blob).hex(),
    }


def audit_shape(audit: AuditRow) -> Shape:
    """One finished replay."""
    return {
        "audit": audit.audit.hex(),
        "ticket": audit.ticket.hex(),
        "executor": audit.executor.hex(),
        "auditor": audit.auditor.hex(),
        "at": audit.at,
        "found": audit.outcome,
        "replayed": audit.replayed,
        "mismatches": audit.mismatches,
        "evidence_nats": round(audit.evidence / MICRO, 3),
        "drift": audit.drift / MICRO,
        "same_bits": None if audit.equal < 0 else bool(audit.equal),
        "class": audit.class_id,
        "candidates": audit.candidates,
    }


def verdict_shape(verdict: VerdictRow, job: JobRow, catalogue: Mapping[bytes, Listed]) -> Shape:
    """How a drawn job's audit ended."""
    return {
        "ticket": verdict.ticket.hex(),
        "outcome": verdict.outcome,
        "at": verdict.at,
        "node": job.node.hex(),
        "model": model_ref(job.model, catalogue),
        "charged": credit(job.charged),
        "state": job.state,
    }


def epoch_shape(epoch: EpochRow, posted: Mapping[str, Any], voided_at: int | None) -> Shape:
    """A closed epoch; `posted`: the transaction that holds its root, as far as there is one."""
    return {
        "epoch": epoch.epoch,
        "closed_at": epoch.closed_at,
        "root": epoch.root.hex(),
        "total": credit(epoch.total),
        "jobs": epoch.jobs,
        "leaves": epoch.leaves,
        "leaf_file_sha256": epoch.data_hash.hex(),
        "pricing": epoch.pricing.hex(),
        "state": "voided" if voided_at is not None else epoch.state,
        "voided_at": voided_at,
        **posted,
    }


def _convicted_for(row: NodeRow, core: Coordinator) -> str | None:
    """`quorum`: two auditors or more proved its answers wrong; `equivocation`: it signed two
    receipts for one ticket, which is the only other way."""
    if row.state != "convicted":
        return None
    return "quorum" if proven(core.policy, row) else "equivocation"


def page(items: Sequence[Shape], following: str | None) -> Shape:
    """One page of a list; `next` goes into `after` for the page that follows, if there is one."""
    return {"items": list(items), "next": following}
