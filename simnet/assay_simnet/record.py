"""What a run leaves: a line for each job, node and epoch, and a summary of them.

    manifest.json     scenario, seed, versions, the trace's digest, how long it took
    summary.json      the figures below; the same for the same scenario and seed
    jobs, nodes, epochs   tables: Parquet where pyarrow is installed, else csv.gz
    violations.jsonl  what did not hold; empty if all did

Job lines are written as they come, so what was run before a Ctrl-C is kept.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from assay_coordinator.core.events import Log

JOB_COLUMNS: Final = (
    *("begun_us", "client", "behaviour", "n_in", "n_out", "tokens", "first_us", "ended_us"),
    *("attempts", "finish", "code", "nodes"),
)
_ROWS_IN_MEMORY: Final = 50_000
_KEPT_TIMES: Final = 2_000_000


@dataclass(slots=True)
class JobLine:
    """One job as its client saw it; times since the epoch."""

    begun_us: int
    client: int
    behaviour: str
    n_in: int
    n_out: int
    tokens: int = 0
    first_us: int = 0
    ended_us: int = 0
    attempts: int = 0
    finish: str = ""
    code: str = ""
    nodes: tuple[int, ...] = ()
    then: Any = None  # the session's other turns

    def row(self) -> list[Any]:
        values = [getattr(self, name) for name in JOB_COLUMNS[:-1]]
        return [*values, " ".join(map(str, self.nodes))]

    @property
    def ttft_us(self) -> int:
        return self.first_us - self.begun_us

    @property
    def tpot_us(self) -> float:
        """The mean time of a token after the first."""
        return (self.ended_us - self.first_us) / max(1, self.tokens - 1)


class Table:
    """Rows on their way to a file. csv.gz without a time stamp: the same rows, the same bytes."""

    def __init__(self, folder: Path | None, name: str, columns: Sequence[str]) -> None:
        self._folder, self._name, self._columns = folder, name, tuple(columns)
        self._rows: list[Sequence[Any]] = []
        self._parts: list[Any] = []
        self._raw: Any = None
        self._text: Any = None
        self._arrow = _pyarrow()

    def add(self, row: Sequence[Any]) -> None:
        if self._folder is None:
            return
        self._rows.append(row)
        if len(self._rows) >= _ROWS_IN_MEMORY:
            self._write()

    def close(self) -> None:
        """All rows are on disk."""
        if self._folder is None:
            return
        self._write()
        if self._arrow is not None:
            self._raw.close()
        else:
            self._text.close()
            self._raw.close()

    def _write(self) -> None:
        assert self._folder is not None
        if self._arrow is not None:
            arrays = {
                name: [row[place] for row in self._rows] for place, name in enumerate(self._columns)
            }
            part = self._arrow.table(arrays)
            if self._raw is None:
                parquet = importlib.import_module("pyarrow.parquet")
                path = self._folder / f"{self._name}.parquet"
                self._raw = parquet.ParquetWriter(path, part.schema, compression="zstd")
            self._raw.write_table(part)
        else:
            if self._raw is None:
                file = (self._folder / f"{self._name}.csv.gz").open("wb")
                self._raw = file
                zipped = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
                self._text = io.TextIOWrapper(zipped, newline="")
                csv.writer(self._text).writerow(self._columns)
            csv.writer(self._text).writerows(self._rows)
        self._rows = []


class Listener(Protocol):
    """Hears of jobs that ended, and of what an operator would see."""

    def ended(self, line: JobLine) -> None: ...

    def logged(self, now: int, log: Log) -> None: ...


class Record:
    """Counts and lines of one run."""

    def __init__(self, folder: Path | None) -> None:
        self.begun = 0
        self.finished: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()  # whole answers, by the client's behaviour
        self.tokens = 0
        self.honest: list[JobLine] = []  # delivered to honest clients
        self.jobs = Table(folder, "jobs", JOB_COLUMNS)
        self.logs: Counter[str] = Counter()
        self.convicted_us: dict[str, int] = {}  # by node's key in hex
        self.stopped_us: dict[str, int] = {}
        self.epochs: list[tuple[int, int, str]] = []
        self.listeners: list[Listener] = []  # of what is noted here

    def ended(self, line: JobLine) -> None:
        self.finished[line.finish] += 1
        if line.code:
            self.codes[line.code] += 1
        self.tokens += line.tokens
        delivered = line.finish in ("stop", "length")
        self.delivered[line.behaviour] += delivered
        if delivered and not line.behaviour and len(self.honest) < _KEPT_TIMES:
            self.honest.append(line)
        self.jobs.add(line.row())
        for one in self.listeners:
            one.ended(line)

    def logged(self, now: int, log: Log) -> None:
        """What the coordinator's operator would see."""
        self.logs[log.event] += 1
        fields = dict(log.fields)
        state = log.event if log.event == "convicted" else fields.get("state")
        if log.event in ("convicted", "standing") and state in ("convicted", "inquiry"):
            self.stopped_us.setdefault(str(fields["node"]), now)
            if state == "convicted":
                self.convicted_us.setdefault(str(fields["node"]), now)
        elif log.event == "epoch_closed":
            self.epochs.append((int(fields["epoch"]), now, str(fields["root"])))
        for one in self.listeners:
            one.logged(now, log)

    @property
    def over(self) -> int:
        """Jobs that ended."""
        return sum(self.finished.values())


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """p50, p95 and p99 by nearest rank, in the unit of the values; empty of nothing."""
    ordered = sorted(values)
    if not ordered:
        return {}
    last = len(ordered) - 1
    return {f"p{p}": round(ordered[min(last, len(ordered) * p // 100)], 3) for p in (50, 95, 99)}


def gini(values: Iterable[int]) -> float:
    """0: all have the same; towards 1: one has all."""
    ordered = sorted(values)
    total, count = sum(ordered), len(ordered)
    if not total:
        return 0.0
    ranked = sum((2 * place - count + 1) * value for place, value in enumerate(ordered))
    return round(ranked / (count * total), 4)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ModuleNotFoundError:
        return None
