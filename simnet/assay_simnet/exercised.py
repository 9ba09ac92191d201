"""What checked runs had to go through: a run in which nothing happens finds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from assay_simnet.results import at

_WIDTH = 10


@dataclass(frozen=True)
class Tally:
    """Sums over runs."""

    runs: int = 0
    jobs: int = 0
    audits: int = 0  # that ended
    cheated: int = 0  # answers that were not what was promised
    stopped: int = 0  # nodes that broke the rules, and were found out
    framed: int = 0  # honest nodes convicted all the same
    faults: int = 0
    crashes: int = 0  # of the coordinator
    epochs: int = 0

    def __add__(self, other: Tally) -> Tally:
        sums = (getattr(self, one.name) + getattr(other, one.name) for one in fields(self))
        return Tally(*sums)


def tally_of(figures: Mapping[str, Any]) -> Tally:
    """Of one run's summary. A level without some figure has none of it."""
    groups = figures.get("adversaries", {}).values()

    def figure(path: str) -> int:
        return at(dict(figures), path) or 0

    return Tally(
        runs=1,
        jobs=figure("jobs.begun"),
        audits=figure("verification.audits"),
        cheated=sum(group.get("cheated", 0) for group in groups),
        stopped=sum(group.get("stopped", 0) for group in groups),
        framed=figure("false_convictions"),
        faults=figure("faults"),
        crashes=figure("coordinator_starts"),
        epochs=figure("epochs"),
    )


def tallied(done: Mapping[str, Tally]) -> str:
    """A line for each scenario, and one for all of them."""
    names = [one.name for one in fields(Tally)]
    rows = {**done, "all": sum(done.values(), Tally())}
    first = max(map(len, rows), default=0)
    lines = [" " * first + "".join(name.rjust(_WIDTH) for name in names)]
    for name, tally in rows.items():
        cells = (f"{getattr(tally, figure):,}".rjust(_WIDTH) for figure in names)
        lines.append(name.ljust(first) + "".join(cells))
    return "\n".join(lines) + "\n"
