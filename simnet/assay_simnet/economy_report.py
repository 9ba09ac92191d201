"""The page of a run at level "epochs": time series of money and machines, then who gained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from assay_simnet.charts import Axes, Line, bars, lines
from assay_simnet.page import charts, page, section, table
from assay_simnet.results import at, flat, read_json, table_rows
from assay_simnet.schema import ScenarioError

_ABOUT: Final = ("status", "seed", "commit", "trace_digest", "scenario_digest", "python", "cpu_s")
_ACTIVE: Final = "active."  # before a profile's name, in columns
_CREDIT: Final = 1e6
_DAY_US: Final = 86_400_000_000
_DAYS: Final = "days"
_HONEST: Final = "honest"


def economy_page(folder: Path, manifest: dict[str, Any]) -> str:
    """Raises ScenarioError where the run's files are missing or cut short."""
    figures = read_json(folder / "summary.json")
    rows = list(table_rows(folder, "epochs"))
    groups = list(table_rows(folder, "groups"))
    if not isinstance(figures.get("economy"), dict):
        raise ScenarioError(f"{folder}: no run that this version of simnet can show")
    try:
        parts = [
            table(("this run", ""), [(name, manifest.get(name)) for name in _ABOUT]),
            section("Machines and demand", charts(_machines(rows))),
            section("Money", charts(_money(rows))),
            section("Fraud and its price", charts(_fraud(rows, figures))),
            section("Who gained", charts(_gains(groups, figures))),
            section("Every figure (summary.json)", table(("figure", "value"), list(flat(figures)))),
        ]
    except (KeyError, ValueError) as error:
        raise ScenarioError(f"{folder}: epochs or groups lack a column ({error})") from error
    title = f"{manifest.get('scenario')}, seed {manifest.get('seed')}"
    return page(title, str(manifest.get("question", "")), parts)


def _series(rows: Sequence[dict[str, str]], column: str, scale: float = 1.0) -> Line:
    return Line([(float(row["at_us"]) / _DAY_US, float(row[column]) / scale) for row in rows])


def _machines(rows: list[dict[str, str]]) -> Iterator[str]:
    profiles = [name for name in (rows[0] if rows else ()) if name.startswith(_ACTIVE)]
    there = {name.removeprefix(_ACTIVE): _series(rows, name) for name in profiles}
    yield lines(Axes("Active nodes by profile", _DAYS, "nodes"), there)
    moves = {"entered": _series(rows, "entered"), "left": _series(rows, "left")}
    yield lines(Axes("Entry and exit", _DAYS, "nodes an epoch"), moves)
    asked = {"wanted": _series(rows, "demand"), "served": _series(rows, "jobs")}
    yield lines(Axes("Demand", _DAYS, "jobs an epoch"), asked)
    yield lines(
        Axes("Demand that nobody had room for", _DAYS, "share"), {"": _series(rows, "lost")}
    )
    used = {"": _series(rows, "utilisation")}
    yield lines(Axes("Utilisation", _DAYS, "busy share of slots"), used)


def _money(rows: list[dict[str, str]]) -> Iterator[str]:
    yield lines(Axes("Price", _DAYS, "micro-credits a job"), {"": _series(rows, "price")})
    yield lines(Axes("Treasury", _DAYS, "credits"), {"": _series(rows, "treasury", _CREDIT)})
    income = {
        "for jobs": _series(rows, "paid", _CREDIT),
        "for audits": _series(rows, "audit_pay", _CREDIT),
        "subsidy": _series(rows, "subsidy", _CREDIT),
        "owners' costs": _series(rows, "costs", _CREDIT),
    }
    yield lines(Axes("What owners get, and pay", _DAYS, "credits an epoch"), income)
    profit = {"": _series(rows, "profit", _CREDIT)}
    yield lines(Axes("Profit of all owners", _DAYS, "credits an epoch"), profit)


def _fraud(rows: list[dict[str, str]], figures: dict[str, Any]) -> Iterator[str]:
    share = figures.get("undetected_fraud")
    title = "Undetected fraud" + (f": {share:.2%} was paid" if share is not None else "")
    counts = {"paid": _series(rows, "fraud_paid"), "refunded": _series(rows, "fraud_refunded")}
    yield lines(Axes(title, _DAYS, "cheated answers so far"), counts)
    audits = [
        (float(row["at_us"]) / _DAY_US, float(row["audits"]) / max(1.0, float(row["jobs"])))
        for row in rows
    ]
    yield lines(Axes("Cost of verification", _DAYS, "audits a job"), {"": Line(audits)})
    yield lines(Axes("Convictions", _DAYS, "nodes an epoch"), {"": _series(rows, "convicted")})


def _gains(groups: list[dict[str, str]], figures: dict[str, Any]) -> Iterator[str]:
    profits = {
        f"{behaviour} {p}": float(amount) / _CREDIT
        for behaviour, found in figures["economy"]["profit"].items()
        for p, amount in found.items()
        if p in ("p10", "p50", "p90")
    }
    yield bars(Axes("Profit by behaviour, quantiles", "", "credits in the whole run"), profits)
    means = {
        name: float(found["mean"]) / _CREDIT
        for name, found in figures["economy"]["profit_by_profile"].items()
        if found
    }
    yield bars(Axes("Profit by profile, mean", "", "credits in the whole run"), means)
    per_job: dict[str, list[int]] = {}
    for row in groups:
        sums = per_job.setdefault(row["behaviour"] or _HONEST, [0, 0])
        sums[0] += int(row["earned"])
        sums[1] += int(row["jobs"])
    earned = {name: sums[0] / sums[1] for name, sums in per_job.items() if sums[1]}
    title = f"Credit: Gini {figures['credit_gini']}"
    yield bars(Axes(title, "", "micro-credits earned a job"), earned)
    shares = at(figures, "governance.cartel_share") or {}
    yield bars(Axes("Share of a span's credit that passes a vote", "", "share"), shares)
