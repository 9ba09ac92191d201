"""From totals that only rise to what happened lately: steps between looks, and the last minute.

    totals(t0) --step--> totals(t1) --step--> totals(t2) ...     a rate is a sum of steps over time

A total that fell, or another process, means that the node began anew: all it counted since then
belongs to the step. A restart that counted past the old totals between two looks cannot be seen,
where no process id is told, and is undercounted by those.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from assay.top.core.histograms import Histogram

MINUTE_US: Final = 60_000_000
RATE_US: Final = 5_000_000  # a rate of now is over the last steps that together are so long
STEPS_MAX: Final = 120  # kept of one node; at one a second two minutes
SECOND_US: Final = 1_000_000
COUNTERS: Final = ("tokens_in", "tokens_out", "jobs")


@dataclass(frozen=True, slots=True)
class Totals:
    """What a process counted since it began, as of `at` (microseconds, of any one clock). None: it
    does not tell. `process`: what is another after a restart; empty if that is not told."""

    at: int
    process: str = ""
    tokens_in: float | None = None
    tokens_out: float | None = None
    jobs: float | None = None
    first: Histogram | None = None  # seconds to a first token
    each: Histogram | None = None  # seconds for each token after it


@dataclass(frozen=True, slots=True)
class Step:
    """What happened from `begin` to `end`."""

    begin: int
    end: int
    tokens_in: float | None
    tokens_out: float | None
    jobs: float | None
    first: Histogram | None
    each: Histogram | None


class Pace:
    """The last steps of one process; feed it totals in the order they were read."""

    def __init__(self) -> None:
        self._last: Totals | None = None
        self._steps: deque[Step] = deque(maxlen=STEPS_MAX)

    def feed(self, totals: Totals) -> None:
        """Take the next totals. Those of the same moment are the same look again; those of an
        earlier one come from a clock that was set back, and begin anew."""
        last, self._last = self._last, totals
        if last is None or totals.at == last.at:
            return
        if totals.at < last.at:
            self._steps.clear()
            return
        self._steps.append(step(last, totals))

    def rate(self, name: str) -> float | None:
        """`name` (one of COUNTERS) a second now; None: not told, or seen once only."""
        return _rate(self._lately(RATE_US), name)

    def a_minute(self, name: str) -> float | None:
        """How many of `name` a minute, over the last one."""
        rate = _rate(self._lately(MINUTE_US), name)
        return None if rate is None else 60 * rate

    def seconds(self) -> float:
        """How long the last minute is: less at first, more if looks are further apart."""
        some = self._lately(MINUTE_US)
        return sum(one.end - one.begin for one in some) / SECOND_US

    def quantile(self, name: str, share: float) -> float | None:
        """Of `first` or `each`, of the last minute; None: there was no value."""
        found: Histogram | None = None
        for one in self._lately(MINUTE_US):
            more: Histogram | None = getattr(one, name)
            if more is not None:
                found = more if found is None else found.plus(more)
        return None if found is None else found.quantile(share)

    def history(self) -> tuple[float, ...]:
        """Tokens a second of answers, step by step, the newest last."""
        rates = (_rate([one], "tokens_out") for one in self._steps)
        return tuple(0.0 if rate is None else rate for rate in rates)

    def _lately(self, span: int) -> list[Step]:
        """The newest step, and those before it that began within `span` of its end."""
        if not self._steps:
            return []
        since = self._steps[-1].end - span
        return [one for one in self._steps if one.begin >= since] or [self._steps[-1]]


def step(before: Totals, after: Totals) -> Step:
    """What happened between two looks, a restart between them or not."""
    anew = restarted(before, after)

    def gained(name: str) -> float | None:
        new: float | None
        old: float | None
        new, old = getattr(after, name), None if anew else getattr(before, name)
        return new if new is None or anew else None if old is None else new - old

    def values(name: str) -> Histogram | None:
        new: Histogram | None
        old: Histogram | None
        new, old = getattr(after, name), None if anew else getattr(before, name)
        return new if new is None or anew else None if old is None else new.less(old)

    return Step(
        begin=before.at,
        end=after.at,
        tokens_in=gained("tokens_in"),
        tokens_out=gained("tokens_out"),
        jobs=gained("jobs"),
        first=values("first"),
        each=values("each"),
    )


def restarted(before: Totals, after: Totals) -> bool:
    """Whether another process counted the later totals, as far as it shows."""
    if before.process != after.process and before.process and after.process:
        return True
    for name in COUNTERS:
        old, new = getattr(before, name), getattr(after, name)
        if old is not None and new is not None and new < old:
            return True
    for name in ("first", "each"):
        old, new = getattr(before, name), getattr(after, name)
        if old is not None and new is not None and new.fell(old):
            return True
    return False


def _rate(steps: list[Step], name: str) -> float | None:
    told = [(getattr(one, name), one.end - one.begin) for one in steps]
    known = [(gained, span) for gained, span in told if gained is not None]
    span = sum(span for _, span in known)
    return sum(gained for gained, _ in known) * SECOND_US / span if span else None
