"""A run in figures: what a researcher asks first. The same for the same scenario and seed.

Shares are of 1, times in seconds, money in micro-credits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import fsum
from pathlib import Path
from typing import Any

from assay_protocol.splits import ROLES
from assay_simnet.accounts import write_accounts
from assay_simnet.record import JobLine, Table, gini, percentiles
from assay_simnet.seen import Seen, SeenNode
from assay_simnet.setting import GRANT, START

NODE_COLUMNS = (
    *("node", "behaviour", "region", "profile", "kind", "state", "jobs", "verified", "failed"),
    *("audits", "earned", "served_s", "replayed_s", "cheated", "first_cheat_us", "stopped_us"),
)
EPOCH_COLUMNS = ("epoch", "closed_us", "root")


def summary(world: Seen) -> dict[str, Any]:
    """All figures of a run that is over, or was stopped."""
    record, core = world.record, world.coordinator.core
    seconds = world.scenario.duration / 1e6
    served = fsum(node.meter.served_us for node in world.nodes)
    replayed = fsum(node.meter.replayed_us for node in world.nodes)
    slots = sum(node.slots for node in world.nodes)
    return {
        "phase": world.phase,
        "virtual_s": round((world.now - START) / 1e6, 3),
        "events": world.events,
        "jobs": {
            "begun": record.begun,
            "ended": record.over,
            "by_finish": dict(sorted(record.finished.items())),
            "by_error": dict(sorted(record.codes.items())),
            "per_s": round(record.begun / seconds, 3) if seconds else 0.0,
        },
        "tokens": record.tokens,
        "latency": _latency(world, record.honest),
        "utilisation": round((served + replayed) / (slots * world.scenario.duration), 4),
        "verification": {
            "audits": core.audits.finished,
            "compute_share": round(replayed / served, 4) if served else 0.0,
            "verdicts": record.logs["verdict"],
        },
        "adversaries": _adversaries(world),
        "honest": _standing(world, [node for node in world.nodes if node.cheat is None]),
        "false_convictions": _false_convictions(world),
        "frauds": dict(sorted(world.frauds.items())),
        "undetected_fraud": _undetected(world),
        "credit_gini": gini(row.cumulative for row in core.ledger.credit.values()),
        "treasury": core.ledger.balance("treasury"),
        "epochs": len(record.epochs),
        "coordinator_starts": world.coordinator.starts - 2,
        "faults": world.faults_happened,
    }


def write_tables(world: Seen, folder: Path) -> None:
    """A line for each node, epoch and account."""
    nodes = Table(folder, "nodes", NODE_COLUMNS)
    epochs = Table(folder, "epochs", EPOCH_COLUMNS)
    for node in world.nodes:
        known = world.coordinator.core.registry.nodes.get(node.key)
        row, meter = known.row if known else None, node.meter
        nodes.add(
            [
                node.number,
                node.behaviour,
                node.region,
                node.profile,
                node.kind,
                row.state if row else "unseen",
                meter.jobs,
                row.verified if row else 0,
                row.failed if row else 0,
                meter.audits,
                _earned(world, node),
                round(meter.served_us / 1e6, 3),
                round(meter.replayed_us / 1e6, 3),
                meter.cheated,
                meter.first_cheat_us,
                world.record.stopped_us.get(node.key.hex(), 0),
            ]
        )
    for epoch in world.record.epochs:
        epochs.add(epoch)
    for table in (nodes, epochs):
        table.close()
    write_accounts(world, folder)


def _false_convictions(world: Seen) -> int:
    """Honest nodes that were ever convicted."""
    convicted = world.record.convicted_us
    return sum(node.cheat is None and node.key.hex() in convicted for node in world.nodes)


def _undetected(world: Seen) -> float | None:
    """The share of answers cheated on that were paid; None where none was decided."""
    frauds = world.frauds
    decided = sum(frauds.values())
    return round(frauds["released"] / decided, 4) if decided else None


def _latency(world: Seen, lines: list[JobLine]) -> dict[str, Any]:
    scenario = world.scenario
    good = sum(
        line.ttft_us <= scenario.slo_ttft and line.tpot_us <= scenario.slo_tpot for line in lines
    )
    seconds = scenario.duration / 1e6
    return {
        "ttft_s": percentiles(line.ttft_us / 1e6 for line in lines),
        "tpot_s": percentiles(line.tpot_us / 1e6 for line in lines),
        "e2e_s": percentiles((line.ended_us - line.begun_us) / 1e6 for line in lines),
        "goodput_jobs_per_s": round(good / seconds, 3) if seconds else 0.0,
        "within_slo": round(good / len(lines), 4) if lines else 0.0,
    }


def _adversaries(world: Seen) -> dict[str, Any]:
    """By behaviour: how they ended, when they were stopped, what they gained."""
    groups: defaultdict[str, list[SeenNode]] = defaultdict(list)
    for node in world.nodes:
        if node.cheat is not None:
            groups[node.behaviour].append(node)
    return {name: _group(world, nodes) for name, nodes in sorted(groups.items())}


def _group(world: Seen, nodes: list[SeenNode]) -> dict[str, Any]:
    stopped = world.record.stopped_us
    waits = [
        (stopped[node.key.hex()] - node.meter.first_cheat_us) / 1e6
        for node in nodes
        if node.key.hex() in stopped and node.meter.first_cheat_us
    ]
    name, standing = nodes[0].behaviour, _standing(world, nodes)
    spent = _spent(world, name)
    return {
        **standing,
        "own_jobs": world.record.delivered[name],
        "spent": spent,
        "net": standing["earned"] + standing["held"] - spent,
        "cheated": sum(node.meter.cheated for node in nodes),
        "stopped": sum(node.key.hex() in stopped for node in nodes),
        "detection_s": percentiles(waits),
    }


def _standing(world: Seen, nodes: Iterable[SeenNode]) -> dict[str, Any]:
    """`held`: what escrow comes to once it is released, with what is then found left out."""
    core = world.coordinator.core
    states: defaultdict[str, int] = defaultdict(int)
    earned = jobs = count = held = 0
    for node in nodes:
        known = core.registry.nodes.get(node.key)
        states[known.row.state if known else "unseen"] += 1
        earned, jobs, count = earned + _earned(world, node), jobs + node.meter.jobs, count + 1
        unpaid = core.jobs.unpaid(node.key)
        held += sum(core.epochs.splits.divide(one.ticket.model, one.charged).node for one in unpaid)
    per_job = round(earned / jobs, 3) if jobs else 0.0
    return {
        "nodes": count,
        "states": dict(sorted(states.items())),
        "jobs": jobs,
        "earned": earned,
        "earned_per_job": per_job,
        "held": held,
    }


def _spent(world: Seen, behaviour: str) -> int:
    """What clients of that behaviour are the poorer for: bought, and not refunded."""
    balance = world.coordinator.core.ledger.balance
    keys = [client.key for client in world.clients if client.behaviour == behaviour]
    left = sum(balance("available", key) + balance("reserved", key) for key in keys)
    return GRANT * len(keys) - left


def _earned(world: Seen, node: SeenNode) -> int:
    credit = world.coordinator.core.ledger.credit
    return sum(
        credit[node.key, role].cumulative for role in ROLES.values() if (node.key, role) in credit
    )
