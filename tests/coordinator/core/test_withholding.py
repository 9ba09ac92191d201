"""Whoever shows nothing of a drawn job must not get away cheaper than who shows a lie."""

from __future__ import annotations

from dataclasses import replace

from assay_protocol import messages as m
from coordinator.core.coordinator_checks import check_all
from coordinator.core.coordinator_world import (
    POLICY,
    SECOND,
    Issued,
    World,
    identity,
    node,
)

CLIENT = identity(50)
RARE = replace(POLICY, round_us=5 * SECOND, probation_audits=0, audit_bps_min=0, holdback_jobs=9)


def _with_pay_held_back(count: int) -> tuple[World, list[Issued]]:
    """A node with so many answers whose pay is held back, none of them drawn."""
    world = World(RARE, (node(10), node(11)))
    world.grant(CLIENT.public_key)
    key = node(10).key
    held = [world.run_job(CLIENT, only=(key,)) for _ in range(count)]
    world.pass_time(8)
    assert {world.job(one).state for one in held} == {"held"}
    return world, held


def test_one_lost_transcript_has_all_audited_that_is_held_back() -> None:
    world, held = _with_pay_held_back(4)
    executor = world.nodes[node(10).key]
    executor.loses = True
    lost = world.run_job(CLIENT, only=(executor.key,), verify="now")
    world.pass_time(20)
    assert world.job(lost).verdict == "withheld"
    assert {world.job(one).verdict for one in held} == {"withheld"}
    assert world.balance("escrow", executor.key) == 0
    assert world.balance("earned", executor.key) == 0
    check_all(world)


def test_what_can_still_be_shown_is_paid() -> None:
    world, held = _with_pay_held_back(4)
    executor = world.nodes[node(10).key]
    asked = world.ask(CLIENT, only=(executor.key,), verify="now")
    assert isinstance(asked, Issued)
    world.serve(asked)
    del executor.served[asked.ticket.ticket]
    world.hand_in(asked)
    world.pass_time(30)
    assert world.job(asked).verdict == "withheld"
    assert {world.job(one).verdict for one in held} == {"passed"}
    assert world.row(executor).state != "convicted"
    check_all(world)


def test_the_auditor_is_told_that_nothing_comes() -> None:
    world, _ = _with_pay_held_back(1)
    executor, auditor = world.nodes[node(10).key], world.nodes[node(11).key]
    executor.loses = True
    asked = world.ask(CLIENT, only=(executor.key,), verify="now")
    assert isinstance(asked, Issued)
    world.serve(asked)
    world.hand_in(asked)
    told: list[object] = []
    while world.wire:
        peer, message = world.wire[0]
        told += [message] if peer == auditor.key else []
        world.deliver()
    assert [one.code for one in told if isinstance(one, m.AuditDecline)][:1] == ["cancelled"]
