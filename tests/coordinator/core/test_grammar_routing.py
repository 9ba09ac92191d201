"""Jobs with a grammar: only to nodes that keep it, audited only by those that compute its masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from assay_protocol import messages as m
from coordinator.core.coordinator_world import (
    GREEDY,
    POLICY,
    Issued,
    ScriptedNode,
    World,
    identity,
    node,
)

CLIENT = identity(50)
HELD = replace(GREEDY, grammar=bytes(range(32)))


def world_of(**dialects: str | None) -> tuple[World, dict[str, ScriptedNode]]:
    """Nodes by name, each with what computes its masks."""
    world = World(POLICY, ())
    world.grant(CLIENT.public_key)
    nodes = {name: node(10 + index) for index, name in enumerate(dialects)}
    for name, dialect in dialects.items():
        answer: Any = world.join(nodes[name], grammar=dialect)
        assert isinstance(answer, m.Registered), answer
    return world, nodes


def test_a_job_with_a_grammar_goes_to_a_node_that_keeps_it() -> None:
    world, nodes = world_of(plain=None, keeps="masks-1", other=None)
    for _ in range(12):
        held = world.ask(CLIENT, sampler=HELD)
        assert isinstance(held, Issued)
        assert held.ticket.node == nodes["keeps"].key
        assert held.ticket.sampler == HELD
    free = [world.ask(CLIENT) for _ in range(12)]
    served = {one.ticket.node for one in free if isinstance(one, Issued)}
    assert served & {nodes["plain"].key, nodes["other"].key}


def test_without_such_a_node_it_is_refused_and_with_a_busy_one_it_waits() -> None:
    world, nodes = world_of(plain=None)
    refused = world.ask(CLIENT, sampler=HELD)
    assert isinstance(refused, m.Error)
    assert refused.code == "grammar_refused"
    keeps = node(20)
    world.join(keeps, grammar="masks-1")
    full = world.ask(CLIENT, sampler=HELD, only=(nodes["plain"].key,))
    assert isinstance(full, m.Error)
    assert full.code == "no_capacity"
    empty, _ = world_of()
    nobody = empty.ask(CLIENT, sampler=HELD)
    assert isinstance(nobody, m.Error)
    assert nobody.code == "no_capacity"


def test_only_the_same_masks_audit() -> None:
    world, nodes = world_of(first="masks-1", same="masks-1", newer="masks-2", plain=None)
    for _ in range(3):
        held = world.run_job(CLIENT, sampler=HELD, only=(nodes["first"].key,))
        assert world.job(held).verdict == "passed"
    done = {name: world.row(one).audits_done for name, one in nodes.items()}
    assert done == {"first": 0, "same": 3, "newer": 0, "plain": 0}
