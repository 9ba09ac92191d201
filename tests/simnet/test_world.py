"""The virtual network: one seed, one history; and the production cores keep what they promise."""

from __future__ import annotations

import hashlib

import pytest

from assay_coordinator.core.records import AuditRow, JobRow
from assay_protocol.hashing import pack_tokens
from assay_simnet.setting import SECOND
from assay_simnet.trials import EXPERIENCED
from assay_simnet.workload import Workload
from assay_simnet.world import World

SMALL = Workload(max_tokens=24, own_tokens=8, system=())


def _history(seed: int, jobs: int = 6) -> World:
    world = World(seed)
    for _ in range(3):
        world.add_node(verified=EXPERIENCED)
    fresh, client = world.add_node(), world.add_client()
    world.idle(1)
    for _ in range(jobs):
        SMALL.ask(world, client, only=(fresh.key,))
    assert world.settle()
    return world


def _digest(world: World) -> str:
    rows = [repr(sorted(table.items())) for table in world.coordinator.tables.values()]
    answers = [pack_tokens(o.tokens) for client in world.clients.values() for o in client.outcomes]
    return hashlib.sha256("".join(sorted(rows)).encode() + b"".join(answers)).hexdigest()


def test_one_seed_is_one_history() -> None:
    one, again, other = _history(5), _history(5), _history(6)
    assert _digest(one) == _digest(again)
    assert one.now == again.now
    assert _digest(one) != _digest(other)


def test_jobs_are_answered_booked_and_audited() -> None:
    world = _history(7)
    [client] = world.clients.values()
    assert [outcome.error for outcome in client.outcomes] == [None] * 6
    rows = world.coordinator.rows(JobRow)
    assert [(row.state, row.verdict) for row in rows] == [("released", "passed")] * 6
    assert len(world.coordinator.rows(AuditRow)) >= 6
    world.coordinator.core.ledger.check()


def test_time_moves_from_event_to_event() -> None:
    world, seen = World(1), list[int]()
    begun = world.now
    world.after(2 * SECOND, lambda: seen.append(2))
    world.after(1 * SECOND, lambda: seen.append(1))
    world.after(2 * SECOND, lambda: seen.append(3))
    world.idle(1.5)
    assert (seen, world.now - begun) == ([1], 1_500_000)
    world.idle(1.5)
    assert (seen, world.now - begun) == ([1, 2, 3], 3_000_000)


def test_what_never_comes_is_given_up() -> None:
    world = World(1)
    assert not world.run(lambda: False, seconds_max=5)


@pytest.mark.parametrize("seed", [1, 2])
def test_an_answer_goes_on_where_its_node_vanished(seed: int) -> None:
    world = World(seed)
    nodes = [world.add_node(verified=EXPERIENCED, class_id="scripted/E") for _ in range(3)]
    client = world.add_client()
    world.idle(1)
    client.start((1, 2, 3), 60, Workload().sampler)
    world.run(lambda: any(node.jobs for node in nodes))
    world.idle(0.3)
    [busy] = [node for node in nodes if node.jobs]
    busy.leave()
    assert world.run(lambda: not client.running, seconds_max=200)
    [outcome] = client.outcomes
    assert outcome.error is None
    assert {one.node for one in outcome.segments} > {busy.key}
