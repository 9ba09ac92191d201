"""What an inquiry looks at: what is at risk, and not what its node booked last."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.recalled import drawn_by_price
from assay_coordinator.core.registry import Node
from assay_protocol import messages as m
from coordinator.core.coordinator_checks import check_all
from coordinator.core.coordinator_world import (
    OPERATOR,
    POLICY,
    ScriptedNode,
    World,
    identity,
    node,
)

CLIENT, FRIEND = identity(50), identity(51)
DEAR, TINY = {"max_tokens": 96}, {"n_in": 1, "max_tokens": 1}  # 200 and 3 micro-credits


def random_bytes(place: int, seed: int = 0) -> bytes:
    return hashlib.blake2b(place.to_bytes(4) + seed.to_bytes(4), digest_size=32).digest()


def world_of(recalled: int, verified: int) -> tuple[World, Node, ScriptedNode]:
    """A node past probation with so many passed audits; an inquiry recalls so many jobs of it."""
    first = node(10)
    policy = replace(POLICY, holdback_jobs=60, inquiry_jobs_max=recalled)
    world = World(policy, (first, node(11), node(12)))
    for client in (CLIENT, FRIEND):
        world.grant(client.public_key)
    while world.row(first).state != "active":
        world.run_job(CLIENT, only=(first.key,), **DEAR)
    known = world.coordinator.registry.nodes[first.key]
    known.row = replace(known.row, verified=verified)
    return world, known, first


@given(prices=st.lists(st.integers(0, 10**12), max_size=40), most=st.integers(0, 50))
def test_it_takes_as_many_as_it_may_in_their_order(prices: list[int], most: int) -> None:
    jobs = [(place, price, random_bytes(place)) for place, price in enumerate(prices)]
    taken = drawn_by_price(jobs, most)
    assert len(taken) == min(most, len(prices))
    assert taken == sorted(set(taken))


def test_a_job_is_taken_as_often_as_its_price_says() -> None:
    """One of two is taken: that of three times the price three times as often."""
    draws = range(4_000)
    each = [
        drawn_by_price([(0, 3, random_bytes(0, seed)), (1, 1, random_bytes(1, seed))], 1)
        for seed in draws
    ]
    dear = sum(taken == [0] for taken in each)
    assert 0.72 < dear / len(draws) < 0.78


def test_tiny_jobs_shield_nothing() -> None:
    """Sixty cheated jobs of 200 micro-credits behind two thousand of 3: they are 2 in 3 of the
    worth, and of 64 that are taken most, where the 64 newest hold none."""
    jobs = [(place, 200 if place < 60 else 3, random_bytes(place)) for place in range(2_060)]
    assert sum(place < 60 for place in drawn_by_price(jobs, 64)) > 35


def test_jobs_of_its_own_hide_no_cheat_from_an_inquiry() -> None:
    """It learns that a cheated answer is drawn, and books tiny honest ones for a friend before the
    verdict falls."""
    world, known, a = world_of(recalled=8, verified=400)
    a.wrong, world.chain_up = 0.3, False
    spent = world.balance("available", CLIENT.public_key)
    for _ in range(8):
        world.run_job(CLIENT, only=(a.key,), **DEAR)
    a.wrong = 0.0
    for _ in range(16):
        world.run_job(FRIEND, only=(a.key,), **TINY)
    world.carry_out(world.coordinator.settlement.inquiries.begin(world.now, known, "alarm"))
    world.pass_time(20)
    assert world.row(a).state == "convicted"
    assert world.balance("available", CLIENT.public_key) == spent, "its client has all of it back"
    check_all(world)


def test_no_draw_pays_anything_out_while_an_inquiry_is_on() -> None:
    """A dear job of a friend's, drawn meanwhile and not hit, would make all that is held due."""
    world, known, a = world_of(recalled=1, verified=10**6)
    held = [world.run_job(CLIENT, only=(a.key,), **TINY) for _ in range(12)]
    held = [one for one in held if world.job(one).state == "held"]
    assert len(held) > 6
    world.chain_up = False
    dear = [world.run_job(FRIEND, only=(a.key,), n_in=1_000, max_tokens=96) for _ in range(3)]
    world.carry_out(world.coordinator.settlement.inquiries.begin(world.now, known, "alarm"))
    before = {one.ticket.ticket for one in held if world.job(one).state == "held"}
    world.chain_up = True
    world.mine()
    assert world.row(a).state == "inquiry"
    assert "held" in {world.job(one).state for one in dear}, "one was drawn and not hit"
    assert {one.ticket.ticket for one in held if world.job(one).state == "held"} == before
    world.settle()
    assert world.row(a).state == "suspended"
    for _ in range(POLICY.holdback_epochs + 1):
        world.call(OPERATOR.public_key, m.CloseEpoch())
    assert world.balance("escrow", a.key) == 0, "an honest node has it all in the end"
    check_all(world)
