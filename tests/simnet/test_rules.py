"""Governance reaches a whole network: production cores under a virtual clock."""

from __future__ import annotations

from typing import Any, Final

import pytest

from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import JobRow
from assay_coordinator.core.rules import SignedPolicy
from assay_protocol.messages import ModelRule, ModerationPolicy, NetworkRules
from assay_protocol.moderation import policy_digest
from assay_protocol.signing import Identity, seal
from assay_simnet.language import PIECES
from assay_simnet.setting import LATENCY_US, MODEL, SAVE_US, SECOND
from assay_simnet.trials import EXPERIENCED
from assay_simnet.workload import Workload
from assay_simnet.world import World

AUTHOR = Identity(b"\x09" * 32)
POLICY = seal(AUTHOR, ModerationPolicy(name="p", version=1, issued_at=1, phrases=("EVIL",)))
HEARTBEAT_US: Final = Policy().heartbeat_us
# The heartbeat and its answer, the question and the document, the disk; and ticks are a second.
ON_THE_WAY_US: Final = 4 * LATENCY_US + SAVE_US + SECOND


def _rules(version: int, *denied: bytes, **changes: Any) -> NetworkRules:
    fields: dict[str, Any] = {
        "chain": 5,
        "registry": b"r" * 20,
        "block": version,
        "version": version,
        "open": True,
        "models": tuple(ModelRule(model=model, allowed=False) for model in denied),
        "moderation": bytes(32),
        "policy": b"",
        "policy_author": b"",
    }
    return NetworkRules(**(fields | changes))


def _network(seed: int, nodes: int = 6) -> World:
    world = World(seed, moderation=SignedPolicy(AUTHOR.public_key, POLICY))
    for _ in range(nodes):
        world.add_node(verified=EXPERIENCED)
        world.idle(world.below(SECOND) / SECOND)  # heartbeats do not coincide
    world.add_client()
    return world


def _spread(world: World, version: int) -> int:
    """Microseconds until every node obeys."""
    began = world.now
    nodes = world.nodes.values()
    assert world.run(lambda: all(one.core.rules.version == version for one in nodes), 60)
    return world.now - began


def _ask(world: World, prompt: tuple[int, ...] = (1, 2, 3)) -> str:
    """How one job ends."""
    [client] = world.clients.values()
    done = len(client.outcomes)
    client.start(prompt, 8, Workload().sampler)
    assert world.run(lambda: len(client.outcomes) > done, 300)
    outcome = client.outcomes[-1]
    return outcome.finish if outcome.error is None else outcome.error.code


@pytest.mark.parametrize("seed", range(4))
def test_changes_reach_every_node_within_one_heartbeat(seed: int) -> None:
    world = _network(seed)
    world.idle(1)
    for version, denied in ((1, (MODEL,)), (2, ()), (3, (MODEL,))):
        world.coordinator.decide(_rules(version, *denied))
        assert _spread(world, version) <= HEARTBEAT_US + ON_THE_WAY_US


def test_a_node_that_joins_learns_them_at_once() -> None:
    world = _network(1, nodes=1)
    world.coordinator.decide(_rules(1, MODEL))
    late = world.add_node(verified=EXPERIENCED)
    world.run(lambda: late.core.rules.version == 1, 60)
    assert world.run(lambda: late.core.rules.version == 1, 1)


def test_a_denied_model_is_served_again_once_it_is_allowed() -> None:
    world = _network(2)
    assert _ask(world) in ("stop", "length")
    world.coordinator.decide(_rules(1, MODEL))
    assert _ask(world) == "model_denied"
    world.coordinator.decide(_rules(2))
    _spread(world, 2)
    assert _ask(world) in ("stop", "length")
    assert world.settle()


def test_nodes_refuse_what_a_forgetful_coordinator_still_gives_tickets_for() -> None:
    world = _network(3)
    world.coordinator.decide(_rules(1, MODEL))
    _spread(world, 1)
    world.coordinator.core.rules._allowed.clear()  # it breaks its own rules
    assert _ask(world) == "no_capacity"  # once each node has refused
    assert sum(node.jobs for node in world.nodes.values()) == 0
    assert {node.core.tally.jobs_refused for node in world.nodes.values()} == {1}


def test_running_jobs_of_a_newly_denied_model_finish_and_are_paid() -> None:
    world = _network(4)
    [client] = world.clients.values()
    client.start((1, 2, 3), 200, Workload().sampler)
    world.run(lambda: any(node.jobs for node in world.nodes.values()))
    world.coordinator.decide(_rules(1, MODEL))
    assert world.run(lambda: bool(client.outcomes), 300)
    assert client.outcomes[0].error is None
    world.idle(1)
    assert world.settle()
    [row] = world.coordinator.rows(JobRow)
    assert (row.state in ("held", "released"), row.charged > 0) == (True, True)


def test_a_refused_prompt_is_asked_once_and_costs_nothing() -> None:
    world = _network(5)
    world.coordinator.decide(_rules(1, moderation=policy_digest(POLICY)))
    _spread(world, 1)
    [client] = world.clients.values()
    before = world.coordinator.balance("available", client.key)
    evil = tuple(PIECES.index(bytes([letter])) for letter in b"evil")
    assert _ask(world, (7, *evil, 8)) == "prompt_refused"
    assert client.tickets == 1
    world.idle(Policy().abandon_grace_us / SECOND + 2)
    assert world.coordinator.balance("available", client.key) == before
    assert _ask(world, (7, *evil[:3], 8)) in ("stop", "length")
    world.coordinator.decide(_rules(2))
    _spread(world, 2)
    assert _ask(world, (7, *evil, 8)) in ("stop", "length")
