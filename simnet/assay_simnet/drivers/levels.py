"""Which driver lets a scenario happen.

fast     production cores on ticks of virtual time       thousands of nodes
live     production runtimes over libp2p, virtual time    hundreds
epochs   economics by numpy, an epoch at a time           a million, for years
real     processes on this machine, a model that runs     a few
"""

from __future__ import annotations

from pathlib import Path

from assay_simnet.scenario import Scenario
from assay_simnet.schema import ScenarioError
from assay_simnet.seen import Driver


def open_driver(scenario: Scenario, seed: int, folder: Path | None = None) -> Driver:
    """The driver of the scenario's level, not yet run. Lines of jobs go to `folder`, if there is
    one. Raises ScenarioError where this level cannot run it."""
    match scenario.level:
        case "fast":
            from assay_simnet.drivers.fast import Fast

            return Fast(scenario, seed, folder)
        case "real":
            from assay_simnet.drivers.real_run import Real

            return Real(scenario, seed, folder)
        case "live":
            from assay_simnet.drivers.live import Live

            return Live(scenario, seed, folder)
        case "epochs":
            from assay_simnet.drivers.epochs import Epochs

            return Epochs(scenario, seed, folder)
        case level:
            raise ScenarioError(f"level {level!r} is not built yet")
