"""The page of a sweep: every metric over every swept key.

A line is the mean over all runs with those values, its band the 95 % interval of that mean
(Student's). Rows are read one by one: memory grows with the points of the grid, not with the runs.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from math import sqrt
from pathlib import Path
from typing import Any, Final

from assay_simnet.charts import Axes, Line, bars, brief, lines
from assay_simnet.page import charts, page, section, table
from assay_simnet.quantities import QuantityError, rate_per_s, share, size_bytes, time_us
from assay_simnet.schema import ScenarioError

METRICS: Final = {
    "latency.ttft_s.p50": "TTFT p50, s",
    "latency.ttft_s.p95": "TTFT p95, s",
    "latency.tpot_s.p50": "TPOT p50, s",
    "latency.e2e_s.p95": "E2E p95, s",
    "latency.goodput_jobs_per_s": "Goodput, jobs per s",
    "utilisation": "Utilisation",
    "undetected_fraud": "Undetected fraud: share paid",
    "false_convictions": "False convictions",
    "verification.compute_share": "Cost of verification, share of serving",
    "honest.earned_per_job": "Honest nodes' micro-credits a job",
    "credit_gini": "Gini of credit",
    "treasury": "Treasury, micro-credits",
    # of level "epochs"
    "verification.per_job": "Audits a job",
    "economy.price.last": "Price of a job at the end, micro-credits",
    "economy.active.last": "Active nodes at the end",
    "economy.met_at_end": "Demand met at the end, share",
    "economy.margin_at_end": "Owners' profit at the end, share of costs",
    "economy.subsidy_share": "Subsidies, share of owners' income",
    "economy.audits_share_of_fees": "Audits' pay, share of fees",
    "economy.unmet_epochs": "Epochs with unmet demand, share",
    "governance.cartel_share.p50": "Cartel that passes a vote, share of credit",
}
OF_BEHAVIOUR: Final = {
    "earned_per_job": "micro-credits a job",
    "stopped": "nodes stopped",
    "detection_s.p50": "time to detect p50, s",
}
POINTS_SHOWN_MAX: Final = 500
VIOLATIONS_SHOWN_MAX: Final = 100
_T: Final = (  # Student's t for 95 %, by degrees of freedom from 1
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL: Final = 1.96


@dataclass
class Mean:
    """Of values that come one by one (Welford 1962)."""

    count: int = 0
    mean: float = 0.0
    _squares: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self._squares += off * (value - self.mean)

    @property
    def half(self) -> float:
        """Of the 95 % interval; 0 of one value."""
        free = self.count - 1
        if free < 1:
            return 0.0
        t = _T[free - 1] if free <= len(_T) else _NORMAL
        return t * sqrt(self._squares / free / self.count)

    def __str__(self) -> str:
        if not self.count:
            return "–"
        return brief(self.mean) + (f" ± {brief(self.half)}" if self.half else "")


@dataclass
class _Found:
    """What the rows came to. Means by metric and place: which values, of which keys."""

    keys: tuple[str, ...]
    metrics: dict[str, str]
    rows: int = 0
    violated: list[tuple[str, ...]] = field(default_factory=list)
    broken: int = 0
    points: defaultdict[tuple[str, ...], dict[str, Mean]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    pairs: defaultdict[tuple[int, str, str], dict[str, Mean]] = field(
        default_factory=lambda: defaultdict(dict)
    )


def sweep_page(folder: Path, about: dict[str, Any]) -> str:
    """Raises ScenarioError where the sweep's files are damaged."""
    try:
        columns, keys = list(about["columns"]), tuple(about["axes"])
        behaviours, whole = list(about["behaviours"]), int(about["runs"])
    except (KeyError, TypeError, ValueError) as error:
        raise ScenarioError(f"{folder / 'sweep.json'}: no whole sweep.json ({error})") from error
    told = {name: says for name, says in _metrics(behaviours).items() if name in columns}
    found = _Found(keys, told)
    for row in _rows(folder / "sweep.csv", columns):
        _count(found, row)
    shown = [(name, about.get(name)) for name in ("seed", "replicates", "commit")]
    parts = [table(("this sweep", ""), [("runs", f"{found.rows} of {whole}"), *shown])]
    if found.violated:
        head = ("run", *keys, "seed", "invariant")
        title = f"{found.broken} runs broke an invariant"
        parts.append(section(title, table(head, found.violated)))
    for place, key in enumerate(keys):
        parts.append(section(f"Over {key}", charts(_over(found, place, about["axes"]))))
    parts.append(section("Every point: mean ± half of its 95 % interval", _points(found)))
    return page(f"{about.get('scenario')}: a sweep", str(about.get("question", "")), parts)


def _metrics(behaviours: list[str]) -> dict[str, str]:
    of = {
        f"adversaries.{name}.{figure}": f"{name}: {says}"
        for name in behaviours
        for figure, says in OF_BEHAVIOUR.items()
    }
    return {**METRICS, **of}


def _rows(path: Path, columns: list[str]) -> Iterator[dict[str, str]]:
    """Whole rows only: a sweep may be under way."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith("\n"):
                    return
                cells = next(csv.reader([line], strict=True), [])
                if len(cells) != len(columns) or (number == 1 and cells != columns):
                    raise ScenarioError(f"{path}:{number}: not a row of this sweep")
                if number > 1:
                    yield dict(zip(columns, cells, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError(f"{path}: {error}") from error


def _count(found: _Found, row: dict[str, str]) -> None:
    found.rows += 1
    values = tuple(row[key] for key in found.keys)
    if row["status"] == "violated":
        found.broken += 1
        if len(found.violated) < VIOLATIONS_SHOWN_MAX:
            found.violated.append((row["run"], *values, row["seed"], row["violation"]))
    groups = [found.points[values]]
    for place, value in enumerate(values):
        groups.append(found.pairs[place, value, _beside(values, place)])
    for metric in found.metrics:
        if row[metric]:
            for group in groups:
                group.setdefault(metric, Mean()).add(float(row[metric]))


def _beside(values: tuple[str, ...], place: int) -> str:
    """The value of the key that tells the lines of a chart apart; none beside a single key."""
    return values[(place + 1) % len(values)] if len(values) > 1 else ""


def _over(found: _Found, place: int, axes: dict[str, list[str]]) -> Iterator[str]:
    """One chart for each metric that has values."""
    key = found.keys[place]
    values = list(dict.fromkeys(one for at, one, _ in found.pairs if at == place))
    beside = list(dict.fromkeys(one for at, _, one in found.pairs if at == place))
    other = found.keys[(place + 1) % len(found.keys)]
    places = numbers(values)
    for metric, says in found.metrics.items():
        means = {
            (value, line): found.pairs[place, value, line][metric]
            for value, line in product(values, beside)
            if metric in found.pairs.get((place, value, line), {})
        }
        if not means:
            continue
        if places is None:
            named = {f"{value} {line}".strip(): mean.mean for (value, line), mean in means.items()}
            yield bars(Axes(says, key, ""), named)
            continue
        series = {}
        for line in beside:
            here = [(x, means[v, line]) for v, x in places.items() if (v, line) in means]
            band = [(x, m.mean - m.half, m.mean + m.half) for x, m in here]
            name = f"{other} = {line}" if len(found.keys) > 1 else ""
            series[name] = Line([(x, m.mean) for x, m in here], band)
        yield lines(Axes(says, key, ""), series)


def numbers(values: list[str]) -> dict[str, float] | None:
    """Where values stand on an axis, in order: numbers, or quantities of one kind; else None."""
    readers: tuple[Callable[[str], float], ...] = (float, time_us, rate_per_s, share, size_bytes)
    for read in readers:
        try:
            places = {value: float(read(value)) for value in values}
        except (QuantityError, ValueError):
            continue
        scale = 1e-6 if read is time_us else 1.0  # seconds
        return {value: x * scale for value, x in sorted(places.items(), key=lambda item: item[1])}
    return None


def _points(found: _Found) -> str:
    metrics = [name for name in found.metrics if any(name in m for m in found.points.values())]
    rows = [
        (*values, *(str(means.get(name, Mean())) for name in metrics))
        for values, means in list(found.points.items())[:POINTS_SHOWN_MAX]
    ]
    left_out = len(found.points) - len(rows)
    more = f"<p>{left_out} further points are in sweep.csv.</p>" if left_out else ""
    return table((*found.keys, *(found.metrics[name] for name in metrics)), rows) + more
