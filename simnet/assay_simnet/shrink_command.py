"""What `simnet shrink` and `check --shrink` do: search, tell of it, and write what was found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from assay_simnet.drivers.levels import open_driver
from assay_simnet.invariants import Violated
from assay_simnet.scenario import Scenario
from assay_simnet.scenario_text import text_of
from assay_simnet.schema import ScenarioError
from assay_simnet.setting import START
from assay_simnet.shrink import TRIES_MAX, Broken, Shrinking

INTERRUPTED: Final = 130


def may_shrink(target: Path, runs: int) -> None:
    """Raises ScenarioError where the result could not be written, before anything is run."""
    if not 1 <= runs <= TRIES_MAX:
        raise ScenarioError(f"--runs {runs}: from 1 to {TRIES_MAX:,}")
    if target.exists():
        raise ScenarioError(f"{target} is there already; nothing is overwritten")
    if not target.resolve().parent.is_dir():
        raise ScenarioError(f"{target}: there is no folder {target.parent}")


def shrink_into(target: Path, scenario: Scenario, runs: int) -> int:
    """Exit code: 0 when nothing smaller is left to try or the runs are spent, 130 after Ctrl-C,
    with the smallest found in `target` each time. Raises ScenarioError if nothing breaks."""
    broken = _broken(scenario)
    if broken is None:
        raise ScenarioError(
            f"{scenario.name}, seed {scenario.seed}: nothing breaks, so no shrinking"
        )
    search = Shrinking(_broken, scenario, broken, runs, _tell)
    try:
        why = "nothing smaller is left" if search.search() else f"all {runs} runs are spent"
        code = 0
    except KeyboardInterrupt:
        why, code = "stopped", INTERRUPTED
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    found = search.broken
    said = f"Shrunk from {scenario.name}, seed {scenario.seed}: {found.ident} does not hold."
    with target.open("x") as file:
        file.write(text_of(search.best, said))
    sys.stdout.write(f"{target}: {_size(search)}, after {search.tries} runs; {why}\n")
    sys.stdout.write(f"{found.ident} does not hold at {found.at_us / 1e6:.3f} s: {found.why}\n")
    sys.stdout.write(f"simnet replay {target}\n")
    return code


def _broken(scenario: Scenario) -> Broken | None:
    world = open_driver(scenario, scenario.seed)
    try:
        world.run()
    except Violated as error:
        return Broken(error.ident, error.why, world.now - START)
    return None


def _size(search: Shrinking) -> str:
    best = search.best
    faults, cheats = len(best.faults), len(best.adversaries)
    parties = f"{best.population.nodes} nodes, {best.workload.clients} clients"
    worse = f"{faults} faults, {cheats} adversaries"
    return f"{parties}, {worse}, {best.duration / 1e6:g} s"


def _tell(search: Shrinking) -> None:
    """One line on a terminal; nothing where stderr is none."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\rrun {search.tries} of {search.tries_max}: {_size(search)}   ")
        sys.stderr.flush()
