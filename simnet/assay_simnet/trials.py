"""One adversary among honest nodes: when it is stopped, and what it gained until then.

Every figure is in jobs or in prices of a job. `profit` compares it with an honest node that did the
same jobs: what it saved on those it cheated on, less the pay it lost. Computing honestly is taken
to cost COST of the price. What a stopped node could have earned afterwards is not counted, which is
to its favour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import JobRow
from assay_simnet.behaviours.behaviour import Behaviour
from assay_simnet.behaviours.honest import Honest
from assay_simnet.parties.client import ClientParty
from assay_simnet.parties.node import NodeParty
from assay_simnet.setting import POLICY
from assay_simnet.workload import Workload
from assay_simnet.world import World

COST: Final = 0.6  # of a job's price (docs/verification.md 4)
EXPERIENCED: Final = 250  # audits that the honest auditors have passed
SERVING: Final = ("probation", "active")
PAUSE_SECONDS_MAX: Final = 3_600.0  # of an inquiry and a suspension, under POLICY
SEEDS: Final = (1, 2, 3)
Friends = Callable[[Behaviour], list[Behaviour]]


@dataclass(frozen=True)
class Trial:
    """The setting. `verified`: audits the adversary passed before. `friends`: behaviours of nodes
    that help it, given its own."""

    behaviour: Callable[[], Behaviour]
    verified: int = 0
    jobs_max: int = 40
    class_id: str = "scripted/F"
    auditors: int = 4
    auditor_class: str = "scripted/F"
    workload: Workload = field(default_factory=Workload)
    policy: Policy = POLICY
    friends: Friends | None = None
    seeds: tuple[int, ...] = SEEDS


@dataclass(frozen=True)
class Seen:
    """What one run showed. `jobs`: of its own that were booked before it was stopped, or in all."""

    jobs: int
    stopped: bool
    state: str
    cheated: int
    paid: int  # of those it cheated on
    profit: float


@dataclass(frozen=True)
class Result:
    """What all seeds showed."""

    runs: tuple[Seen, ...]

    @property
    def stopped(self) -> int:
        """In how many runs it was."""
        return sum(run.stopped for run in self.runs)

    @property
    def jobs(self) -> float:
        """The median of jobs until it was stopped."""
        return median(run.jobs for run in self.runs)

    @property
    def profit(self) -> float:
        """The mean, in prices of a job."""
        return sum(run.profit for run in self.runs) / len(self.runs)

    @property
    def states(self) -> str:
        """How it ended, without repetition."""
        return ", ".join(sorted({run.state for run in self.runs}))


def try_executor(trial: Trial) -> Result:
    """Let clients ask the adversary until it is stopped or `jobs_max` jobs are done."""
    return Result(tuple(_run(trial, seed) for seed in trial.seeds))


def network(trial: Trial, seed: int) -> tuple[World, ClientParty]:
    """The honest part: experienced auditors and a client."""
    world = World(seed, trial.policy)
    for _ in range(trial.auditors):
        world.add_node(Honest(), verified=EXPERIENCED, class_id=trial.auditor_class)
    client = world.add_client()
    return world, client


def measure(
    world: World,
    suspect: NodeParty,
    saves: float,
    stopped_at: int | None = None,
    client: bytes | None = None,
) -> Seen:
    """What the adversary's jobs came to so far, or those of one client; `stopped_at`: how many it
    had when stopped."""
    rows = world.coordinator.jobs_of(suspect.key)
    rows = [row for row in rows if client in (None, row.client)]
    state = world.coordinator.standing(suspect.key).state
    bad = [row for row in rows if row.ticket in suspect.cheated]
    return Seen(
        jobs=len(rows) if stopped_at is None else stopped_at,
        stopped=stopped_at is not None or state not in SERVING,
        state=state,
        cheated=len(suspect.cheated),
        paid=sum(row.state in ("held", "pending", "released") for row in bad),
        profit=_profit(world, suspect, rows, saves),
    )


def serves(world: World, node: NodeParty) -> bool:
    """Whether it may get jobs."""
    return world.coordinator.standing(node.key).state in SERVING


def serves_again(world: World, node: NodeParty) -> bool:
    """Let an inquiry and a suspension pass; False if it is convicted, or stays away."""
    coordinator, convicted = world.coordinator, "convicted"
    done = (*SERVING, convicted)
    world.run(lambda: coordinator.standing(node.key).state in done, PAUSE_SECONDS_MAX)
    return serves(world, node)


def _run(trial: Trial, seed: int) -> Seen:
    world, client = network(trial, seed)
    behaviour = trial.behaviour()
    suspect = world.add_node(behaviour, verified=trial.verified, class_id=trial.class_id)
    for friend in trial.friends(behaviour) if trial.friends else ():
        world.add_node(friend, verified=EXPERIENCED, class_id=trial.auditor_class)
    world.idle(1)
    stopped_at: int | None = None
    for _ in range(trial.jobs_max):
        if not serves(world, suspect):
            if stopped_at is None:
                stopped_at = len(world.coordinator.jobs_of(suspect.key))
            if not serves_again(world, suspect):
                break
        trial.workload.ask(world, client, only=(suspect.key,))
    world.settle()
    world.coordinator.core.ledger.check()
    return measure(world, suspect, behaviour.saves, stopped_at)


def _profit(world: World, suspect: NodeParty, rows: list[JobRow], saves: float) -> float:
    """Saved less lost, in mean prices; a job that was never booked was never paid."""
    if not suspect.jobs:
        return 0.0
    prices = [row.charged or row.reserved for row in rows]
    price = sum(prices) / len(prices) if prices else 1.0
    fee = world.coordinator.policy.fee_bps / 10_000
    lost = sum(row.charged for row in rows if row.state == "refunded") * (1 - fee) / price
    unbooked = suspect.jobs - len(world.coordinator.jobs_of(suspect.key))
    return COST * saves * len(suspect.cheated) - lost - (1 - fee) * unbooked
