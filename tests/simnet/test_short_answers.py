"""Answers of a few tokens: an honest node that gives nothing else stays what it is."""

from __future__ import annotations

import pytest

from assay_simnet.behaviours.honest import Honest
from assay_simnet.trials import Trial, measure, network, serves
from assay_simnet.workload import Workload


@pytest.mark.parametrize("tokens", [1, 2])
def test_an_honest_node_that_answers_in_a_word_is_not_accused(tokens: int) -> None:
    """One token's sketch scatters four times as much as a leaf's mean: by a table fitted from
    whole leaves a crowd of such jobs suspended or convicted whoever a client chose to ask."""
    world, client = network(Trial(Honest), 1)
    node = world.add_node(Honest())
    world.idle(1)
    short = Workload(max_tokens=tokens, own_tokens=4, system=())
    for _ in range(40):
        assert serves(world, node)
        short.ask(world, client, only=(node.key,))
    world.settle()
    assert measure(world, node, 0.0).state == "active"
    assert world.coordinator.standing(node.key).failed == 0
