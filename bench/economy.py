"""What a year of a million nodes costs at simnet's level "epochs": every mechanism and check on.

Regions, five profiles, churn, two kinds of adversaries that come back, demand that grows, swings
and minds the price, an operator who moves it, subsidies that end, owners who come and go, and L1
after every epoch. `python bench/economy.py --nodes 1000000 --epochs 365` prints one JSON line;
`python bench/simnet.py` runs it in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from typing import Any, Final

from assay_simnet.drivers.epochs import Epochs
from assay_simnet.scenario import Scenario, read
from assay_simnet.schema import Source

SEED: Final = 1
TEXT: Final = """# What does a year cost?
schema = 1
name = "bench"
level = "epochs"
duration = "{epochs} d"
[population]
nodes = {nodes}
established = 0.5
regions = {{ na = 2, eu = 2, asia = 1, sa = 0.5, oceania = 0.2 }}
[population.profiles]
rtx3070-8g = 1
rtx3080-10g = 2
rtx4070ti-12g = 1
rtx4090-24g = 2
a100-sxm-80g = 0.1
[churn]
model = "weibull"
[workload]
rate = "{rate} / s"
[economy]
active = 0.7
growth = 0.5
elasticity = 0.7
price_step = 0.02
utilisation = 0.1
season = 0.2
noise = 0.1
publisher_bps = 500
bond = "100 credits"
subsidy = "{subsidy} credits"
subsidy_ends = "180 d"
subsidy_fade = "60 d"
rejoin = "30 d"
[governance]
trials = 20
[[adversary]]
behaviour = "lazy"
fraction = 0.03
cheat = 0.1
verified = 400
[[adversary]]
behaviour = "traitor"
fraction = 0.03
verified = 400
"""


def scenario(nodes: int, epochs: int) -> Scenario:
    text = TEXT.format(nodes=nodes, epochs=epochs, rate=nodes / 2, subsidy=nodes / 10)
    return read(Source("bench.toml", text))


def economy(nodes: int, epochs: int) -> dict[str, Any]:
    """One run, its summary included."""
    began = time.process_time()
    run = Epochs(scenario(nodes, epochs), SEED)
    run.run()
    figures = run.summary()
    cpu_s = time.process_time() - began
    return {
        "nodes": nodes,
        "epochs": figures["epochs"],
        "jobs": figures["jobs"]["begun"],
        "epochs_cpu_s": round(cpu_s, 1),
        "epochs_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "active_least": figures["economy"]["active"]["least"],
        "digest": run.history.digest,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=365)
    args = parser.parse_args()
    sys.stdout.write(json.dumps(economy(args.nodes, args.epochs)) + "\n")


if __name__ == "__main__":
    main()
