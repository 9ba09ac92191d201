"""A coordinator that spares a friend, and somebody who draws again.

Whoever rechecks has the chain, the published documents of all rounds, and no other word of the
coordinator's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from assay_contracts.credit.rounds import RoundChecks
from assay_coordinator.adapters.draws import document_of
from assay_coordinator.core.records import JobRow, RoundRow
from assay_protocol.messages import RoundDraws
from assay_simnet.behaviours.coordinators import CoordinatorBias
from assay_simnet.behaviours.honest import Honest
from assay_simnet.setting import POLICY
from assay_simnet.trials import SEEDS, Result, Seen
from assay_simnet.workload import Workload
from assay_simnet.world import World

JOBS: Final = 40
# A short probation, so that a node comes into the lottery within few jobs.
LOTTERY: Final = replace(POLICY, probation_audits=4, audit_bps_min=2_000)
SHORT: Final = Workload(max_tokens=16, own_tokens=8, system=())


def try_bias(biased: bool = True) -> Result:
    """`Seen.stopped`: a recheck of all rounds failed; `Seen.jobs`: the friend's, in all of them."""
    return Result(tuple(_run(biased, seed) for seed in SEEDS))


def _run(biased: bool, seed: int) -> Seen:
    world = World(seed, LOTTERY)
    for _ in range(3):
        world.add_node(Honest(), verified=400)
    friend, client = world.add_node(Honest()), world.add_client()
    if biased:
        CoordinatorBias(friend.key).plug_into(world.coordinator.core)
    world.idle(1)
    for _ in range(JOBS):
        SHORT.ask(world, client, only=(friend.key,))
    world.settle()
    caught = not _holds(world)
    spared = sum(row.state in ("held", "released") and not row.drawn_at for row in _jobs(world))
    return Seen(
        jobs=JOBS,
        stopped=caught,
        state="caught" if caught else "holds",
        cheated=spared,
        paid=spared,
        profit=0.0,
    )


def _holds(world: World) -> bool:
    """What anybody finds who draws all rounds again."""
    checks = RoundChecks(world.coordinator.chain, world.now)
    rounds = sorted(world.coordinator.rows(RoundRow), key=lambda row: row.number)
    drawn = [row for row in rounds if row.state == "drawn"]
    assert drawn, "no round was drawn"
    return all(checks.check(_document(world, row)).ok for row in drawn)


def _document(world: World, row: RoundRow) -> RoundDraws:
    """What the coordinator publishes of a round."""
    return document_of(row, [job for job in _jobs(world) if job.round == row.number])


def _jobs(world: World) -> list[JobRow]:
    return [row for row in world.coordinator.rows(JobRow) if row.receipt_blob]
