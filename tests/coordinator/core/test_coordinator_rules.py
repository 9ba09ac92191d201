"""The coordinator follows governance: what it refuses, publishes, keeps and does not believe."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from assay_coordinator.core.events import Log, RulesRead
from assay_coordinator.core.rules import Rules, SignedPolicy
from assay_protocol import messages as m
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError
from assay_protocol.moderation import policy_digest
from assay_protocol.signing import Identity, seal
from coordinator.core.coordinator_checks import check_all
from coordinator.core.coordinator_world import (
    LISTED,
    MODEL,
    SECOND,
    Issued,
    World,
    heartbeat,
    identity,
    node,
    registration,
)

AUTHOR = Identity(b"\x09" * 32)
OTHER = b"o" * 32
BLOB = seal(AUTHOR, m.ModerationPolicy(name="p", version=1, issued_at=1, phrases=("bad",)))
POLICY = SignedPolicy(AUTHOR.public_key, BLOB)


def state(version: int = 1, *denied: bytes, **changes: Any) -> RulesRead:
    fields: dict[str, Any] = {
        "chain": 5,
        "registry": b"r" * 20,
        "block": 9,
        "version": version,
        "open": True,
        "models": tuple(m.ModelRule(model=model, allowed=False) for model in denied),
        "moderation": bytes(32),
        "policy": b"",
        "policy_author": b"",
    }
    return RulesRead(m.NetworkRules(**(fields | changes)))


def network(clients: int = 1) -> tuple[World, Identity]:
    world, client = World(nodes=[node(1), node(2), node(3)]), identity(100)
    world.grant(client.public_key)
    return world, client


def document(world: World) -> m.NetworkRules:
    part = world.call(identity(50).public_key, m.GetPart(what="rules", key=bytes(32), offset=0))
    assert isinstance(part, m.Part)
    assert len(part.data) == part.total
    return decode_as(m.NetworkRules, part.data)


def beat(world: World) -> m.HeartbeatAck:
    answer = world.call(node(1).key, heartbeat())
    assert isinstance(answer, m.HeartbeatAck)
    return answer


def codes(logs: list[Log]) -> list[str]:
    return [one.event for one in logs if one.event.startswith(("rules", "moderation"))]


def test_before_any_rules_all_is_allowed_and_nothing_published() -> None:
    world, client = network()
    assert isinstance(world.ask(client), Issued)
    assert beat(world).rules is None
    answer = world.call(client.public_key, m.GetPart(what="rules", key=bytes(32), offset=0))
    assert answer.code == "rules_invalid"


def test_a_denied_model_gets_no_tickets_until_it_is_allowed_again() -> None:
    world, client = network()
    world.handle(state(1, MODEL))
    refused = world.ask(client)
    assert isinstance(refused, m.Error)
    assert refused.code == "model_denied"
    assert world.balance("reserved", client.public_key) == 0
    [summary] = world.call(client.public_key, m.GetModels()).models
    assert (summary.nodes, summary.free_slots) == (0, 0)
    world.handle(state(2))
    assert isinstance(world.ask(client), Issued)


def test_a_closed_list_denies_what_it_does_not_name() -> None:
    world, client = network()
    world.handle(state(1, open=False))
    assert isinstance(world.ask(client), m.Error)
    allowed = (m.ModelRule(model=MODEL, allowed=True),)
    world.handle(state(2, open=False, models=allowed))
    assert isinstance(world.ask(client), Issued)


def test_nodes_learn_the_digest_and_get_the_document() -> None:
    world, _ = network()
    world.handle(state(3, OTHER))
    told = document(world)
    assert (told.version, told.models) == (3, (m.ModelRule(model=OTHER, allowed=False),))
    assert beat(world).rules == sha256(encode(told)).digest()
    registered = world.join(node(4))
    assert registered.rules == sha256(encode(told)).digest()


def test_a_restart_follows_them_before_the_chain_answers() -> None:
    world, client = network()
    world.handle(state(3, MODEL))
    told = document(world)
    world.crash()
    assert document(world) == told
    assert isinstance(world.ask(client), m.Error)
    before = len(world.logs)
    world.handle(state(3, MODEL, block=70))  # what the chain says after the start is no news
    assert (document(world), world.logs[before:]) == (told, [])


@pytest.mark.parametrize("wrong", [state(1), state(3), state(3, MODEL, open=False)])
def test_what_contradicts_the_rules_in_force_is_not_followed(wrong: RulesRead) -> None:
    world, client = network()
    world.handle(state(3, MODEL))
    told = document(world)
    world.handle(wrong)
    assert document(world) == told
    assert codes(world.logs) == ["rules_read", "rules_refused"]
    assert isinstance(world.ask(client), m.Error)


def test_another_registry_is_followed_whatever_its_version() -> None:
    world, client = network()
    world.handle(state(3, MODEL))
    world.handle(state(1, registry=b"q" * 20))
    assert isinstance(world.ask(client), Issued)


def test_a_policy_is_published_with_its_author() -> None:
    world, _ = network()
    world.moderation = POLICY
    world.crash()
    world.handle(state(1, moderation=policy_digest(BLOB)))
    told = document(world)
    assert (told.policy, told.policy_author) == (BLOB, AUTHOR.public_key)


def test_without_the_policy_denials_hold_here_and_nodes_keep_what_they_had() -> None:
    world, client = network()
    world.handle(state(1))
    told = document(world)
    world.handle(state(2, MODEL, moderation=policy_digest(BLOB)))
    assert document(world) == told
    assert isinstance(world.ask(client), m.Error)
    assert codes(world.logs) == ["rules_read", "rules_read", "moderation_missing"]
    assert world.coordinator.rules.lacks_policy == policy_digest(BLOB)
    world.moderation = POLICY  # the operator finds the file
    world.crash()
    assert document(world) == told
    world.handle(state(2, MODEL, moderation=policy_digest(BLOB)))
    assert document(world).version == 2
    assert document(world).policy == BLOB


def test_a_policy_the_chain_does_not_name_is_not_published() -> None:
    rules = Rules(POLICY)
    rules.read(state(1))
    assert decode_as(m.NetworkRules, rules.document).policy == b""


def test_a_long_document_comes_in_parts() -> None:
    rules = Rules(replace(POLICY, blob=bytes(512 << 10)))
    rules.read(state(1, moderation=policy_digest(bytes(512 << 10))))
    found = b""
    while len(found) < rules.part(len(found)).total:
        found += rules.part(len(found)).data
    assert found == rules.document
    with pytest.raises(AssayError, match="rules_invalid"):
        Rules().part(0)


def test_jobs_done_before_are_audited_though_their_model_is_denied() -> None:
    world, client = network()
    world.chain_up = False  # the draw waits for the chain
    held = world.run_job(client)
    world.handle(state(1, MODEL))
    for one in (node(1), node(2), node(3)):  # each turns to another model
        other = tuple(replace(offer, model=OTHER) for offer in registration(bytes(32)).offers)
        world.coordinator.catalogue = {**world.coordinator.catalogue, OTHER: _listed(OTHER)}
        world.call(one.key, registration(one.operator, offers=other))
    world.chain_up = True
    world.mine()
    world.settle()
    world.pass_time(5)
    assert (world.job(held).verdict, world.job(held).state) == ("passed", "released")
    check_all(world)


def test_withdrawn_offers_are_bounded_and_forgotten_once_allowed() -> None:
    world, _ = network()
    world.handle(state(1, MODEL))
    many = tuple(
        replace(offer, model=bytes([n]) * 32)
        for offer in registration(bytes(32)).offers
        for n in range(64, 64 + 16)
    )
    listed = {one.model: _listed(one.model) for one in many}
    world.coordinator.catalogue = {**world.coordinator.catalogue, **listed}
    registry, one = world.coordinator.registry, node(1)
    world.call(one.key, registration(one.operator, offers=many))
    assert len(registry.nodes[one.key].offers) == 16  # no room for what is withdrawn
    world.call(one.key, registration(one.operator))
    world.call(one.key, registration(one.operator, offers=many[:1]))
    assert MODEL in registry.nodes[one.key].offers
    world.handle(state(2))
    world.call(one.key, registration(one.operator, offers=many[:1]))
    assert MODEL not in registry.nodes[one.key].offers
    assert world.now >= SECOND


def _listed(model: bytes) -> Any:
    return replace(LISTED, model=model)
