"""A node's record and what changes it besides verdicts: time, new classes, an inquiry's end.

probation   every job is audited; after `probation_audits` passed ones it is active
active      jobs are drawn at a rate that falls with its record
inquiry     an alarm: no jobs, pay held back, until what it has in escrow is audited
suspended   nothing was proven, or no fraud: no jobs for `suspension_us`, then probation anew
convicted   proven: escrow forfeited, the key is banned for good

MOVES has what leads from one to another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import NodeRow
from assay_protocol.limits import MODELS_PER_NODE_MAX
from assay_protocol.messages import Offer

MOVES: Final[Mapping[tuple[str, str], str]] = {
    ("probation", "active"): "enough audits passed",
    ("active", "probation"): "its record became too short",
    ("probation", "inquiry"): "an alarm, or a job found wrong",
    ("active", "inquiry"): "an alarm, or a job found wrong",
    ("inquiry", "suspended"): "all is audited, nothing is proven",
    ("suspended", "probation"): "its pause is over",
    ("probation", "convicted"): "fraud is proven",
    ("active", "convicted"): "fraud is proven",
    ("inquiry", "convicted"): "fraud is proven",
    ("suspended", "convicted"): "it signed two receipts for one ticket",
}
IDLE_US: Final = 30 * 24 * 3_600 * 1_000_000  # a record loses half its weight in this time unused
CLOSED: Final = frozenset({"inquiry", "suspended", "convicted"})  # gets no jobs, audits nobody
OFFERED_MAX: Final = 2 * MODELS_PER_NODE_MAX  # pairs of model and class remembered of a node
_PAIR_BYTES: Final = 8
_FAULTS_FREE: Final = 16  # times an auditor may be late or malformed before its share counts
_FAULT_SHARE: Final = 8  # then at most one replay in eight


def fresh_row(node: bytes, operator: bytes, now: int) -> NodeRow:
    """Of a key nobody has seen."""
    return NodeRow(
        node=node,
        operator=operator,
        state="probation",
        jobs=0,
        verified=0,
        failed=0,
        audits_done=0,
        audit_faults=0,
        evidence=0,
        since=now,
        audited_at=now,
        detectors=b"",
        proof=b"",
        disproved=0,
        outvoted=0,
        exact=0,
        offered=b"",
    )


def moved(row: NodeRow, state: str, now: int) -> NodeRow:
    """The record in another state: one of the MOVES."""
    assert (row.state, state) in MOVES, f"no node goes from {row.state} to {state}"
    return replace(row, state=state, since=now)


def aged(policy: Policy, row: NodeRow, now: int) -> NodeRow:
    """The record now: half of it is gone for every IDLE_US without a passed audit."""
    periods = (now - row.audited_at) // IDLE_US
    if periods < 1:
        return row
    row = replace(row, audited_at=row.audited_at + periods * IDLE_US)
    return weakened(policy, row, now, row.verified >> min(64, periods))


def offering(policy: Policy, row: NodeRow, offers: tuple[Offer, ...], now: int) -> NodeRow:
    """The record of a node that offers these: half of it is gone if a model or class is new, as
    what it passed tells less of that."""
    known = [row.offered[i : i + _PAIR_BYTES] for i in range(0, len(row.offered), _PAIR_BYTES)]
    pairs = dict.fromkeys(_pair(offer) for offer in offers)
    new = [pair for pair in pairs if pair not in known]
    if not new:
        return row
    kept = [*(pair for pair in known if pair not in pairs), *pairs][-OFFERED_MAX:]
    row = replace(row, offered=b"".join(kept))
    return weakened(policy, row, now, row.verified // 2) if known else row


def weakened(policy: Policy, row: NodeRow, now: int, verified: int) -> NodeRow:
    """With fewer passed audits to its name, and back in probation if they are too few."""
    row = replace(row, verified=verified)
    if row.state == "active" and verified < policy.probation_audits:
        return moved(row, "probation", now)
    return row


def may_audit(policy: Policy, row: NodeRow) -> bool:
    """Whether its word is still asked for: not once it was outvoted too often, for good, nor if
    too many of its replays came late or malformed."""
    faults = _FAULTS_FREE + row.audits_done // _FAULT_SHARE
    return row.outvoted < policy.outvoted_max and row.audit_faults <= faults


def _pair(offer: Offer) -> bytes:
    named = offer.model + offer.class_id.encode()
    return hashlib.blake2b(named, digest_size=_PAIR_BYTES, person=b"assay offered").digest()
