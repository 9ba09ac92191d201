"""Small scenarios for the tests of simnet's fast driver."""

from __future__ import annotations

from assay_simnet.drivers.fast import Fast
from assay_simnet.scenario import Scenario, read
from assay_simnet.schema import Source

SMALL = """# Does it run?
schema = 1
name = "small"
duration = "40 s"
warm_up = "10 s"
[population]
nodes = 6
[workload]
rate = "1 / s"
clients = 4
"""

TINY = """# Tiny?
schema = 1
name = "tiny"
duration = "6 s"
warm_up = "5 s"
heal = "10 min"
[population]
nodes = 3
[workload]
rate = "1 / s"
clients = 2
"""
SWEPT = (
    TINY
    + """[[adversary]]
behaviour = "lazy"
fraction = 0.4
[sweep]
replicates = 10
"adversary.0.cheat" = [0.2, 1.0]
"population.nodes" = [3, 4, 5]
"""
)


def scenario(more: str = "", text: str = SMALL) -> Scenario:
    """SMALL with `more` behind it."""
    return read(Source("small.toml", text + more))


def ran(more: str = "", seed: int = 1, text: str = SMALL) -> Fast:
    """The world of a run that broke nothing."""
    world = Fast(scenario(more, text), seed)
    world.run()
    return world
