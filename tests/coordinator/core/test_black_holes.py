"""A node that promises everything and answers nobody is not everybody's first choice for long."""

from __future__ import annotations

from dataclasses import replace

from assay_protocol import messages as m
from coordinator.core.coordinator_world import (
    MODEL,
    POLICY,
    SECOND,
    Issued,
    ScriptedNode,
    World,
    heartbeat,
    identity,
    node,
)

CLIENT = identity(50)
RATE_MAX = (1 << 31) - 1
HONEST, HOLE = node(10), node(11)


def world_with_a_hole() -> World:
    """One honest node, and one that says it is as fast and wide as can be written down."""
    world = World(replace(POLICY, open_tickets_max=4_096), (HONEST,))
    hole_joins(world)
    world.grant(CLIENT.public_key)
    return world


def hole_joins(world: World) -> None:
    offer = m.Offer(
        model=MODEL, class_id="pseudo", slots=4_096, context=1 << 30,
        prefill_rate=RATE_MAX, decode_rate=RATE_MAX,
    )  # fmt: skip
    told = world.join(HOLE, offers=(offer,))
    assert isinstance(told, m.Registered), told


def asked(world: World, **more: object) -> Issued:
    held = world.ask(CLIENT, **more)
    assert isinstance(held, Issued), held
    return held


def booked(world: World, held: Issued) -> None:
    world.serve(held)
    assert isinstance(world.hand_in(held), m.ReceiptBooked)


def given_up(world: World, held: Issued) -> None:
    told = world.call(held.client.public_key, m.AbandonJob(ticket=held.ticket.ticket))
    assert isinstance(told, m.Done), told


def alive(world: World, *nodes: ScriptedNode) -> None:
    for one in nodes:
        assert isinstance(world.call(one.key, heartbeat(free_slots=64)), m.HeartbeatAck)


def lost_of(world: World, jobs: int) -> int:
    """Of so many jobs, those that went to the hole first; each goes to the other node then."""
    lost = 0
    for _ in range(jobs):
        held = asked(world)
        if held.ticket.node == HOLE.key:
            lost += 1
            given_up(world, held)
            held = asked(world, exclude=(HOLE.key,))
        assert held.ticket.node == HONEST.key
        booked(world, held)
        alive(world, HONEST, HOLE)
    return lost


def test_after_a_few_jobs_it_comes_last_and_is_tried_again_later() -> None:
    world = world_with_a_hole()
    assert lost_of(world, 40) == POLICY.lost_max
    hole_joins(world)  # a new session forgets nothing
    assert lost_of(world, 40) == 0
    world.now += POLICY.doubt_us
    world.join(HONEST)
    hole_joins(world)
    assert lost_of(world, 40) == POLICY.lost_max


def test_who_is_doubted_serves_where_nobody_else_can() -> None:
    world = world_with_a_hole()
    lost_of(world, 20)
    assert asked(world, only=(HOLE.key,)).ticket.node == HOLE.key
    world.lose(HONEST)
    world.now += POLICY.lease_us - SECOND
    alive(world, HOLE)
    world.now += 2 * SECOND
    assert asked(world).ticket.node == HOLE.key


def test_a_client_that_names_a_node_cannot_make_others_doubt_it() -> None:
    world = world_with_a_hole()
    for more in ({"only": (HONEST.key,)}, {"exclude": (HOLE.key,)}):
        for _ in range(2 * POLICY.lost_max):
            given_up(world, asked(world, **more))
    assert world.coordinator.registry.nodes[HONEST.key].lost == 0


def test_one_answer_and_the_count_begins_anew() -> None:
    world = world_with_a_hole()
    for _ in range(3 * POLICY.lost_max):
        for _ in range(POLICY.lost_max - 1):
            held = asked(world)
            assert held.ticket.node == HOLE.key
            given_up(world, held)
        booked(world, asked(world))
        alive(world, HONEST, HOLE)
    assert world.coordinator.registry.nodes[HOLE.key].doubted_until == 0
