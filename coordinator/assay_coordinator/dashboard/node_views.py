"""Nodes: who is here, and of one node its record, its audits and what it earned."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from assay_coordinator.core.coordinator import Coordinator
from assay_coordinator.core.registry import Node
from assay_coordinator.core.standing import may_audit
from assay_coordinator.dashboard.asked import Asked, Cursor, cursor
from assay_coordinator.dashboard.census import STATES, found, look, rank, state_of
from assay_coordinator.dashboard.shapes import (
    Shape,
    audit_shape,
    credit,
    model_ref,
    node_shape,
    page,
)
from assay_coordinator.dashboard.tallies import newest_audits
from assay_coordinator.dashboard.views import Views
from assay_protocol.errors import AssayError
from assay_protocol.messages import Offer
from assay_protocol.splits import AUDITOR, COMPUTE

ROLES: Final = ("executor", "auditor")


async def nodes(views: Views, asked: Asked) -> Shape:
    """Who is here first, and those that did most work before others."""
    state, model = asked.filter("state", STATES), asked.key("model")
    after, limit = asked.after(0, 0, 32), asked.limit()
    census, core, now = await views.census(), views.subject.core(), views.subject.clock()
    first = 0 if after is None else bisect_right(census.ranks, _rank_of(after))

    def wanted(node: Node) -> bool:
        right_state = not state or state_of(node, now) == state
        return right_state and (not model or model in node.offers)

    some = await found(core, census.ranks, first, wanted, limit + 1)
    shown = some[:limit]
    last = shown[-1] if len(some) > limit else None
    following = None
    if last is not None:
        following = cursor(int(not last.present(now)), last.row.jobs, last.key)
    return page([node_shape(look(node, core.ledger, now), core) for node in shown], following)


async def one_node(views: Views, asked: Asked) -> Shape:
    """A node's record, and what it says of itself."""
    node, core = _known(views, asked), views.subject.core()
    seen, row = look(node, core.ledger, views.subject.clock()), node.row
    numerator, denominator = core.policy.audit_due(row.verified)
    return {
        **node_shape(seen, core),
        "software": seen.software,
        "offers": [_offer(offer, core) for offer in seen.offers.values()],
        "audits_done": row.audits_done,
        "audit_faults": row.audit_faults,
        "outvoted": row.outvoted,
        "may_audit": may_audit(core.policy, row),
        "exact_in_a_row": row.exact,
        "audited_at": row.audited_at,
        "audit_rate": round(numerator / denominator, 4),
        "probation_left": max(0, core.policy.probation_audits - row.verified),
        "credit": {
            "compute": credit(_lifetime(views, row.node, COMPUTE)),
            "auditor": credit(_lifetime(views, row.node, AUDITOR)),
        },
    }


async def node_audits(views: Views, asked: Asked) -> Shape:
    """Replays of its answers, or with `role=auditor` those it made of others'."""
    node = _known(views, asked)
    role = asked.filter("role", ROLES) or "executor"
    after, limit = asked.after(0, 16), asked.limit()
    audits = await views.subject.read(newest_audits, role, node.key, after, limit + 1)
    last = audits[limit - 1] if len(audits) > limit else None
    following = None if last is None else cursor(last.at, last.audit)
    return page([audit_shape(audit) for audit in audits[:limit]], following)


def _rank_of(after: Cursor) -> int:
    away, jobs, key = after
    assert isinstance(key, bytes)
    return rank(bool(away), int(jobs), key)


def _known(views: Views, asked: Asked) -> Node:
    node = views.subject.core().registry.get(asked.name("node", 32))
    if node is None:
        raise AssayError("unknown_node")
    return node


def _lifetime(views: Views, account: bytes, role: int) -> int:
    row = views.subject.core().ledger.credit.get((account, role))
    return 0 if row is None else row.cumulative


def _offer(offer: Offer, core: Coordinator) -> Shape:
    return {
        "model": model_ref(offer.model, core.catalogue),
        "class": offer.class_id,
        "slots": offer.slots,
        "context": offer.context,
        "prefill_tokens_per_second": offer.prefill_rate / 1000,
        "decode_tokens_per_second": offer.decode_rate / 1000,
        "grammar": offer.grammar,
    }
