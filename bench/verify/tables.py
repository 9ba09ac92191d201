"""The measured tables: who was caught by what, and whom each check accuses wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from conditions import CHEATS, FORGER, HONEST
from intervals import clopper_pearson, shown
from methods import FLOAT_METHODS, Caught, Judge, exactly
from plan import EXACT_AUDITOR, EXACT_PAIRS, FLOAT_AUDITOR, FLOAT_PAIRS
from recordings import Recordings
from weighing import weighed

METHODS: Final = ("E", *FLOAT_METHODS)


@dataclass(frozen=True, slots=True)
class Count:
    """So many of so many."""

    hits: int
    trials: int

    @property
    def share(self) -> float:
        return self.hits / self.trials if self.trials else 0.0

    def packed(self) -> dict[str, Any]:
        low, high = clopper_pearson(self.hits, self.trials)
        interval = [round(low, 5), round(high, 5)]
        return {"share": round(self.share, 5), "of": self.trials, "ci95": interval}


@dataclass(frozen=True, slots=True)
class Row:
    """One cheat: what it changes, and who catches it."""

    name: str
    mismatches: float  # share of tokens
    drift: float  # mean leaf distance
    caught: dict[str, Count]


def cheat_rows(recordings: Recordings, judge: Judge, blocks: int) -> list[Row]:
    names = [*(one.name for one in CHEATS), FORGER]
    rows = [_cheat_row(recordings, judge, name, blocks) for name in names]
    return [row for row in rows if row is not None]


def false_alarms(recordings: Recordings, blocks: int) -> dict[str, dict[str, Count]]:
    """By pair of classes and method; the exact pairs have E only."""
    rows: dict[str, dict[str, Count]] = {}
    for provider, auditor in FLOAT_PAIRS:
        some = min(blocks, recordings.blocks(provider.name, auditor))
        if some:
            found = weighed(recordings, provider.name, auditor, some)
            rows[f"{provider.name} > {auditor}"] = _counts(Judge(found).caught(found))
    for provider, auditor in EXACT_PAIRS:
        some = min(blocks, recordings.blocks(provider.name, auditor))
        if some:
            accused = exactly(weighed(recordings, provider.name, auditor, some))
            rows[f"{provider.name} > {auditor}"] = {"E": _count(accused)}
    return rows


def honest_judge(recordings: Recordings, blocks: int) -> Judge:
    """Of the pair that cheats are judged by: they declare HONEST's class."""
    some = min(blocks, recordings.blocks(HONEST.name, FLOAT_AUDITOR))
    return Judge(weighed(recordings, HONEST.name, FLOAT_AUDITOR, some))


def total(rows: Sequence[dict[str, Count]], method: str) -> Count:
    some = [row[method] for row in rows if method in row]
    return Count(sum(one.hits for one in some), sum(one.trials for one in some))


def mean(rows: Sequence[Row], method: str) -> float | None:
    """Over the cheats, each alike, to four places; None of a method that did not run."""
    shares = [row.caught[method].share for row in rows if method in row.caught]
    return round(sum(shares) / len(shares), 4) if shares else None


def show_cheats(rows: Sequence[Row]) -> None:
    print(f"{'cheat':17}{'jobs':>5}{'flips':>7}{'drift':>7}" + "".join(f"{m:>15}" for m in METHODS))
    for row in rows:
        jobs = max(one.trials for one in row.caught.values())
        cells = [_cell(row.caught.get(method)) for method in METHODS]
        about = f"{row.name:17}{jobs:5}{100 * row.mismatches:6.1f}%{row.drift:7.3f}"
        print(about + "".join(f"{cell:>15}" for cell in cells), flush=True)


def show_alarms(rows: dict[str, dict[str, Count]]) -> None:
    print(f"{'honest pair':17}{'jobs':>5}" + "".join(f"{method:>11}" for method in METHODS))
    for name, row in rows.items():
        jobs = max(one.trials for one in row.values())
        cells = [str(row[method].hits) if method in row else "-" for method in METHODS]
        print(f"{name:17}{jobs:5}" + "".join(f"{cell:>11}" for cell in cells), flush=True)


def _cheat_row(recordings: Recordings, judge: Judge, name: str, most: int) -> Row | None:
    blocks = min(most, recordings.blocks(name, FLOAT_AUDITOR))
    if not blocks:
        return None
    found = weighed(recordings, name, FLOAT_AUDITOR, blocks)
    caught = _counts(judge.caught(found))
    exact = min(most, recordings.blocks(name, EXACT_AUDITOR))
    if exact:
        caught["E"] = _count(exactly(weighed(recordings, name, EXACT_AUDITOR, exact)))
    return Row(name, float(found.wrong.mean()), float(found.distances.mean()), caught)


def _counts(caught: Caught) -> dict[str, Count]:
    return {method: _count(hits) for method, hits in caught.items()}


def _count(hits: NDArray[np.bool_]) -> Count:
    return Count(int(hits.sum()), len(hits))


def _cell(count: Count | None) -> str:
    return "-" if count is None else shown(count.hits, count.trials)
