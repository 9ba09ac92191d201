"""A run of epochs in figures and tables. Money is micro-credits, shares are of 1, times seconds.

epochs   a line for each: demand, jobs, price, who is there, audits, frauds, money
groups   a line for each behaviour and profile: how many, what they earned, their profit
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from assay_protocol.splits import Splits
from assay_simnet.economy import Economy
from assay_simnet.epochs.asks import MODEL
from assay_simnet.epochs.chances import Chances, Wholes
from assay_simnet.epochs.cheating import Day, Flags, Gang
from assay_simnet.epochs.owners import Owners
from assay_simnet.epochs.purses import Purses, exact_sum
from assay_simnet.epochs.votes import capture
from assay_simnet.record import Table, percentiles
from assay_simnet.scenario import Scenario
from assay_simnet.setting import START

UNMET: Final = 0.001  # of an epoch's demand: from so much on it counts as unmet
LAST: Final = 10  # what "at the end" means: the last tenth of all epochs
HONEST: Final = ""
_QUANTILES: Final = (10, 50, 90)
GROUP_COLUMNS: Final = (
    *("behaviour", "profile", "nodes", "active", "jobs", "earned", "granted", "profit"),
    *(f"profit_p{p}" for p in _QUANTILES),
)


class Ran(Protocol):
    """What is read of a run. Arrays have a place for each node."""

    scenario: Scenario
    phase: str
    economy: Economy
    done: int
    profiles: tuple[str, ...]
    profile: np.typing.NDArray[np.int8]
    gangs: list[Gang]
    gang_of: np.typing.NDArray[np.int8]
    owners: Owners
    purses: Purses
    records: Wholes
    jobs_of: Wholes
    on: Flags
    was_on: Flags
    barred: Flags
    span_began: Wholes | None
    chances: Chances
    outcome: Outcome

    @property
    def span_us(self) -> int: ...  # whose earnings vote
    @property
    def now(self) -> int: ...
    @property
    def events(self) -> int: ...
    def prices(self) -> tuple[int, Splits]: ...


@dataclass
class Line:
    """One epoch."""

    epoch: int
    at_us: int
    demand: int  # jobs wanted
    jobs: int
    lost: float  # share of demand that nobody had room for
    price: int  # of the mean job
    active: int = 0
    entered: int = 0
    left: int = 0
    utilisation: float = 0.0
    audits: int = 0
    cheated: int = 0  # answers so far, as are the next two
    fraud_paid: int = 0
    fraud_refunded: int = 0
    convicted: int = 0
    paid: int = 0  # to nodes, for jobs
    audit_pay: int = 0
    subsidy: int = 0
    costs: int = 0  # of all owners
    profit: int = 0
    treasury: int = 0
    busy_s: float = 0.0  # slot-seconds, with replays
    replayed_s: float = 0.0
    root: str = ""
    by_profile: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, run: Ran, day: Day, price: int, wanted: float, lost: float) -> Line:
        """What is known once money has moved."""
        gangs = run.gangs
        return cls(
            epoch=day.number,
            at_us=(day.number + 1) * run.economy.epoch,
            demand=round(wanted),
            jobs=exact_sum(day.jobs),
            lost=round(lost, 6),
            price=price,
            audits=exact_sum(day.audits),
            cheated=sum(gang.cheated for gang in gangs),
            fraud_paid=sum(gang.paid for gang in gangs),
            fraud_refunded=sum(gang.refunded for gang in gangs),
            costs=run.owners.cost,
            treasury=run.purses.treasury,
        )


@dataclass
class Outcome:
    """All lines so far."""

    lines: list[Line] = field(default_factory=list)

    def add(self, line: Line) -> None:
        self.lines.append(line)


def summary(run: Ran) -> dict[str, Any]:
    """All figures of a run that is over, or was stopped."""
    lines, seconds = run.outcome.lines, max(1e-9, run.done * run.economy.epoch / 1e6)
    jobs = sum(line.jobs for line in lines)
    served = sum(line.busy_s - line.replayed_s for line in lines)
    replayed = sum(line.replayed_s for line in lines)
    audits = sum(line.audits for line in lines)
    return {
        "phase": run.phase,
        "virtual_s": round((run.now - START) / 1e6, 3),
        "events": run.events,
        "jobs": {"begun": jobs, "ended": jobs, "per_s": round(jobs / seconds, 3)},
        "utilisation": _mean([line.utilisation for line in lines]),
        "verification": {
            "audits": audits,
            "per_job": round(audits / jobs, 4) if jobs else 0.0,
            "compute_share": round(replayed / served, 4) if served else 0.0,
        },
        "adversaries": _adversaries(run),
        "honest": _standing(run, run.gang_of < 0),
        "frauds": _frauds(run),
        "undetected_fraud": _undetected(run),
        "credit_gini": gini(run.purses.earned),
        "treasury": run.purses.treasury,
        "epochs": len(lines),
        "economy": _economy(run, lines),
        "governance": _governance(run),
    }


def write_tables(run: Ran, folder: Path) -> None:
    """A line for each epoch, and for each group."""
    plain = [item.name for item in fields(Line) if item.name != "by_profile"]
    columns = [*plain, *(f"active.{name}" for name in run.profiles)]
    epochs = Table(folder, "epochs", columns)
    for line in run.outcome.lines:
        epochs.add([*(getattr(line, name) for name in plain), *line.by_profile])
    groups = Table(folder, "groups", GROUP_COLUMNS)
    for behaviour, of_behaviour in _groups(run):
        for place, profile in enumerate(run.profiles):
            who = np.flatnonzero(of_behaviour & (run.profile == place))
            if len(who):
                groups.add(_group_row(run, behaviour, profile, who))
    for table in (epochs, groups):
        table.close()


def gini(values: Wholes) -> float:
    """0: all have the same; towards 1: one has all."""
    ordered = np.sort(values).astype(np.float64)
    count, total = len(ordered), float(ordered.sum())
    if not total:
        return 0.0
    ranked = float(((2 * np.arange(count) - count + 1) * ordered).sum())
    return round(ranked / (count * total), 4)


# ---- inside ------------------------------------------------------------------------------------


def _economy(run: Ran, lines: list[Line]) -> dict[str, Any]:
    if not lines:
        return {}
    last = lines[-max(1, len(lines) // LAST) :]
    paid = sum(line.paid + line.audit_pay for line in lines)
    subsidy = sum(line.subsidy for line in lines)
    prices = [line.price for line in lines]
    demand = sum(line.demand for line in last)
    served = sum(line.jobs for line in last)
    fees = run.purses.treasury + sum(line.audit_pay for line in lines)
    return {
        "price": {
            "first": prices[0],
            "last": prices[-1],
            "least": min(prices),
            "most": max(prices),
        },
        "active": {
            "first": lines[0].active,
            "last": int(run.on.sum()),
            "least": min(line.active for line in lines),
            "most": max(line.active for line in lines),
        },
        "active_by_profile": dict(zip(run.profiles, lines[-1].by_profile, strict=True)),
        "entered": sum(line.entered for line in lines),
        "left": sum(line.left for line in lines),
        "clients_paid": run.purses.paid_by_clients,
        "nodes_earned": paid,
        "costs": sum(line.costs for line in lines),
        "subsidy": subsidy,
        "subsidy_share": round(subsidy / (paid + subsidy), 4) if paid + subsidy else 0.0,
        "audits_share_of_fees": round(sum(line.audit_pay for line in lines) / fees, 4)
        if fees
        else 0.0,
        "unmet_epochs": round(sum(line.lost > UNMET for line in lines) / len(lines), 4),
        "met_at_end": round(min(1.0, served / demand), 4) if demand else 1.0,
        "margin_at_end": _margin(last),
        "profit": {name or "honest": _quantiles(run, who) for name, who in _groups(run)},
        "profit_by_profile": {
            name: _quantiles(run, (run.profile == place) & (run.jobs_of > 0))
            for place, name in enumerate(run.profiles)
        },
    }


def _margin(lines: list[Line]) -> float | None:
    """Owners' profit as a share of their costs; None where nobody was left."""
    costs = sum(line.costs for line in lines)
    return round(sum(line.profit for line in lines) / costs, 4) if costs else None


def _governance(run: Ran) -> dict[str, Any]:
    if run.span_began is None or not run.scenario.governance.trials:
        return {}
    price, rules = run.prices()
    fee = 1 - rules.divide(MODEL, price).node / price
    # the span may end within one of our epochs: what was earned in it is a part of theirs
    whole = -(-run.span_us // run.economy.epoch) * run.economy.epoch
    earned = (run.purses.earned - run.span_began) * min(1.0, run.span_us / whole)
    weights = np.rint(earned).astype(np.int64)
    chance = run.chances.of("votes")
    return capture(run.scenario.governance, weights, fee, chance)


def _groups(run: Ran) -> list[tuple[str, Flags]]:
    """Honest ones, then each behaviour once."""
    names = list(dict.fromkeys(gang.given.behaviour for gang in run.gangs))
    found = [(HONEST, run.gang_of < 0)]
    for name in names:
        these = [n for n, gang in enumerate(run.gangs) if gang.given.behaviour == name]
        found.append((name, np.isin(run.gang_of, these)))
    return found


def _quantiles(run: Ran, who: Flags) -> dict[str, int]:
    """Of the whole run's profit, of those who were ever there, by nearest rank."""
    profits = np.sort(run.owners.profit[who & run.was_on])
    if not len(profits):
        return {}
    last = len(profits) - 1
    found = {f"p{p}": int(profits[min(last, len(profits) * p // 100)]) for p in _QUANTILES}
    return {**found, "mean": exact_sum(profits) // len(profits)}


def _group_row(run: Ran, behaviour: str, profile: str, who: Wholes) -> list[Any]:
    profits = np.sort(run.owners.profit[who])
    last = len(profits) - 1
    return [
        behaviour,
        profile,
        len(who),
        int(run.on[who].sum()),
        exact_sum(run.jobs_of[who]),
        exact_sum(run.purses.earned[who]),
        exact_sum(run.purses.granted[who]),
        exact_sum(profits),
        *(int(profits[min(last, len(profits) * p // 100)]) for p in _QUANTILES),
    ]


def _standing(run: Ran, who: Flags) -> dict[str, Any]:
    jobs, earned = exact_sum(run.jobs_of[who]), exact_sum(run.purses.earned[who])
    proven = run.records >= run.scenario.policy.probation_audits
    states = {
        "active": who & run.on & proven,
        "probation": who & run.on & ~proven,
        "convicted": who & run.barred,
        "away": who & ~run.on & ~run.barred,
    }
    return {
        "nodes": int(who.sum()),
        "states": {name: int(some.sum()) for name, some in states.items() if some.any()},
        "jobs": jobs,
        "earned": earned,
        "earned_per_job": round(earned / jobs, 3) if jobs else 0.0,
        "held": exact_sum(run.purses.held[who]),
    }


def _adversaries(run: Ran) -> dict[str, Any]:
    found = {}
    for name, who in _groups(run)[1:]:
        gangs = [gang for gang in run.gangs if gang.given.behaviour == name]
        waits = np.concatenate([gang.stopped - gang.first for gang in gangs])
        seconds = np.maximum(0.0, waits[~np.isnan(waits)]) * run.economy.epoch / 1e6
        found[name] = {
            **_standing(run, who),
            "cheated": sum(gang.cheated for gang in gangs),
            "stopped": sum(int((~np.isnan(gang.stopped)).sum()) for gang in gangs),
            "detection_s": percentiles(seconds.tolist()),
        }
    return dict(sorted(found.items()))


def _frauds(run: Ran) -> dict[str, int]:
    """Cheated answers by what became of them; of behaviours that harm those who asked."""
    gangs = [gang for gang in run.gangs if gang.cheat.harms]
    paid, back = sum(gang.paid for gang in gangs), sum(gang.refunded for gang in gangs)
    return {name: many for name, many in (("refunded", back), ("released", paid)) if many}


def _undetected(run: Ran) -> float | None:
    frauds = _frauds(run)
    decided = sum(frauds.values())
    return round(frauds.get("released", 0) / decided, 4) if decided else None


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0
