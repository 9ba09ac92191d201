"""When nodes come and go: how long one stays, how long it is away.

    none          it stays
    exponential   both times memoryless
    weibull       stays by a Weibull law: shape < 1 is many short stays and a few long ones
    pareto        stays by a Pareto law, whose tail is heavier still
    diurnal       exponential, but it leaves by day and comes back at night, by its region's clock
    trace         stays and absences of a file, row after row, each node from a row of its own

Sources of the laws: Javadi et al. 2011 (SETI@home hosts), Stutzbach and Rejaie 2006 (Weibull).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from assay_protocol.elementary import cosine_of_turn
from assay_simnet.population import HOURS_AHEAD
from assay_simnet.schema import ScenarioError, Source
from assay_simnet.seeds import Stream

MODELS: Final = ("none", "exponential", "weibull", "pareto", "diurnal", "trace")
_HOUR_US: Final = 3_600_000_000
_DAY_HOURS: Final = 24
_SWING: Final = 0.8  # of the diurnal rates: nine times as many leave at noon as at midnight
_COLUMNS: Final = ("up_s", "away_s")
ROWS_MAX: Final = 1_000_000


class Churn(Protocol):
    """One node's comings and goings. Times are microseconds of virtual time."""

    def stays_us(self, now: int) -> int | None:
        """From `now`, when it came; None is for good."""
        ...

    def away_us(self, now: int) -> int: ...


class Always:
    """It stays."""

    def stays_us(self, now: int) -> int | None:
        return None

    def away_us(self, now: int) -> int:
        raise AssertionError("it never left")


@dataclass(slots=True)
class Random:
    """By one of the laws above. Means in microseconds."""

    model: str
    stream: Stream
    session_mean: int
    away_mean: int
    shape: float
    region: str

    def stays_us(self, now: int) -> int | None:
        if self.model == "weibull":
            return round(self.stream.weibull(self.session_mean, self.shape))
        if self.model == "pareto":
            return round(self.stream.pareto(self.session_mean, self.shape))
        if self.model == "diurnal":
            return self._thinned(now, self.session_mean, by_day=True)
        return round(self.stream.exponential(self.session_mean))

    def away_us(self, now: int) -> int:
        if self.model == "diurnal":
            return self._thinned(now, self.away_mean, by_day=False)
        return round(self.stream.exponential(self.away_mean))

    def _thinned(self, now: int, mean: int, *, by_day: bool) -> int:
        """An exponential time whose rate swings through the day (Lewis and Shedler's thinning)."""
        at = float(now)
        while True:
            at += self.stream.exponential(mean / (1 + _SWING))
            hour = at / _HOUR_US + HOURS_AHEAD[self.region]
            day = -cosine_of_turn(hour / _DAY_HOURS)  # 1 at noon, -1 at midnight
            rate = 1 + _SWING * (day if by_day else -day)
            if self.stream.uniform() * (1 + _SWING) < rate:
                return round(at - now)


class Traced:
    """Rows of a trace, begun at a row of the node's own and then around."""

    def __init__(self, rows: Sequence[tuple[int, int]], first: int) -> None:
        self._rows, self._at = rows, first % len(rows)

    def stays_us(self, now: int) -> int | None:
        return self._rows[self._at][0]

    def away_us(self, now: int) -> int:
        away = self._rows[self._at][1]
        self._at = (self._at + 1) % len(self._rows)
        return away


def read_trace(source: Source) -> list[tuple[int, int]]:
    """Rows of (stay, absence) in microseconds from a CSV with the columns up_s and away_s.

    Raises ScenarioError with file and line.
    """
    lines = csv.DictReader(source.text.splitlines())
    missing = [name for name in _COLUMNS if name not in (lines.fieldnames or ())]
    if missing:
        raise ScenarioError(f"{source.name}:1: no column {missing[0]!r}; wanted: up_s, away_s")
    rows = []
    for row in lines:
        place = f"{source.name}:{lines.line_num}"
        try:
            up, away = (round(float(row[name]) * 1e6) for name in _COLUMNS)
        except (TypeError, ValueError) as error:
            raise ScenarioError(f"{place}: seconds wanted in {', '.join(_COLUMNS)}") from error
        if up <= 0 or away < 0:
            raise ScenarioError(f"{place}: a stay is longer than 0, an absence not negative")
        rows.append((up, away))
        if len(rows) > ROWS_MAX:
            raise ScenarioError(f"{place}: more than {ROWS_MAX:,} rows")
    if not rows:
        raise ScenarioError(f"{source.name}: no rows")
    return rows
