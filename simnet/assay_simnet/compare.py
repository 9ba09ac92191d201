"""How far two runs of one scenario agree, made at different levels: latencies, jobs, the ledger.

Jobs are matched one by one: the n-th of a client in one run is its n-th in the other. The ledger is
exact (decisions/0023) where every matched job has the same prompt, answer and end, every client was
charged the same, and what was credited in each role, is in escrow and in the treasury is the same
in all. Who of the nodes earned it may differ: where timing decides, another node gets the job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import median
from typing import Any, Final

from assay_simnet.results import flat, read_json, table_rows
from assay_simnet.schema import ScenarioError

MEASURES: Final = ("ttft", "tpot", "e2e")
SHARES: Final = (50, 95, 99)
JUDGED: Final = (("ttft", 50), ("tpot", 50))
_LEVELS_OWN: Final = ("level", "tick", "signatures", "checks.")  # how a level lets it happen
_MACHINES: Final = (  # what a simulated machine and network are like; a real one is as it is
    *("profiles.", "model.parameters", "model.size", "network.latency", "network.jitter"),
    "population.classes",
)
_DELIVERED: Final = ("stop", "length")


@dataclass(frozen=True, slots=True)
class JobSeen:
    """One job, as its client saw it. Times in microseconds."""

    n_in: int
    n_out: int
    tokens: int
    finish: str
    nodes: str
    ttft: int
    tpot: float
    e2e: int

    @property
    def charged_for(self) -> tuple[int, int, str]:
        """What its price follows from, and what became of it."""
        return self.n_in, self.tokens, self.finish


@dataclass(frozen=True)
class RunSeen:
    """What a run left."""

    folder: Path
    level: str
    seed: int
    parameters: Mapping[str, Any]
    jobs: Mapping[int, Sequence[JobSeen]]  # by client, in the order in which they began
    accounts: Mapping[tuple[str, int, str], int]
    root: str  # of the last epoch

    def delivered(self) -> list[JobSeen]:
        return [job for jobs in self.jobs.values() for job in jobs if job.finish in _DELIVERED]

    def sums(self) -> dict[str, int]:
        """What was charged, credited by role, is undecided and in the treasury, in all."""
        found: Counter[str] = Counter()
        for (_, _, what), amount in self.accounts.items():
            found[what] += amount
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class Figure:
    """One percentile in both runs, in microseconds."""

    measure: str
    share: int
    a: float
    b: float
    judged: bool

    @property
    def off(self) -> float:
        """Of the second run's: 0.1 is 10 % more in the first."""
        if self.a == self.b:
            return 0.0
        return (self.a - self.b) / self.b if self.b else float("inf")


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side; the second is what the first is held against."""

    a: RunSeen
    b: RunSeen
    tolerance: float
    figures: tuple[Figure, ...]
    matched: int
    paired: Mapping[str, float]  # by measure: the median over jobs of one by the other
    same_node: int  # matched jobs that the same nodes answered
    differs: tuple[str, ...]  # lines of the ledger, in order; none: exact
    by_node: tuple[tuple[int, str, int, int], ...]  # credit that differs

    @property
    def exact(self) -> bool:
        return not self.differs

    @property
    def within(self) -> bool:
        return all(abs(one.off) <= self.tolerance for one in self.figures if one.judged)


def compare(a: Path, b: Path, tolerance: float) -> Comparison:
    """Raises ScenarioError where a folder is no whole run, or they are of different scenarios."""
    first, second = read_run(a), read_run(b)
    _check_alike(first, second)
    pairs = list(_pairs(first, second))
    both = [(one, other) for _, one, other in pairs if one is not None and other is not None]
    delivered = [(one, two) for one, two in both if one.finish == two.finish == "length"]
    return Comparison(
        a=first,
        b=second,
        tolerance=tolerance,
        figures=tuple(_figures(first, second)),
        matched=len(both),
        paired={name: _paired(delivered, name) for name in MEASURES},
        same_node=sum(one.nodes == other.nodes for one, other in both),
        differs=(*_job_lines(pairs), *_ledger_lines(first, second)),
        by_node=tuple(_by_node(first, second)),
    )


def read_run(folder: Path) -> RunSeen:
    """A run that ended. Raises ScenarioError."""
    manifest = read_json(folder / "manifest.json")
    status = manifest.get("status")
    if status != "done":
        raise ScenarioError(f"{folder}: a run that was {status}; one that is done is wanted")
    try:
        parameters = manifest["parameters"]
        level, seed = str(parameters["level"]), int(manifest["seed"])
        jobs: dict[int, list[tuple[int, JobSeen]]] = {}
        for row in table_rows(folder, "jobs"):
            jobs.setdefault(int(row["client"]), []).append((int(row["begun_us"]), _job(row)))
        accounts = {
            (row["who"], int(row["number"]), row["what"]): int(row["amount"])
            for row in table_rows(folder, "accounts")
        }
        root = [row["root"] for row in table_rows(folder, "epochs")][-1:]
    except (KeyError, ValueError, TypeError) as error:
        raise ScenarioError(f"{folder}: not what `simnet run` writes ({error!r})") from error
    ordered = {
        client: [job for _, job in sorted(each, key=lambda one: one[0])]
        for client, each in sorted(jobs.items())
    }
    return RunSeen(folder, level, seed, parameters, ordered, accounts, "".join(root))


# ---- inside ------------------------------------------------------------------------------------


def _job(row: Mapping[str, str]) -> JobSeen:
    begun, first, ended = (int(row[name]) for name in ("begun_us", "first_us", "ended_us"))
    tokens = int(row["tokens"])
    return JobSeen(
        n_in=int(row["n_in"]),
        n_out=int(row["n_out"]),
        tokens=tokens,
        finish=row["finish"],
        nodes=row["nodes"],
        ttft=first - begun,
        tpot=(ended - first) / max(1, tokens - 1),
        e2e=ended - begun,
    )


def _check_alike(a: RunSeen, b: RunSeen) -> None:
    """One scenario and seed; what a level alone decides may differ."""
    if a.seed != b.seed:
        raise ScenarioError(f"seeds differ: {a.seed} in {a.folder}, {b.seed} in {b.folder}")
    excepted = _LEVELS_OWN + (_MACHINES if "real" in (a.level, b.level) else ())
    first, second = dict(flat(dict(a.parameters))), dict(flat(dict(b.parameters)))
    for key in sorted(first.keys() | second.keys()):
        if key.startswith(excepted) and not key.endswith(".slots"):
            continue
        one, other = first.get(key), second.get(key)
        if one != other:
            why = f"{key} is {one!r} in {a.folder}, {other!r} in {b.folder}"
            raise ScenarioError(f"scenarios differ: {why}")


def _pairs(a: RunSeen, b: RunSeen) -> Iterator[tuple[str, JobSeen | None, JobSeen | None]]:
    for client in sorted(a.jobs.keys() | b.jobs.keys()):
        both = zip_longest(a.jobs.get(client, ()), b.jobs.get(client, ()))
        for place, (one, other) in enumerate(both, 1):
            yield f"job {place} of client {client}", one, other


def _figures(a: RunSeen, b: RunSeen) -> Iterator[Figure]:
    for name in MEASURES:
        first = sorted(getattr(job, name) for job in a.delivered())
        second = sorted(getattr(job, name) for job in b.delivered())
        for share in SHARES:
            judged = (name, share) in JUDGED
            yield Figure(name, share, _rank(first, share), _rank(second, share), judged)


def _rank(ordered: Sequence[float], share: int) -> float:
    """By nearest rank, as summary.json has it; 0 of nothing."""
    last = len(ordered) - 1
    return ordered[min(last, len(ordered) * share // 100)] if ordered else 0.0


def _paired(pairs: Sequence[tuple[JobSeen, JobSeen]], name: str) -> float:
    ratios = [getattr(one, name) / getattr(two, name) for one, two in pairs if getattr(two, name)]
    return median(ratios) if ratios else 1.0


def _job_lines(pairs: Sequence[tuple[str, JobSeen | None, JobSeen | None]]) -> Iterator[str]:
    for name, one, other in pairs:
        if one is None or other is None:
            yield f"{name}: only in the {'second' if one is None else 'first'} run"
        elif one.charged_for != other.charged_for:
            yield f"{name}: {_told(one)} | {_told(other)}"


def _told(job: JobSeen) -> str:
    return f"{job.n_in} tokens asked, {job.tokens} answered, {job.finish}"


def _ledger_lines(a: RunSeen, b: RunSeen) -> Iterator[str]:
    charged = [
        {key: amount for key, amount in run.accounts.items() if key[0] == "client"}
        for run in (a, b)
    ]
    for key in sorted(charged[0].keys() | charged[1].keys()):
        one, other = charged[0].get(key, 0), charged[1].get(key, 0)
        if one != other:
            yield f"client {key[1]} {key[2]}: {one} | {other}"
    sums = a.sums(), b.sums()
    for what in sorted(sums[0].keys() | sums[1].keys()):
        one, other = sums[0].get(what, 0), sums[1].get(what, 0)
        if one != other:
            yield f"{what} in all: {one} | {other}"


def _by_node(a: RunSeen, b: RunSeen) -> Iterator[tuple[int, str, int, int]]:
    keys = {key for run in (a, b) for key in run.accounts if key[0] == "node"}
    for key in sorted(keys):
        one, other = a.accounts.get(key, 0), b.accounts.get(key, 0)
        if one != other:
            yield key[1], key[2], one, other
