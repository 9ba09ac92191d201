"""Prompts full of near-ties (`prompt_miner`)."""

from __future__ import annotations

from adversary_page import seen
from assay_simnet.adversaries import TIES
from assay_simnet.behaviours.honest import Honest
from assay_simnet.trials import Trial, try_executor


def test_near_ties_hide_no_cheaper_model() -> None:
    result = seen("prompt_miner")
    assert result.stopped == len(result.runs)
    assert result.jobs <= 6
    assert result.profit < 0


def test_an_honest_node_survives_prompts_full_of_near_ties() -> None:
    result = try_executor(Trial(Honest, workload=TIES, jobs_max=30))
    assert result.stopped == 0
    assert result.profit == 0
