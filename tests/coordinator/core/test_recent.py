"""What speaks for a node: what it has in escrow of late, and nothing that may be out by now."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.recent import RecentPay
from assay_coordinator.core.records import JobRow
from coordinator.core.coordinator_checks import check_all, check_restart
from coordinator.core.coordinator_world import POLICY, SECOND, World, identity, node

OWNER, STRANGER = identity(50), identity(51)
AGE = 1_800 * SECOND


@given(
    prices=st.lists(st.integers(0, 10**9), max_size=40),
    settled=st.sets(st.integers(0, 39)),
    age=st.integers(0, 50),
)
def test_it_is_the_sum_of_what_is_unpaid_and_young(
    prices: list[int], settled: set[int], age: int
) -> None:
    recent, plain = RecentPay(), dict[int, int]()
    for place, price in enumerate(prices):
        recent.add(place.to_bytes(4), price, place)
        plain[place] = price
        if place in settled:
            recent.remove((place // 2).to_bytes(4))
            plain.pop(place // 2, None)
        plain = {at: one for at, one in plain.items() if place - at < age}
        assert recent.value(place, age) == sum(plain.values())
        assert len(recent) == len(plain)
        recent.remove(b"none")


NODE = node(10)


def held_world() -> World:
    """A node with a long record, whose jobs are drawn as its escrow says."""
    policy = replace(POLICY, probation_audits=0, audit_bps_min=100, gain_bps=8_000)
    policy = replace(policy, holdback_us=2 * AGE, holdback_jobs=60, vouching_us=AGE)
    world = World(policy, (NODE,))
    for client in (OWNER, STRANGER):
        world.grant(client.public_key)
    return world


def rate(job: JobRow) -> float:
    return job.numerator / job.denominator


def test_what_an_owner_put_there_once_does_not_vouch_for_the_whole_time_it_is_held() -> None:
    world = held_world()
    world.chain_up = False
    alone = rate(world.job(world.run_job(STRANGER)))
    for _ in range(30):
        world.run_job(OWNER)
    low = rate(world.job(world.run_job(STRANGER)))
    assert low < alone / 20
    check_restart(world)
    world.join(NODE)
    assert rate(world.job(world.run_job(STRANGER))) < alone / 20, "a restart forgets none of it"
    world.now += AGE
    world.join(NODE)
    again = world.job(world.run_job(STRANGER))
    assert world.balance("escrow", NODE.key) > 30 * again.charged, "all of it is still there"
    assert rate(again) > alone / 3
    check_all(world)


def test_no_sum_of_an_owners_own_jobs_frees_a_strangers_pay_before_its_time() -> None:
    world = held_world()
    mine = world.run_job(STRANGER)
    while world.job(mine).state != "held":
        mine = world.run_job(STRANGER)
    for _ in range(120):
        world.run_job(OWNER)
    assert world.job(mine).state == "held"
    world.now = world.job(mine).booked_at + 2 * AGE
    world.join(NODE)
    for _ in range(5):
        world.run_job(OWNER)
    assert world.job(mine).state == "released"
    assert world.job(mine).verdict == "undrawn"
    check_all(world)
