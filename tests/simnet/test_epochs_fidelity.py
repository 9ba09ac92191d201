"""Level "epochs" beside level "fast": one scenario, kept seeds, stated tolerances.

docs/simnet-levels.md ("How far to trust it") has the figures and what is missed.
"""

from __future__ import annotations

from statistics import mean
from typing import Any

import pytest

from assay_simnet.drivers.levels import open_driver
from assay_simnet.scenario import read
from assay_simnet.schema import Source

SEEDS = (1, 2)
TEXT = """# Do both levels say the same?
schema = 1
name = "both"
level = "{level}"
duration = "40 min"
[coordinator]
epoch = "5 min"
suspension = "10 min"
[population]
nodes = 60
profiles = {{ "rtx3080-10g" = 2, "rtx4090-24g" = 1 }}
[workload]
rate = "2 / s"
clients = 40
[economy]
epoch = "20 min"
enter = 0
leave = 0
[[adversary]]
behaviour = "{behaviour}"
count = 12
verified = 400
{more}
"""


def _figures(level: str, behaviour: str, more: str, seed: int) -> dict[str, Any]:
    text = TEXT.format(level=level, behaviour=behaviour, more=more)
    run = open_driver(read(Source("both.toml", text)), seed)
    run.run()
    figures = run.summary()
    audits = figures["verification"].get("verdicts", figures["verification"]["audits"])
    return {
        "jobs": figures["jobs"]["begun"],
        "audits a job": audits / figures["jobs"]["begun"],
        "fraud paid": figures["undetected_fraud"] or 0.0,
        "honest": figures["honest"]["earned_per_job"],
        "cheats": figures["adversaries"][behaviour]["earned_per_job"],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "more", "fraud", "cheats"),
    [
        ("lazy", "", 0.1, 10.0),
        ("lazy", "cheat = 0.1", 0.25, 8.0),
        ("traitor", "after = 40", 0.2, 6.0),
        ("ring", "", 0.1, 10.0),
        ("withholder", "", 0.1, 8.0),
        ("hotter", "", 0.1, 5.0),
    ],
)
def test_both_levels_agree(behaviour: str, more: str, fraud: float, cheats: float) -> None:
    """Means over the seeds: jobs within 5 %, audits a job within 35 %, the share of frauds paid
    within `fraud`, honest pay a job within 15 %, cheats' within `cheats` micro-credits of 36."""
    both = {
        level: [_figures(level, behaviour, more, seed) for seed in SEEDS]
        for level in ("fast", "epochs")
    }
    fast, epochs = (
        {name: mean(run[name] for run in both[level]) for name in both[level][0]}
        for level in ("fast", "epochs")
    )
    assert epochs["jobs"] == pytest.approx(fast["jobs"], rel=0.05)
    assert epochs["audits a job"] == pytest.approx(fast["audits a job"], rel=0.35)
    assert epochs["fraud paid"] == pytest.approx(fast["fraud paid"], abs=fraud)
    assert epochs["honest"] == pytest.approx(fast["honest"], rel=0.15)
    assert epochs["cheats"] == pytest.approx(fast["cheats"], abs=cheats)
