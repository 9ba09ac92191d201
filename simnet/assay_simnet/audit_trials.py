"""One adversary among honest auditors: how many audits it takes to see it, and what it was paid.

Honest nodes in probation serve, so every job is audited; the adversary is drawn for its share.
"""

from __future__ import annotations

from typing import Final

from assay_coordinator.core.records import LineRow
from assay_simnet.behaviours.honest import Honest
from assay_simnet.parties.node import NodeParty
from assay_simnet.trials import EXPERIENCED, SERVING, Result, Seen, Trial, network
from assay_simnet.world import World

AUDIT_COST: Final = 0.3  # of the job's price
JOBS_PER_EXECUTOR: Final = 12  # fewer than probation takes: all are audited


def try_auditor(trial: Trial) -> Result:
    """`Seen.jobs` counts the audits it was given until it was faulted, or all; `Seen.paid` those it
    was paid for. `jobs_max` is of all executors together."""
    return Result(tuple(_run(trial, seed) for seed in trial.seeds))


def _run(trial: Trial, seed: int) -> Seen:
    world, client = network(trial, seed)
    behaviour = trial.behaviour()
    suspect = world.add_node(behaviour, verified=EXPERIENCED, class_id=trial.auditor_class)
    executors: list[NodeParty] = []
    faulted_at: int | None = None
    for number in range(trial.jobs_max):
        if number % JOBS_PER_EXECUTOR == 0:
            executors.append(world.add_node(Honest(), class_id=trial.class_id))
            world.idle(1)
        trial.workload.ask(world, client, only=(executors[-1].key,))
        if faulted_at is None and world.coordinator.standing(suspect.key).audit_faults:
            faulted_at = suspect.audits
    world.settle()
    world.coordinator.core.ledger.check()
    for executor in executors:
        state = world.coordinator.standing(executor.key).state
        assert state in SERVING, f"an honest node is {state}"
    return _seen(world, suspect, faulted_at, behaviour.saves)


def _seen(world: World, suspect: NodeParty, faulted_at: int | None, saves: float) -> Seen:
    lines = world.coordinator.rows(LineRow)
    paid = sum(line.account == suspect.key and line.kind == "audit" for line in lines)
    row = world.coordinator.standing(suspect.key)
    pay = world.coordinator.policy.audit_pay_bps / 10_000
    return Seen(
        jobs=suspect.audits if faulted_at is None else faulted_at,
        stopped=row.audit_faults > 0,
        state=row.state,
        cheated=suspect.audits,
        paid=paid,
        profit=pay * (paid - suspect.audits) + AUDIT_COST * saves * suspect.audits,
    )
