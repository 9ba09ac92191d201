"""The page of one run: how long people waited, what cheats got, what it cost to find them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from assay_simnet.charts import Axes, Line, bars, distribution, lines, lorenz
from assay_simnet.page import charts, page, section, table
from assay_simnet.results import flat, read_json, table_rows
from assay_simnet.schema import ScenarioError
from assay_simnet.setting import START

BINS: Final = 40  # of time
HONEST: Final = "honest"
_ABOUT: Final = ("status", "seed", "commit", "trace_digest", "scenario_digest", "python")
_SAID: Final = ("evidence", "rates", "cpu_s", "events_per_cpu_s")


@dataclass
class _Jobs:
    """Of honest clients, in seconds, one entry a delivered answer; counts by bin of time."""

    ttft: list[float] = field(default_factory=list)
    tpot: list[float] = field(default_factory=list)
    e2e: list[float] = field(default_factory=list)
    begun: list[int] = field(default_factory=lambda: [0] * BINS)
    good: list[int] = field(default_factory=lambda: [0] * BINS)


@dataclass
class _Group:
    """Nodes of one behaviour, or of one profile."""

    nodes: int = 0
    jobs: int = 0
    earned: int = 0
    served_s: float = 0.0
    replayed_s: float = 0.0
    cheated: int = 0
    at_large: int = 0  # cheated answers of nodes that were never stopped
    waits: list[float] = field(default_factory=list)  # from the first cheat until stopped, seconds


def run_page(folder: Path, manifest: dict[str, Any]) -> str:
    """Raises ScenarioError where the run's files are missing or cut short."""
    figures = read_json(folder / "summary.json")
    given = manifest.get("parameters")
    if not isinstance(given, dict) or figures.get("latency") is None:
        raise ScenarioError(f"{folder}: no run that this version of simnet can show")
    jobs = _jobs(folder, given)
    by_behaviour, by_profile, earned = _nodes(folder)
    about = [(name, manifest.get(name)) for name in (*_ABOUT, *_SAID)]
    rows = list(flat(figures))
    parts = [
        table(("this run", ""), about),
        section("Latency of honest clients' answers", charts(_latencies(jobs, given))),
        section("Load", charts(_load(jobs, by_profile, given))),
        section("Fraud", charts(_fraud(by_behaviour, figures))),
        section("Money", charts(_money(by_behaviour, earned, figures))),
        section("Every figure (summary.json)", table(("figure", "value"), rows)),
    ]
    title = f"{manifest.get('scenario')}, seed {manifest.get('seed')}"
    return page(title, str(manifest.get("question", "")), parts)


# ---- the tables --------------------------------------------------------------------------------


def _jobs(folder: Path, given: dict[str, Any]) -> _Jobs:
    found = _Jobs()
    opens = START + int(given["warm_up"])
    width = max(1, int(given["duration"])) / BINS
    for row in table_rows(folder, "jobs"):
        begun, first, ended = (int(row[key]) for key in ("begun_us", "first_us", "ended_us"))
        place = min(BINS - 1, max(0, int((begun - opens) / width)))
        found.begun[place] += 1
        if row["behaviour"] or row["finish"] not in ("stop", "length"):
            continue
        ttft, e2e = first - begun, ended - begun
        tpot = (ended - first) / max(1, int(row["tokens"]) - 1)
        found.ttft.append(ttft / 1e6)
        found.tpot.append(tpot / 1e6)
        found.e2e.append(e2e / 1e6)
        found.good[place] += ttft <= given["slo_ttft"] and tpot <= given["slo_tpot"]
    return found


def _nodes(folder: Path) -> tuple[dict[str, _Group], dict[str, _Group], list[int]]:
    """By behaviour, honest ones first; by profile; what each node earned."""
    behaviours: defaultdict[str, _Group] = defaultdict(_Group, {HONEST: _Group()})
    profiles: defaultdict[str, _Group] = defaultdict(_Group)
    earned: list[int] = []
    for row in table_rows(folder, "nodes"):
        earned.append(int(row["earned"]))
        first, stopped = int(row["first_cheat_us"]), int(row["stopped_us"])
        for group in (behaviours[row["behaviour"] or HONEST], profiles[row["profile"]]):
            group.nodes += 1
            group.jobs += int(row["jobs"])
            group.earned += int(row["earned"])
            group.served_s += float(row["served_s"])
            group.replayed_s += float(row["replayed_s"])
            group.cheated += int(row["cheated"])
            group.at_large += 0 if stopped else int(row["cheated"])
            if first and stopped:
                group.waits.append((stopped - first) / 1e6)
    return dict(behaviours), dict(profiles), earned


# ---- the charts --------------------------------------------------------------------------------


def _latencies(jobs: _Jobs, given: dict[str, Any]) -> Iterator[str]:
    named = (
        ("TTFT: until the first token", jobs.ttft, given["slo_ttft"]),
        ("TPOT: each further token, mean of an answer", jobs.tpot, given["slo_tpot"]),
        ("E2E: until the last token", jobs.e2e, None),
    )
    for title, values, limit in named:
        marks = {"SLO": limit / 1e6} if limit is not None else {}
        axes = Axes(title, "seconds", "share of answers")
        yield lines(axes, {"": distribution(values)} if values else {}, marks)


def _load(jobs: _Jobs, profiles: dict[str, _Group], given: dict[str, Any]) -> Iterator[str]:
    seconds = given["duration"] / 1e6
    width = seconds / BINS or 1.0
    places = [(number + 0.5) * width for number in range(BINS)]
    series = {
        "jobs begun": Line([(x, n / width) for x, n in zip(places, jobs.begun, strict=True)]),
        "goodput: within the SLO, by when they began": Line(
            [(x, n / width) for x, n in zip(places, jobs.good, strict=True)]
        ),
    }
    yield lines(Axes("Goodput", "seconds since the warm-up", "jobs per second"), series)
    busy = {
        name: (group.served_s + group.replayed_s)
        / (group.nodes * given["profiles"][name]["slots"] * seconds)
        for name, group in sorted(profiles.items())
        if seconds
    }
    yield bars(Axes("Utilisation by profile", "", "busy share of slots"), busy)


def _fraud(groups: dict[str, _Group], figures: dict[str, Any]) -> Iterator[str]:
    share = figures.get("undetected_fraud")
    title = "Undetected fraud" + (f": {share:.2%} was paid" if share is not None else "")
    names = {"released": "paid", "refunded": "refunded", "expired": "expired"}
    counts = {names.get(state, state): n for state, n in figures["frauds"].items()}
    yield bars(Axes(title, "", "answers cheated on"), counts)
    cheats = {name: group for name, group in groups.items() if group.cheated}
    large = {name: group.at_large / group.cheated for name, group in sorted(cheats.items())}
    axes = Axes("Of nodes never stopped", "", "share of answers cheated on")
    yield bars(axes, large)
    found = {
        name: distribution(group.waits) for name, group in sorted(cheats.items()) if group.waits
    }
    axes = Axes("Time to detect", "seconds from the first cheat", "share of those stopped")
    yield lines(axes, found)
    honest = figures["honest"]["states"]
    title = f"Honest nodes at the end; {figures['false_convictions']} false convictions"
    yield bars(Axes(title, "", "nodes"), honest)


def _money(groups: dict[str, _Group], earned: list[int], figures: dict[str, Any]) -> Iterator[str]:
    per_job = {name: group.earned / group.jobs for name, group in groups.items() if group.jobs}
    yield bars(Axes("Profit by behaviour", "", "micro-credits a job"), per_job)
    busy = {name: group.served_s + group.replayed_s for name, group in groups.items()}
    per_second = {name: groups[name].earned / spent for name, spent in busy.items() if spent}
    axes = Axes(
        "Profit for compute, by behaviour", "of those that computed", "micro-credits a busy second"
    )
    yield bars(axes, per_second)
    title = f"Credit: Gini {figures['credit_gini']}"
    equal = Line([(0.0, 0.0), (1.0, 1.0)])
    axes = Axes(title, "share of nodes, poorest first", "share of what nodes earned")
    yield lines(axes, {"nodes": lorenz(earned), "all alike": equal})
    cost = figures["verification"]["compute_share"]
    served = sum(group.served_s for group in groups.values())
    replayed = sum(group.replayed_s for group in groups.values())
    if cost is None:  # of processes, whose time for both is one figure
        yield bars(Axes("Processor time", "", "seconds"), {"serving and replaying": served})
    else:
        axes = Axes(f"Cost of verification: {cost:.2%} of serving", "", "busy seconds")
        yield bars(axes, {"serving": served, "replaying": replayed})
    got = {"nodes": float(sum(earned)), "treasury": float(figures["treasury"])}
    yield bars(Axes("Treasury beside what nodes earned", "", "micro-credits"), got)
