"""A sweep's folder: a row for each run of a plan, in the plan's order, whoever computed it.

    sweep.toml   the file that was swept
    sweep.json   what was to run, with which code; written before any row
    sweep.csv    one row a run, on disk before the next is begun to be written

A row is a function of the plan and its number alone, so a sweep that was killed and resumed has
the bytes of one that was not. Half a row at the end is what a kill leaves; anything else that is
not the plan's is refused, and nothing is changed.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final

from assay_network.durable import sync_folder, write_durably
from assay_simnet.collecting import let_go, settle
from assay_simnet.commands import commit as commit_here
from assay_simnet.drivers.levels import open_driver
from assay_simnet.grid import Plan, Run
from assay_simnet.invariants import Violated
from assay_simnet.results import at, read_json
from assay_simnet.scenario import read
from assay_simnet.schema import ScenarioError, Source

LINE_BYTES_MAX: Final = 1 << 20
_PERCENTILES: Final = ("p50", "p95", "p99")
_LATENCIES: Final = tuple(
    f"latency.{name}.{p}" for name in ("ttft_s", "tpot_s", "e2e_s") for p in _PERCENTILES
)
_STANDING: Final = ("nodes", "states", "jobs", "earned", "earned_per_job")
# Paths into summary.json. A table of what happened to happen (states, finishes, errors) is one
# cell, as JSON: every row has the same columns.
FIGURES: Final = (
    *("phase", "virtual_s", "events", "jobs.begun", "jobs.ended", "jobs.by_finish"),
    *("jobs.by_error", "jobs.per_s", "tokens", *_LATENCIES, "latency.goodput_jobs_per_s"),
    *("latency.within_slo", "utilisation", "verification.audits", "verification.compute_share"),
    *("verification.verdicts", *(f"honest.{name}" for name in _STANDING), "false_convictions"),
    *("frauds", "undetected_fraud", "credit_gini", "treasury", "epochs", "coordinator_starts"),
    "faults",
)
OF_BEHAVIOUR: Final = (
    *_STANDING,
    *("cheated", "stopped", *(f"detection_s.{p}" for p in _PERCENTILES)),
)


@dataclass(frozen=True)
class Task:
    """One run, whole: a worker on another machine needs nothing else."""

    run: Run
    name: str
    behaviours: tuple[str, ...]
    commit: str  # of the code that is to run it


@dataclass(frozen=True)
class Row:
    """What one run came to. `violated`: the id and why, empty if all held."""

    number: int
    line: str
    violated: str


def compute(task: Task) -> Row:
    """One run of a sweep. Its world is let go at once: memory is that of one run, not of many.

    Raises ScenarioError where this is other code than the sweep's.
    """
    if task.commit != _commit():
        why = f"a worker has {_commit()[:12]}, the sweep is of {task.commit[:12]}"
        raise ScenarioError(f"run {task.run.number}: {why}")
    settle()
    row = _computed(task)
    let_go()
    return row


def _computed(task: Task) -> Row:
    run = task.run
    world = open_driver(read(Source(task.name, run.text)), run.seed)
    ident = why = ""
    try:
        world.run()
    except Violated as error:
        ident, why = error.ident, error.why
    figures = world.summary()
    cells = [*_head(run), "violated" if ident else "done", ident, world.history.digest]
    cells += [_cell(at(figures, path)) for path in _paths(task.behaviours)]
    return Row(run.number, _line(cells), f"{ident}: {why}" if ident else "")


def columns(plan: Plan) -> tuple[str, ...]:
    """Of sweep.csv."""
    head = ("run", *plan.keys, "replicate", "seed", "status", "violation", "trace_digest")
    return (*head, *_paths(plan.behaviours))


class Rows:
    """sweep.csv, open for appending. One process at a time."""

    def __init__(self, folder: Path, plan: Plan, commit: str, *, resume: bool) -> None:
        """Begins a sweep, or takes one up. Raises ScenarioError, and has then changed nothing."""
        self.plan = plan
        self._commit = commit
        about = _about(plan, commit)
        path = folder / "sweep.csv"
        self.done = 0
        self.dropped = 0  # bytes of half a row
        self.violated = 0  # rows that broke an invariant
        if folder.exists() and any(folder.iterdir()):
            if not resume:
                raise ScenarioError(f"{folder} is there already; --resume, or another --out")
            self._compare(folder, about)
        else:
            folder.mkdir(parents=True, exist_ok=True)
        _whole(folder / "sweep.toml", plan.source.text)
        _whole(folder / "sweep.json", json.dumps(about, indent=1, sort_keys=True) + "\n")
        self._file: BinaryIO = path.open("ab", buffering=0)
        try:
            self._take_up(path)
        except BaseException:
            self._file.close()
            raise
        sync_folder(folder)

    def _take_up(self, path: Path) -> None:
        """Whole rows stay; half a one is cut off."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ScenarioError(f"{path}: another sweep is writing it") from error
        kept = self._kept(path)
        self.dropped = os.fstat(self._file.fileno()).st_size - kept
        self._file.truncate(kept)
        if not kept:
            self._write(_line(columns(self.plan)))

    def tasks(self) -> Iterator[Task]:
        """What is still to run."""
        for number in range(self.done, len(self.plan)):
            run = self.plan.run(number)
            yield Task(run, self.plan.source.name, self.plan.behaviours, self._commit)

    def add(self, row: Row) -> None:
        """On disk when it returns."""
        assert row.number == self.done, "rows come in order"
        self._write(row.line)
        self.done += 1
        self.violated += bool(row.violated)

    def close(self) -> None:
        self._file.close()

    def _write(self, line: str) -> None:
        data = line.encode()
        assert len(data) <= LINE_BYTES_MAX
        while data:  # a full disk may take a part
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())

    def _compare(self, folder: Path, about: dict[str, Any]) -> None:
        """Whether what is there is of this plan and this code."""
        path = folder / "sweep.json"
        if not path.exists() and not (folder / "sweep.csv").exists():
            strange = [one.name for one in folder.iterdir() if not one.name.startswith("sweep.")]
            if strange:
                raise ScenarioError(f"{folder} holds {strange[0]}, and is no sweep's")
            return  # killed before it began
        found = read_json(path)
        for key, wanted in about.items():
            if found.get(key) != wanted:
                why = f"{key} is {found.get(key)!r} there, and {wanted!r} now"
                raise ScenarioError(f"{path}: another sweep's; {why}")

    def _kept(self, path: Path) -> int:
        """Bytes of whole rows; each is the plan's. Sets `done`."""
        kept = 0
        wanted: tuple[str, ...] | list[str] = columns(self.plan)
        width = len(wanted)
        with path.open("rb") as file:
            for number in range(len(self.plan) + 2):
                line = file.readline(LINE_BYTES_MAX)
                if not line.endswith(b"\n"):
                    if len(line) == LINE_BYTES_MAX:
                        raise ScenarioError(f"{path}:{number + 1}: too long to be a row")
                    break
                if number > len(self.plan):
                    raise ScenarioError(f"{path}:{number + 1}: more rows than runs")
                if number:
                    wanted = _head(self.plan.run(number - 1))
                found = _parsed(path, number + 1, line)
                if len(found) != width or found[: len(wanted)] != list(wanted):
                    what = f"the row of run {number - 1}" if number else "this sweep's columns"
                    raise ScenarioError(f"{path}:{number + 1}: not {what}")
                kept += len(line)
                self.done = number
                self.violated += bool(number) and found[len(wanted)] == "violated"
        return kept


# ---- inside ------------------------------------------------------------------------------------


def _about(plan: Plan, commit: str) -> dict[str, Any]:
    return {
        "scenario": plan.base.name,
        "question": plan.base.question,
        "scenario_digest": plan.base.digest,
        "text_digest": hashlib.sha256(plan.source.text.encode()).hexdigest(),
        "seed": plan.base.seed,
        "commit": commit,
        "axes": {axis.key: list(map(str, axis.values)) for axis in plan.axes},
        "replicates": plan.replicates,
        "runs": len(plan),
        "behaviours": list(plan.behaviours),
        "columns": list(columns(plan)),
    }


_commit: Final = cache(commit_here)


def _paths(behaviours: tuple[str, ...]) -> tuple[str, ...]:
    of = (f"adversaries.{name}.{figure}" for name in behaviours for figure in OF_BEHAVIOUR)
    return (*FIGURES, *of)


def _head(run: Run) -> list[str]:
    return [str(run.number), *run.cells, str(run.replicate), str(run.seed)]


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    return "" if value is None else str(value)


def _line(cells: list[str] | tuple[str, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _parsed(path: Path, number: int, line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode()], strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError(f"{path}:{number}: damaged ({error})") from error


def _whole(path: Path, text: str) -> None:
    """The file is there with all of its text, or not at all."""
    if path.exists():
        return
    write_durably(path, text.encode())
