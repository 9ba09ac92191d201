"""`simnet compare-policies`: the same runs under three networks' rules, in one table.

Each run is told in a few figures (`Told`), which add up over the seeds (`Row`). Money is in
micro-credits a job of strangers, as it will be once what is held is released.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Final

from assay_simnet.audit_policies import SCHEMES
from assay_simnet.commands import INTERRUPTED, seeds_of
from assay_simnet.drivers.levels import open_driver
from assay_simnet.grid import base
from assay_simnet.invariants import Violated
from assay_simnet.pools import WORKERS_MAX, Here, Local, in_order
from assay_simnet.scenario import Scenario, source_of
from assay_simnet.schema import ScenarioError
from assay_simnet.seen import Driver
from assay_simnet.sweep_report import Mean

SHOWN: Final = ("patient-traitor", "sybil-swarm", "wash-trading", "sustainability")
WRONG: Final = 1
HEAD: Final = (
    *("scenario", "rules", "answers cheated on", "of them paid", "cheat's pay a job"),
    *("honest pay a job", "cheats stopped", "time to stop", "audits a job", "compute on audits"),
    *("honest nodes stopped", "owner's net, each"),
)


@dataclass(frozen=True)
class Task:
    """One run."""

    scenario: Scenario
    seed: int


@dataclass(frozen=True)
class Told:
    """What one run came to. `waits_s`: of each node that cheated, until it was stopped, if it was.

    `cheated` are the answers whose fate is decided or only waits for time, `paid` those of them
    that are paid; both leave out what was never booked.
    """

    scenario: str
    rules: str
    cheated: int
    paid: int
    cheats: int
    cheats_net: int
    cheats_jobs: int
    honest_pay: int
    honest_jobs: int
    waits_s: tuple[float | None, ...]
    jobs: int
    audits: int
    compute: float
    false_convictions: int
    violated: str = ""


@dataclass
class Row:
    """One scenario under one network's rules, over all seeds so far."""

    scenario: str
    rules: str
    told: list[Told] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """As `--json` prints them; a share is of 1, and None where there is nothing to share."""
        total = {name: sum(getattr(one, name) for one in self.told) for name in _SUMMED}
        paid, compute = Mean(), Mean()
        for one in self.told:
            compute.add(one.compute)
            if one.cheated:
                paid.add(one.paid / one.cheated)
        waits = [wait for one in self.told for wait in one.waits_s]
        return {
            "scenario": self.scenario,
            "rules": self.rules,
            "runs": len(self.told),
            "cheated": total["cheated"],
            "paid_share": round(paid.mean, 4) if paid.count else None,
            "paid_share_half": round(paid.half, 4) if paid.count else None,
            "cheat_pay": _ratio(total["cheats_net"], total["cheats_jobs"]),
            "honest_pay": _ratio(total["honest_pay"], total["honest_jobs"]),
            "stopped": sum(wait is not None for wait in waits),
            "cheated_ever": len(waits),
            "stop_s": _median(waits),
            "audits_a_job": _ratio(total["audits"], total["jobs"], 4),
            "compute_share": round(compute.mean, 4),
            "false_convictions": total["false_convictions"],
            "net_a_cheat": _ratio(total["cheats_net"], total["cheats"], 0),
        }


_SUMMED: Final = (
    *("cheated", "cheats", "cheats_net", "cheats_jobs", "honest_pay", "honest_jobs"),
    *("jobs", "audits", "false_convictions"),
)


def add_comparison(verbs: Any) -> None:
    """The verb, with `act` set to what it does."""
    text = "scenarios under our rules of verification, BOINC's and Gonka's"
    study = verbs.add_parser("compare-policies", help=text, description=text)
    study.add_argument("scenarios", nargs="*", help=f"if left out: {' '.join(SHOWN)}")
    study.add_argument("--seeds", default="0..9", help="FIRST..LAST, or one number")
    study.add_argument(
        "--workers", type=int, default=1, help="processes; results do not depend on it"
    )
    study.add_argument("--json", action="store_true", help="every figure, in place of the table")
    study.set_defaults(act=_act)


def told(task: Task) -> Told:
    """Runs it. Its world is let go at once."""
    world = open_driver(task.scenario, task.seed)
    violated = ""
    try:
        world.run()
    except Violated as error:
        violated = str(error)
    known = _of(world, task.scenario, violated)
    del world
    gc.collect()  # a world is full of cycles
    return known


def _act(args: argparse.Namespace) -> int:
    if not 1 <= args.workers <= WORKERS_MAX:
        raise ScenarioError(f"--workers {args.workers}: from 1 to {WORKERS_MAX:,}")
    scenarios = [base(source_of(name)) for name in args.scenarios or SHOWN]
    tasks = [
        Task(replace(scenario, audits=rules), seed)
        for scenario in scenarios
        for rules in SCHEMES
        for seed in seeds_of(args.seeds)
    ]
    pool = Here(told) if args.workers == 1 else Local(told, args.workers)
    rows: dict[tuple[str, str], Row] = {}
    try:
        for one in _shown(in_order(pool, tasks, args.workers), len(tasks)):
            if one.violated:
                again = f"{one.scenario} under the rules of {one.rules}"
                sys.stderr.write(f"simnet: {again}: {one.violated}\n")
                return WRONG
            key = one.scenario, one.rules
            rows.setdefault(key, Row(*key)).told.append(one)
    except KeyboardInterrupt:
        done = sum(len(row.told) for row in rows.values())
        sys.stderr.write(f"\nstopped after {done} of {len(tasks)} runs; a part is no table\n")
        return INTERRUPTED
    finally:
        pool.stop()
    figures = [row.figures() for row in rows.values()]
    sys.stdout.write(json.dumps(figures, indent=1) + "\n" if args.json else markdown(figures))
    return 0


def _shown(results: Iterator[Told], whole: int) -> Iterator[Told]:
    """The same, with a line on a terminal now and then."""
    for done, one in enumerate(results, 1):
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done}/{whole} runs ")
            sys.stderr.flush()
        yield one


def markdown(figures: list[dict[str, Any]]) -> str:
    """The table, as the documentation quotes it."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(_cells(one) for one in figures)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    paid = "–"
    if one["paid_share"] is not None:
        paid = f"{100 * one['paid_share']:.1f} ± {100 * one['paid_share_half']:.1f} %"
    when = "never" if one["stop_s"] is None else f"{one['stop_s']:,.0f} s"
    return (
        one["scenario"],
        one["rules"],
        f"{one['cheated']:,}",
        paid,
        "–" if one["cheat_pay"] is None else f"{one['cheat_pay']:.1f}",
        f"{one['honest_pay']:.1f}",
        f"{one['stopped']} of {one['cheated_ever']}",
        when if one["cheated_ever"] else "–",
        f"{one['audits_a_job']:.3f}",
        f"{100 * one['compute_share']:.2f} %",
        str(one["false_convictions"]),
        f"{one['net_a_cheat']:,.0f}",
    )


# ---- inside ------------------------------------------------------------------------------------


def _of(world: Driver, scenario: Scenario, violated: str) -> Told:
    """A level that follows no single job or node has no escrow, no owners who buy, and leaves
    those figures out of its summary."""
    figures = world.summary()
    groups, honest = list(figures["adversaries"].values()), figures["honest"]
    frauds = figures["frauds"]
    known = sum(one["cheated"] for one in groups) - frauds.get("expired", 0)
    return Told(
        scenario=scenario.name,
        rules=scenario.audits,
        cheated=known,
        paid=known - frauds.get("refunded", 0),  # released, or held and not drawn any more
        cheats=sum(one["nodes"] for one in groups),
        cheats_net=sum(one.get("net", one["earned"]) for one in groups),
        cheats_jobs=sum(one["jobs"] - one.get("own_jobs", 0) for one in groups),
        honest_pay=honest["earned"] + honest.get("held", 0),
        honest_jobs=honest["jobs"],
        waits_s=tuple(_waits(world) if world.nodes else _waits_told(groups)),
        jobs=figures["jobs"]["begun"],
        audits=figures["verification"]["audits"],
        compute=figures["verification"]["compute_share"],
        false_convictions=figures.get("false_convictions", 0),
        violated=violated,
    )


def _waits(world: Driver) -> Iterator[float | None]:
    for node in world.nodes:
        first = node.meter.first_cheat_us
        if first:
            stopped = world.record.stopped_us.get(node.key.hex())
            yield None if stopped is None else (stopped - first) / 1e6


def _waits_told(groups: list[dict[str, Any]]) -> Iterator[float | None]:
    """Where single nodes are not known: of each group, the median for all who were stopped."""
    for one in groups:
        yield from [one["detection_s"].get("p50")] * one["stopped"]
        yield from [None] * (one["nodes"] - one["stopped"])


def _median(waits: list[float | None]) -> float | None:
    """Of all who cheated; None where half of them were never stopped."""
    if not waits:
        return None
    middle = median(math.inf if wait is None else wait for wait in waits)
    return None if math.isinf(middle) else round(middle, 3)


def _ratio(part: float, whole: float, digits: int = 2) -> float | None:
    return round(part / whole, digits) if whole else None
