"""Alarms: nobody is convicted by one, and what a node had in escrow decides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay_coordinator.core.events import Tick
from assay_coordinator.core.evidence import ALARM, ALTERNATIVES, pack
from assay_coordinator.core.records import AuditRow, VerdictRow
from assay_protocol import messages as m
from assay_protocol.codec import decode_as
from coordinator.core.coordinator_checks import check_all, check_restart
from coordinator.core.coordinator_world import (
    OPERATOR,
    POLICY,
    SECOND,
    SUSPENSION_US,
    Issued,
    ScriptedNode,
    World,
    identity,
    node,
)

CLIENT = identity(50)


def proven_world(*nodes: ScriptedNode, held: int = 3, **policy: int) -> World:
    """The first node is past probation and has `held` jobs whose pay is held back."""
    world = World(replace(POLICY, **policy), nodes)  # type: ignore[arg-type]  # all are integers
    world.grant(CLIENT.public_key)
    first = nodes[0]
    while world.row(first).verified < 16 or len(_held(world, first)) < held:
        world.run_job(CLIENT, max_tokens=96, only=(first.key,))
    return world


def _held(world: World, one: ScriptedNode) -> list[bytes]:
    jobs = world.coordinator.jobs.unpaid(one.key)
    return [job.ticket.ticket for job in jobs if job.state == "held"]


def alarm(world: World, one: ScriptedNode) -> None:
    """Evidence just below the alarm: the next doubtful audit raises it."""
    known = world.coordinator.registry.nodes[one.key]
    levels = pack((ALARM - 1,) * ALTERNATIVES)
    known.row = replace(known.row, detectors=levels, evidence=ALARM - 1)


def raise_alarm(world: World, one: ScriptedNode) -> None:
    node_now = world.coordinator.registry.nodes[one.key]
    world.carry_out(world.coordinator.settlement.inquiries.begin(world.now, node_now, "alarm"))


def test_an_honest_node_survives_an_alarm_with_its_pay() -> None:
    a, b, c = node(10), node(11), node(12)
    world = proven_world(a, b, c)
    escrow = world.balance("escrow", a.key)
    raise_alarm(world, a)
    assert world.row(a).state == "inquiry"
    assert isinstance(world.ask(CLIENT, only=(a.key,)), m.Error), "no jobs meanwhile"
    assert not _held(world, a)
    world.pass_time(10)
    assert world.row(a).state == "suspended"
    assert world.row(a).verified == world.row(a).disproved == 0
    assert world.balance("escrow", a.key) == 0
    assert world.balance("earned", a.key) >= escrow, "what it held was found right and paid"
    by_ticket: dict[bytes, int] = {}
    for row in world.store.rows(AuditRow):
        by_ticket[row.ticket] = by_ticket.get(row.ticket, 0) + 1
    assert sorted(by_ticket.values())[-3:] == [2, 2, 2], "each by two auditors"
    check_all(world)
    world.pass_time(SUSPENSION_US / SECOND + 1, step=10)
    assert world.row(a).state == "probation"
    assert world.job(world.run_job(CLIENT, only=(a.key,))).verdict == "passed"


def test_a_cheat_under_inquiry_is_convicted_by_what_it_had_in_escrow() -> None:
    a, b, c = node(10), node(11), node(12)
    world = proven_world(a, b, c, held=0, holdback_jobs=20)
    a.wrong = 0.3
    spent = world.balance("available", CLIENT.public_key)
    while world.row(a).state == "active":
        world.run_job(CLIENT, max_tokens=96, only=(a.key,))
    world.pass_time(20)
    assert world.row(a).state == "convicted"
    assert world.balance("escrow", a.key) == 0
    assert world.balance("available", CLIENT.public_key) >= spent, "all of it was given back"
    check_all(world)


def test_a_job_that_fails_in_its_exact_class_does_not_convict() -> None:
    """A bit of its memory flips in one job: it is refunded, looked into, and suspended."""
    a, b, c = (node(i, class_id="x/E", noise=0.0) for i in (10, 11, 12))
    world = World(POLICY)
    for one in (a, b, c):
        world.join(one, class_id="x/E")
    world.grant(CLIENT.public_key)
    for _ in range(3):
        assert world.job(world.run_job(CLIENT, only=(a.key,))).verdict == "passed"
    assert world.row(a).exact == 3
    a.flips = frozenset({3})
    held = world.run_job(CLIENT, only=(a.key,))
    assert (world.job(held).state, world.job(held).verdict) == ("refunded", "unequal")
    row = world.row(a)
    assert (row.state, row.disproved, row.exact) == ("suspended", 0, 0)
    assert {world.row(one).outvoted for one in (b, c)} == {0}
    world.pass_time(SUSPENSION_US / SECOND + 1, step=10)
    assert world.job(world.run_job(CLIENT, only=(a.key,))).verdict == "passed"
    check_all(world)


def test_one_word_of_the_class_against_others_suspends_nobody() -> None:
    """A griefer claims the executor's class and other bits; two of other classes find it right."""
    a = node(10, class_id="x/E", noise=0.0)
    griefer = node(11, class_id="x/E", noise=0.01)
    b, c = node(12), node(13)
    world = World(replace(POLICY, probation_audits=100))
    for one in (a, griefer, b, c):
        world.join(one, class_id=one.class_id)
    world.grant(CLIENT.public_key)
    for _ in range(12):
        assert world.job(world.run_job(CLIENT, only=(a.key,))).verdict == "passed"
    assert griefer.tasks, "it was asked"
    assert world.row(a).state == "probation"
    assert world.row(a).disproved == 0
    check_all(world)


def test_an_alarm_comes_from_many_words_and_begins_an_inquiry() -> None:
    a, b, c = node(10), node(11), node(12)
    world = proven_world(a, b, c, held=0)
    alarm(world, a)
    passed = world.row(a).verified
    while world.row(a).verified == passed:
        world.run_job(CLIENT, max_tokens=96, only=(a.key,))
    assert world.row(a).state == "active", "an honest audit lowers it"
    assert world.row(a).evidence < ALARM - 1


def test_an_inquiry_goes_on_after_a_restart_and_ends() -> None:
    a, b, c = node(10), node(11), node(12)
    for steps in (0, 3, 9):
        world = proven_world(a, b, c)
        raise_alarm(world, a)
        for _ in range(steps):
            if world.wire:
                world.deliver()
        check_restart(world)
        for one in (a, b, c):
            world.join(one)
        world.pass_time(30)
        assert world.row(a).state == "suspended"
        check_restart(world)
        for one in (a, b, c):
            world.join(one)
        world.pass_time(SUSPENSION_US / SECOND + 1, step=10)
        assert world.row(a).state == "probation", "the pause is remembered"
        check_all(world)


def test_with_nobody_to_ask_an_inquiry_ends_and_convicts_nobody() -> None:
    a, b = node(10), node(11)
    world = proven_world(a, b)
    world.lose(b)
    world.nodes.pop(b.key)
    raise_alarm(world, a)
    world.pass_time(POLICY.inquiry_us / SECOND + 2, step=10)
    assert world.row(a).state in ("suspended", "probation")
    assert world.row(a).disproved == 0
    check_all(world)


def test_only_so_many_are_audited_and_the_rest_stays_held() -> None:
    a, b, c = node(10), node(11), node(12)
    world = proven_world(a, b, c, inquiry_jobs_max=2)
    held = _held(world, a)
    raise_alarm(world, a)
    left = _held(world, a)
    assert len(left) == len(held) - 2
    assert left == [ticket for ticket in held if ticket in left]
    for _ in range(POLICY.holdback_epochs + 1):
        world.call(OPERATOR.public_key, m.CloseEpoch())
    assert _held(world, a) == left, "no epoch pays it during the inquiry"
    world.settle()
    assert world.row(a).state == "suspended"
    check_all(world)


def test_receipts_that_come_during_an_inquiry_are_audited_too() -> None:
    a, b, c = node(10), node(11), node(12)
    world = proven_world(a, b, c)
    late = world.ask(CLIENT, only=(a.key,))
    assert isinstance(late, Issued)
    world.serve(late)
    raise_alarm(world, a)
    world.hand_in(late)
    assert world.job(late).state == "drawn"
    world.pass_time(10)
    assert world.job(late).verdict == "passed"
    assert world.row(a).state == "suspended"


def test_a_verdict_keeps_all_it_rests_on() -> None:
    a, b, c = node(10, wrong=0.6), node(11), node(12)
    world = World(POLICY, [a, b, c])
    world.grant(CLIENT.public_key)
    held = world.run_job(CLIENT, max_tokens=96, only=(a.key,))
    row = world.store.tables[VerdictRow][(held.ticket.ticket,)]
    record = decode_as(m.VerdictRecord, row.blob)
    assert (row.outcome, record.outcome) == ("failed", "failed")
    assert (record.ticket, record.receipt) == (held.blob, held.receipt)
    assert record.opened is not None
    assert {said.auditor for said in record.findings} == {b.key, c.key}
    assert all(said.class_id == "pseudo" for said in record.findings)
    for said in record.findings:
        assert said.reveal in {_encoded(one, said.reveal) for one in (b, c)}


def _encoded(one: ScriptedNode, blob: bytes) -> bytes:
    told = decode_as(m.AuditReveal, blob)
    return blob if one.reveals.get(told.audit) == told else b""


@pytest.mark.parametrize("wrong", [0.0, 0.6])
def test_ticks_do_not_hurry_an_inquiry(wrong: float) -> None:
    a, b, c = node(10, wrong=wrong), node(11), node(12)
    world = World(POLICY, [a, b, c])
    world.grant(CLIENT.public_key)
    world.run_job(CLIENT, max_tokens=96, only=(a.key,))
    for _ in range(5):
        world.handle(Tick())
    assert world.row(a).state == ("suspended" if wrong else "probation")
