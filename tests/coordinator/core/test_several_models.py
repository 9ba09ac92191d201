"""Nodes of several models: which of their jobs count against which room, and who is asked first."""

from __future__ import annotations

from dataclasses import replace

from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.registry import Node, Registry
from assay_coordinator.core.scheduler import Scheduler
from assay_protocol import messages as m
from coordinator.core.coordinator_world import (
    MODEL,
    POLICY,
    heartbeat,
    identity,
    registration,
    submission,
)

OTHER = b"o" * 32
STRICT = replace(POLICY, queue_per_slot=0)


def offers(slots: int = 4, others: int = 2) -> tuple[m.Offer, ...]:
    [plain] = registration(bytes(32)).offers
    return replace(plain, slots=slots), replace(plain, model=OTHER, slots=others)


def scheduler_of(*nodes: int, policy: Policy = STRICT) -> tuple[Scheduler, Registry, list[Node]]:
    registry = Registry(policy)
    keys = [identity(n).public_key for n in nodes]
    made = [registry.register(0, k, registration(bytes(32), offers=offers()), 10**9) for k in keys]
    return Scheduler(policy, registry, Entropy(bytes(32))), registry, made


def load(jobs: int, others: int, wait_ms: int = 0) -> m.Heartbeat:
    told = (
        m.ModelLoad(model=MODEL, jobs=jobs, wait_ms=0),
        m.ModelLoad(model=OTHER, jobs=others, wait_ms=wait_ms),
    )
    running = min(4, jobs + others)
    return heartbeat(
        running=running, waiting=jobs + others - running, free_slots=4 - running, models=told
    )


def picks(scheduler: Scheduler, model: bytes) -> bool:
    return scheduler.pick(0, submission(bytes(32), model=model)) is not None


def test_a_nodes_offers_share_its_slots() -> None:
    _, registry, [one] = scheduler_of(1)
    assert (one.slots, one.free_slots) == (4, 4)
    registry.heartbeat(one, load(0, 0), 10**9)
    assert one.free_slots == 4
    registry.leave(one)
    assert one.slots == 0


def test_a_job_is_not_refused_because_another_model_is_busy() -> None:
    scheduler, registry, [one] = scheduler_of(1)
    registry.heartbeat(one, load(jobs=4, others=0), 10**9)
    assert not picks(scheduler, MODEL)
    assert picks(scheduler, OTHER)
    registry.heartbeat(one, load(jobs=3, others=2), 10**9)
    assert picks(scheduler, MODEL)
    assert not picks(scheduler, OTHER)


def test_tickets_count_for_their_model_until_the_next_heartbeat() -> None:
    scheduler, registry, [one] = scheduler_of(1)
    one.issued[OTHER] += 2
    assert not picks(scheduler, OTHER)
    assert picks(scheduler, MODEL)
    assert one.load == 2
    registry.heartbeat(one, load(0, 0), 10**9)
    assert picks(scheduler, OTHER)


def test_a_booked_receipt_ends_its_job_before_the_next_heartbeat() -> None:
    scheduler, registry, [one] = scheduler_of(1)
    registry.heartbeat(one, load(jobs=2, others=2), 10**9)
    assert not picks(scheduler, OTHER)
    one.end(OTHER)
    assert picks(scheduler, OTHER)
    assert (one.load, one.load_of(MODEL), one.load_of(OTHER)) == (3, 2, 1)
    for _ in range(4):  # of jobs the heartbeat did not count any more
        one.end(OTHER)
    assert (one.load, one.load_of(MODEL), one.load_of(OTHER)) == (2, 2, 0)
    registry.heartbeat(one, load(0, 2), 10**9)
    assert (one.load, one.load_of(OTHER)) == (2, 2)


def test_receipts_of_an_earlier_session_make_no_room_for_more_than_there_is() -> None:
    """A node comes back, brings hundreds of receipts, and is given tickets before it tells its
    load again."""
    _, registry, [one] = scheduler_of(1)
    registry.heartbeat(one, load(0, 0), 10**9)
    for _ in range(300):
        one.end(MODEL)
    one.issued[MODEL] += 3
    assert (one.load, one.load_of(MODEL)) == (3, 3)
    registry.heartbeat(one, heartbeat(running=0), 10**9)  # and does not tell its models apart
    one.end(MODEL)
    one.issued[OTHER] += 1
    assert (one.load, one.load_of(MODEL)) == (1, 1)


def test_a_node_that_does_not_tell_its_models_apart_is_held_to_all_its_jobs() -> None:
    scheduler, registry, [one] = scheduler_of(1)
    registry.heartbeat(one, heartbeat(running=2), 10**9)
    assert picks(scheduler, MODEL)
    assert not picks(scheduler, OTHER)


def test_who_has_the_model_loaded_or_fewer_jobs_of_any_model_is_asked_first() -> None:
    scheduler, registry, [one, two] = scheduler_of(1, 2, policy=POLICY)
    job = submission(bytes(32), model=OTHER)
    registry.heartbeat(one, load(0, 0, wait_ms=60_000), 10**9)
    registry.heartbeat(two, load(1, 0), 10**9)
    assert all(scheduler.pick(0, job) is two for _ in range(9))
    registry.heartbeat(one, load(0, 0), 10**9)
    assert all(scheduler.pick(0, job) is one for _ in range(9))


def test_models_a_node_does_not_offer_change_nothing() -> None:
    scheduler, registry, [one] = scheduler_of(1)
    strange = m.ModelLoad(model=bytes(32), jobs=1 << 31, wait_ms=1 << 31)
    registry.heartbeat(one, replace(load(0, 0), models=(strange,)), 10**9)
    assert picks(scheduler, MODEL)
    assert one.load == 0
