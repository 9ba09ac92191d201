"""Small economies for the tests of simnet's level "epochs"."""

from __future__ import annotations

from assay_simnet.drivers.epochs import Epochs
from assay_simnet.scenario import read
from assay_simnet.schema import Source

YEAR = """# Does it live?
schema = 1
name = "year"
level = "epochs"
duration = "20 d"
[population]
nodes = 300
established = 0.5
profiles = { "rtx3080-10g" = 2, "rtx4090-24g" = 1 }
regions = { na = 2, eu = 1 }
[workload]
rate = "5 / s"
[economy]
active = 0.5
noise = 0.1
elasticity = 0.5
price_step = 0.02
publisher_bps = 500
bond = "100 credits"
slashed = 0.5
subsidy = "20 credits"
subsidy_ends = "10 d"
subsidy_fade = "5 d"
rejoin = "3 d"
tree_every = 10
[governance]
trials = 5
[[adversary]]
behaviour = "lazy"
fraction = 0.05
cheat = 0.1
verified = 400
[[adversary]]
behaviour = "traitor"
fraction = 0.05
verified = 400
"""


def economy(text: str = YEAR, seed: int = 1) -> Epochs:
    """Not yet run."""
    return Epochs(read(Source("year.toml", text)), seed)


def ran(text: str = YEAR, seed: int = 1) -> Epochs:
    run = economy(text, seed)
    run.run()
    return run
