"""From a scenario that breaks an invariant to a small one that breaks the same (delta debugging).

Every try is a run of the same seed. What counts as the same: the invariant's id; where a core
raised, also what was raised and where. Tries are bounded; Ctrl-C or the bound keep the best so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from assay_simnet.invariants import RAISED
from assay_simnet.scenario import Scenario, read
from assay_simnet.scenario_text import text_of
from assay_simnet.schema import ScenarioError, Source
from assay_simnet.smaller import SECOND, STEPS, Search, ends_at

TRIES: Final = 300  # runs, unless asked otherwise
TRIES_MAX: Final = 100_000
ROUNDS_MAX: Final = 20  # through all steps


@dataclass(frozen=True)
class Broken:
    """How a run failed. `at_us`: virtual time since its start."""

    ident: str
    why: str
    at_us: int

    @property
    def kind(self) -> str:
        """What has to be the same again."""
        return f"{self.ident} {self.why.split(': ', 1)[0]}" if self.ident == RAISED else self.ident


Run = Callable[[Scenario], Broken | None]  # with the scenario's own seed


@dataclass
class Shrinking:
    """A search under way; `best` breaks what the first scenario broke, and `broken` is how."""

    run: Run
    best: Scenario
    broken: Broken
    tries_max: int
    watch: Callable[[Shrinking], None] = lambda _: None
    tries: int = 0
    _known: dict[str, bool] = field(default_factory=dict)  # by scenario, at most `tries_max`

    def search(self) -> bool:
        """Until nothing is smaller; False if the tries were used up before that."""
        try:
            for _ in range(ROUNDS_MAX):
                before = self.best
                self._cut()
                for step in STEPS:
                    self._go(step(self.best))
                if self.best == before:
                    return True
        except _Spent:
            pass
        return False

    def _cut(self) -> None:
        """Nothing after the failure matters, where it comes before the heal phase."""
        after = self.broken.at_us - self.best.warm_up
        until = (after // SECOND + 1) * SECOND
        if 0 < until < self.best.duration:
            self._fails(ends_at(self.best, until))

    def _go(self, search: Search) -> None:
        fails: bool | None = None
        while True:
            try:
                smaller = next(search) if fails is None else search.send(fails)
            except StopIteration:
                return
            fails = self._fails(smaller)

    def _fails(self, scenario: Scenario) -> bool:
        """Whether it does; if so it is the best now. What no file may say does not."""
        try:
            scenario = read(Source("a smaller one", text_of(scenario)))
        except ScenarioError:
            return False
        known = self._known.get(scenario.digest)
        if known is not None:
            return known
        if self.tries >= self.tries_max:
            raise _Spent
        self.tries += 1
        found = self.run(scenario)
        fails = found is not None and found.kind == self.broken.kind
        self._known[scenario.digest] = fails
        if found is not None and fails:
            self.best, self.broken = scenario, found
        self.watch(self)
        return fails


class _Spent(Exception):
    """All tries were used."""
