"""Jobs under a table of honest noise: named in tickets and receipts, and binding."""

from __future__ import annotations

from dataclasses import replace

from assay_coordinator.core.calibration import BUILT_IN, Table, Tables
from assay_coordinator.core.standing import IDLE_US
from assay_protocol import messages as m
from assay_protocol.signing import peek
from coordinator.core.coordinator_checks import check_all
from coordinator.core.coordinator_world import (
    MODEL,
    POLICY,
    SECOND,
    Issued,
    World,
    heartbeat,
    identity,
    node,
)

CLIENT = identity(50)
ANY = BUILT_IN.calibration.pairs[0]


def tables(version: int, *pairs: m.PairNoise) -> Tables:
    return Tables([Table(m.Calibration(version=version, fitted_at=0, pairs=(*pairs, ANY)))])


def test_tickets_and_receipts_name_the_newest_table() -> None:
    a, b = node(10), node(11)
    world = World(POLICY, [a, b], tables(7))
    world.grant(CLIENT.public_key)
    held = world.run_job(CLIENT, only=(a.key,))
    assert held.ticket.calibration == 7
    assert peek(m.Receipt, held.receipt).calibration == 7
    assert world.job(held).verdict == "passed"
    plain = World(POLICY, [a, b])
    plain.grant(CLIENT.public_key)
    assert plain.run_job(CLIENT, only=(a.key,)).ticket.calibration is None


def test_a_receipt_under_a_table_that_is_gone_is_not_judged() -> None:
    a, b = node(10, wrong=0.9), node(11)
    world = World(POLICY, [a, b], tables(7))
    world.grant(CLIENT.public_key)
    held = world.ask(CLIENT, only=(a.key,))
    assert isinstance(held, Issued)
    world.tables = tables(8)
    world.crash()
    world.join(a)
    world.join(b)
    world.serve(held)
    world.hand_in(held)
    world.settle()
    world.pass_time(2)
    assert world.job(held).verdict == "unaudited"
    assert not b.tasks
    assert (world.row(a).disproved, world.row(a).failed) == (0, 0)
    check_all(world)


def test_a_noisy_class_cannot_register() -> None:
    loud = replace(ANY, model=MODEL, executor="loud/F", refused=True)
    world = World(POLICY, (), tables(1, loud))
    refused = world.join(node(10), class_id="loud/F")
    assert (refused.code, "noisy" in refused.detail) == ("class_refused", True)
    assert isinstance(world.join(node(10), class_id="calm/F"), m.Registered)


def test_a_wide_table_makes_the_same_drift_good_and_a_narrow_one_wrong() -> None:
    narrow = replace(ANY, model=MODEL, drift=1_000, leaf_sd=100, job_sd=100)
    for table, outcome in ((None, "passed"), (tables(1, narrow), "failed")):
        a, b, c = node(10, noise=1.0), node(11, noise=0.0), node(12, noise=0.0)
        world = World(POLICY, [a, b, c], table)
        world.grant(CLIENT.public_key)
        held = world.run_job(CLIENT, max_tokens=96, only=(a.key,))
        assert world.job(held).verdict == outcome


def test_a_record_fades_while_a_node_only_beats() -> None:
    a, b = node(10), node(11)
    world = World(POLICY, [a, b])
    world.grant(CLIENT.public_key)
    while world.row(a).verified < 8:
        world.run_job(CLIENT, only=(a.key,))
    passed = world.row(a).verified
    world.now += IDLE_US + SECOND
    world.join(a)
    assert world.row(a).verified == passed // 2
    registered = world.coordinator.registry.nodes[a.key]
    registered.lease_until = world.now + 2 * IDLE_US
    world.now += IDLE_US
    world.call(a.key, heartbeat())
    assert world.row(a).verified == passed // 4
    assert world.row(a).state == "probation"
