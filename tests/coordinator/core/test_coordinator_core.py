"""Directed cases of assignment, money and epochs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from assay_coordinator.core.coordinator import NODES_SHOWN_MAX
from assay_coordinator.core.entropy import Entropy
from assay_coordinator.core.events import BlockToVote, CountVote, PeerLost, Received, Save, Tick
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import JobRow, PostingRow
from assay_coordinator.core.registry import Registry
from assay_coordinator.core.scheduler import Scheduler, expected_us
from assay_protocol import limits
from assay_protocol import messages as m
from assay_protocol.codec import encode
from assay_protocol.lottery import is_drawn
from assay_protocol.signing import seal
from assay_protocol.splits import COMPUTE
from coordinator.core.coordinator_checks import check_all, check_restart
from coordinator.core.coordinator_world import (
    MODEL,
    OPERATOR,
    POLICY,
    SECOND,
    Issued,
    ScriptedNode,
    World,
    heartbeat,
    identity,
    node,
    registration,
    submission,
)

CLIENT = identity(50)
PROVEN = replace(POLICY, probation_audits=0, audit_bps_min=0)  # nothing is ever drawn


def world_of(*nodes: ScriptedNode, policy: Policy = POLICY) -> World:
    world = World(policy, nodes)
    world.grant(CLIENT.public_key)
    return world


def code(answer: object) -> str:
    assert isinstance(answer, m.Error), answer
    return answer.code


def ask(world: World, **changes: Any) -> Issued:
    held = world.ask(CLIENT, **changes)
    assert isinstance(held, Issued), held
    return held


# ---- assignment ----


def test_constraints_on_the_node() -> None:
    a, b = node(10), node(11)
    world = world_of(a, b)
    assert ask(world, only=(b.key,)).ticket.node == b.key
    assert ask(world, exclude=(b.key,)).ticket.node == a.key
    assert code(world.ask(CLIENT, exclude=(a.key, b.key))) == "no_capacity"
    assert code(world.ask(CLIENT, only=(identity(9).public_key,))) == "no_capacity"
    world.join(b, context=100)
    assert ask(world, n_in=80, max_tokens=30).ticket.node == a.key
    assert code(world.ask(CLIENT, n_in=8_000, max_tokens=300)) == "prompt_too_long"
    assert code(world.ask(CLIENT, model=bytes(32))) == "model_unknown"
    sampler = m.Sampler(temperature=float("nan"), top_k=0, top_p=1.0, min_p=0.0)
    assert code(world.ask(CLIENT, sampler=sampler)) == "sampler_refused"


def test_who_drains_is_away_or_full_gets_no_job() -> None:
    a, b = node(10), node(11)
    world = world_of(a, b)
    world.call(a.key, heartbeat(draining=True))
    assert {ask(world).ticket.node for _ in range(5)} == {b.key}
    world.call(b.key, heartbeat(running=64 * (1 + POLICY.queue_per_slot)))
    assert code(world.ask(CLIENT)) == "no_capacity"
    world.call(b.key, heartbeat())
    world.handle(PeerLost(b.key))
    assert code(world.ask(CLIENT)) == "no_capacity"
    assert code(world.call(b.key, heartbeat())) == "not_registered"
    world.call(a.key, heartbeat())
    ask(world)
    world.now += POLICY.lease_us
    assert code(world.ask(CLIENT)) == "no_capacity"


def test_tickets_count_as_load_until_the_next_heartbeat() -> None:
    a = node(10)
    world = World(replace(POLICY, queue_per_slot=0), [])
    world.grant(CLIENT.public_key)
    world.join(a, slots=2)
    ask(world)
    ask(world)
    assert code(world.ask(CLIENT)) == "no_capacity"
    world.call(a.key, heartbeat())
    ask(world)


def test_a_booked_receipt_makes_room_at_once_and_once() -> None:
    """Short answers end long before the next heartbeat: their machines must not wait for it."""
    a = node(10)
    world = World(replace(POLICY, queue_per_slot=0), [])
    world.grant(CLIENT.public_key)
    world.join(a, slots=2)
    held = ask(world)
    ask(world)
    world.serve(held)
    for by_client in (False, True, False):  # the same receipt three times is one job
        assert isinstance(world.hand_in(held, by_client), m.ReceiptBooked)
    ask(world)
    assert code(world.ask(CLIENT)) == "no_capacity"


@pytest.mark.parametrize("count", [3, 40])
def test_equal_nodes_share_the_jobs(count: int) -> None:
    policy = replace(POLICY, queue_per_slot=1_000)
    registry = Registry(policy)
    for i in range(count):
        registry.register(0, identity(i).public_key, registration(bytes(32)), 10**9)
    scheduler = Scheduler(policy, registry, Entropy(bytes(32)))
    taken: Counter[bytes] = Counter()
    for _ in range(100 * count):
        picked = scheduler.pick(0, submission(bytes(32)))
        assert picked is not None
        taken[picked.key] += 1
    assert len(taken) == count
    assert max(taken.values()) < 200


def test_the_faster_and_the_less_loaded_node_is_better() -> None:
    job = submission(bytes(32))
    slow = registration(bytes(32)).offers[0]
    fast = registration(bytes(32), decode_rate=100_000).offers[0]
    assert expected_us(job, fast, 0) < expected_us(job, slow, 0) < expected_us(job, slow, 9)
    assert expected_us(job, registration(bytes(32), decode_rate=0).offers[0], 0) > 0


# ---- money ----


def test_without_credit_nothing_is_issued() -> None:
    world = World(POLICY, [node(10)])
    assert code(world.ask(CLIENT)) == "insufficient_credit"
    world.grant(CLIENT.public_key, 72)
    ask(world)
    assert code(world.ask(CLIENT)) == "insufficient_credit"
    check_all(world)


@pytest.mark.parametrize("changes", [{"max_tokens": 2_000}, {"model": bytes(32)}, {}])
def test_the_faucet_gives_once_and_keeps_its_rows_when_the_job_is_refused(
    changes: dict[str, Any],
) -> None:
    world = World(replace(POLICY, faucet=100), [node(10)])
    world.ask(CLIENT, **changes)
    check_all(world)
    world.call(CLIENT.public_key, m.GetAccount())
    check_restart(world)
    account = world.call(CLIENT.public_key, m.GetAccount())
    assert account.available + account.reserved == 100
    assert [p.reason for p in world.store.rows(PostingRow)].count("faucet") == 1


def test_earned_credit_can_be_spent_and_stays_counted() -> None:
    a, b = node(10), node(11)
    world = world_of(a, b)
    for _ in range(3):
        world.run_job(CLIENT, only=(a.key,))
    earned = world.balance("earned", a.key)
    held = world.ask(a.me, only=(b.key,))
    assert isinstance(held, Issued)
    assert world.balance("earned", a.key) == earned - 72
    assert world.coordinator.ledger.credit[a.key, COMPUTE].cumulative == earned
    check_all(world)


def test_what_the_client_did_not_acknowledge_is_not_paid_beyond_the_window() -> None:
    a = node(10)
    world = world_of(a, policy=PROVEN)
    held = ask(world, max_tokens=200)
    world.serve(held)
    answer = world.call(a.key, m.SubmitReceipt(receipt=held.receipt))
    assert answer.charged == 8 + 2 * limits.UNACKED_TOKENS_MAX
    assert world.hand_in(held, by_client=True) == answer, "booked is booked"
    other = ask(world, max_tokens=200)
    world.serve(other)
    wrong = m.SubmitReceipt(receipt=other.receipt, ack=held.ack)
    assert code(world.call(a.key, wrong)) == "receipt_mismatch"
    assert world.hand_in(other, by_client=True).charged == 8 + 2 * 200


def test_a_ticket_given_up_waits_a_little_for_its_receipt() -> None:
    a = node(10)
    world = world_of(a, policy=PROVEN)
    first, second = ask(world), ask(world)
    for held in (first, second):
        for _ in range(50):
            world.call(CLIENT.public_key, m.AbandonJob(ticket=held.ticket.ticket))
            world.now += 1
    assert len(world.coordinator.jobs._deadlines) <= 4, "asking again keeps nothing"
    world.serve(first)
    assert isinstance(world.hand_in(first), m.ReceiptBooked)
    world.now += POLICY.abandon_grace_us
    world.handle(Tick())
    assert world.job(second).state == "expired"
    world.serve(second)
    assert code(world.hand_in(second)) == "ticket_expired"
    check_restart(world)
    assert code(world.hand_in(second)) == "ticket_expired"
    check_all(world)


def test_held_pay_is_released_by_later_jobs_and_by_epochs() -> None:
    a = node(10)
    world = world_of(a, policy=PROVEN)
    held = [world.run_job(CLIENT) for _ in range(5)]
    assert [world.job(one).state for one in held] == ["released"] * 2 + ["held"] * 3
    for _ in range(2):
        world.call(OPERATOR.public_key, m.CloseEpoch())
        assert world.job(held[4]).state == "held"
    world.call(OPERATOR.public_key, m.CloseEpoch())
    assert {world.job(one).state for one in held} == {"released"}
    assert not world.coordinator.jobs._held
    check_all(world)


def test_held_pay_is_released_in_the_order_of_booking_after_a_restart() -> None:
    a = node(10)
    world = world_of(a, policy=PROVEN)
    early, late = ask(world), ask(world)
    world.serve(late)
    world.hand_in(late)
    world.call(OPERATOR.public_key, m.CloseEpoch())
    world.serve(early)
    world.hand_in(early)
    world.crash()
    world.call(OPERATOR.public_key, m.CloseEpoch())
    world.call(OPERATOR.public_key, m.CloseEpoch())
    assert (world.job(late).state, world.job(early).state) == ("released", "held")


# ---- resuming ----


def resumed(world: World, held: Issued, count: int, **changes: Any) -> Issued | m.Error:
    point = m.ResumePoint(ticket=held.ticket.ticket, count=count, progress=changes.pop("by", None))
    plain: dict[str, Any] = {"n_in": held.ticket.n_in + count, "resume": point}
    return world.ask(changes.pop("client", CLIENT), held.nonce, **(plain | changes))


def test_a_resumed_job_goes_on_with_the_same_bits_where_it_can() -> None:
    """In the class that began it, even if another is quicker and the first node is gone."""
    world, classes = World(), ("a/E", "b/E", "a/E", "b/E", "b/E")
    nodes = [node(index) for index in range(10, 15)]
    world.grant(CLIENT.public_key)
    for one, class_id in zip(nodes, classes, strict=True):
        world.join(one, class_id=class_id, decode_rate=90_000 if class_id == "b/E" else 30_000)
    first = world.ask(CLIENT, only=(nodes[0].key,))
    assert isinstance(first, Issued)
    world.lose(nodes[0])
    for _ in range(8):
        second = resumed(world, first, 10)
        assert isinstance(second, Issued)
        assert second.ticket.node == nodes[2].key
    world.lose(nodes[2])
    third = resumed(world, first, 10)
    assert isinstance(third, Issued), "another class rather than none"


def test_a_resumed_job_keeps_seed_and_place() -> None:
    a, b = node(10), node(11)
    world = world_of(a, b)
    first = ask(world)
    second = resumed(world, first, 10, exclude=(first.ticket.node,))
    assert isinstance(second, Issued)
    third = resumed(world, second, 5)
    assert isinstance(third, Issued)
    assert second.ticket.seed_ticket == third.ticket.seed_ticket == first.ticket.ticket
    assert (second.ticket.start, third.ticket.start) == (10, 15)
    assert second.ticket.node != first.ticket.node


def test_resuming_what_is_not_ones_own_is_refused() -> None:
    a = node(10)
    world = world_of(a)
    world.grant(identity(51).public_key)
    held = ask(world)
    for changes in (
        {"client": identity(51)},
        {"sampler": m.Sampler(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)},
        {"nonce_commitment": bytes(32)},
        {"n_in": 8},  # the tokens held are not in the prompt: `start` would point nowhere
    ):
        assert code(resumed(world, held, 10, **changes)) == "resume_refused"
    assert code(resumed(world, held, 33)) == "resume_refused"
    forged = seal(identity(98), m.Progress(ticket=bytes(16), count=1, output_hash=bytes(32)))
    assert code(resumed(world, held, 10, by=forged)) == "bad_signature"
    foreign = seal(a.me, m.Progress(ticket=bytes(16), count=1, output_hash=bytes(32)))
    assert code(resumed(world, held, 10, by=foreign)) == "resume_refused"


# ---- peers' input ----


def test_junk_is_refused_and_changes_nothing() -> None:
    world = world_of(node(10))
    held = ask(world)
    world.serve(held)
    stranger = identity(99).public_key
    junk: list[object] = [
        m.SubmitReceipt(receipt=bytes(65)),
        m.SubmitReceipt(receipt=held.receipt[:-1]),
        m.SubmitReceipt(receipt=held.receipt),
        m.AbandonJob(ticket=bytes(16)),
        m.AbandonJob(ticket=held.ticket.ticket),
        m.AbandonJob(ticket=held.ticket.ticket, progress=bytes(65)),
        m.Grant(account=stranger, amount=1),
        m.CloseEpoch(),
        heartbeat(),
        m.Registered(heartbeat_ms=0, lease_ms=0, state="active", now_at=0),
        object(),
        None,
        registration(stranger, model=bytes(32)),
    ]
    for message in junk:
        effects = world.handle(Received(stranger, 3, message))
        assert not [e for e in effects if isinstance(e, Save)]
        code(world.call(stranger, message))


def test_no_node_can_make_a_public_answer_unsendable() -> None:
    """Every number that is summed over peers stays in its range, every list in its frame."""
    world = World(POLICY, [])
    offers = tuple(
        m.Offer(
            model=MODEL, class_id="x", slots=4_096, context=1, prefill_rate=1 << 40, decode_rate=0
        )
        for _ in range(limits.MODELS_PER_NODE_MAX)
    )
    for i in range(NODES_SHOWN_MAX + 10):
        key = i.to_bytes(32, "big")
        world.call(key, registration(key, offers=offers))
        if i < 3:
            world.call(key, heartbeat(running=1 << 31, waiting=1 << 31, free_slots=1 << 31))
    world.handle(PeerLost(bytes(32)))
    network = world.call(CLIENT.public_key, m.GetNetwork())
    assert len(network.nodes) == NODES_SHOWN_MAX
    assert bytes(32) not in {one.node for one in network.nodes}, "who is here comes first"
    each = replace(network.nodes[0], models=(bytes(32),) * limits.MODELS_PER_NODE_MAX)
    largest = replace(
        each,
        jobs=1 << 31,
        audits_passed=1 << 31,
        audits_failed=1 << 31,
        earned=(1 << 63) - 1,
        escrow=(1 << 63) - 1,
        running=1 << 31,
        free_slots=1 << 31,
    )
    full = replace(network, nodes=(largest,) * NODES_SHOWN_MAX)
    assert len(encode(full)) < limits.MESSAGE_BYTES_MAX
    models = world.call(CLIENT.public_key, m.GetModels())
    assert models.models[0].free_slots <= 4_096 * (NODES_SHOWN_MAX + 10)


def test_one_key_may_be_client_node_and_auditor() -> None:
    a, b = node(10), node(11)
    world = world_of(a, b)
    world.grant(a.key)
    held = world.run_job(a.me, only=(a.key,))
    assert world.job(held).verdict == "passed"
    check_all(world)


def test_too_many_open_tickets_are_refused() -> None:
    world = world_of(node(10), policy=replace(POLICY, open_tickets_max=3))
    held = [ask(world) for _ in range(3)]
    assert code(world.ask(CLIENT)) == "rate_limited"
    world.serve(held[0])
    world.hand_in(held[0])
    ask(world)


def test_operators_and_standing_outlive_registrations() -> None:
    a = node(10)
    world = world_of(a)
    world.call(a.key, registration(bytes(32)))
    assert world.row(a).operator == a.operator


# ---- epochs and the lottery ----


def test_an_epoch_without_credit_closes() -> None:
    world = World(POLICY, [])
    closed = world.call(OPERATOR.public_key, m.CloseEpoch())
    assert (closed.total, closed.accounts) == (0, 0)
    world.now += POLICY.epoch_us
    world.handle(Tick())
    assert [one.epoch for one in world.posts] == [1, 2]
    check_restart(world)
    assert [one.epoch for one in world.posts] == [1, 2, 1, 2], "unposted epochs are handed over"
    check_all(world)


def test_the_audit_rate_rises_with_the_price_and_falls_with_what_is_at_risk() -> None:
    policy = Policy()
    rates = [n / d for n, d in (policy.audit_due_for(400, 10, 10 * k) for k in range(1, 100))]
    assert rates == sorted(rates, reverse=True)
    assert (rates[0], rates[-1]) == (0.8889, 0.05)
    assert policy.audit_due_for(400, 0, 0) == policy.audit_due(400)
    assert policy.audit_due_for(30, 10, 10_000) == policy.audit_due(30)
    for at_risk in range(1, 40):  # a cheat that saves gain_bps loses at least as much on average
        numerator, denominator = policy.audit_due_for(10_000, 1, at_risk)
        assert 0.9 * at_risk * numerator / denominator >= policy.gain_bps / 10_000


def test_the_audit_rate_falls_with_the_record() -> None:
    policy = Policy()
    assert policy.audit_due(0) == policy.audit_due(19) == (1, 1)
    rates = [n / d for n, d in map(policy.audit_due, range(20, 1_000))]
    assert rates == sorted(rates, reverse=True)
    assert (rates[0], rates[-1]) == (1.0, 0.05)
    assert policy.audit_due(400) == (500, 10_000)


@pytest.mark.parametrize(("verified", "rate"), [(0, 1.0), (40, 0.5), (400, 0.05)])
def test_the_lottery_draws_at_that_rate(verified: int, rate: float) -> None:
    rate_of = Policy().audit_due(verified)
    names = [i.to_bytes(32, "big") for i in range(4_000)]
    hits = [is_drawn(b"\x05" * 32, name, *rate_of) for name in names]
    assert abs(sum(hits) / len(hits) - rate) < 4 * (rate * (1 - rate) / len(hits)) ** 0.5 + 1e-9


def test_every_ticket_ends() -> None:
    world = world_of(node(10), node(11))
    for _ in range(5):
        ask(world)
    world.now += POLICY.ticket_lifetime_us + POLICY.receipt_grace_us + SECOND
    world.handle(Tick())
    assert {row.state for row in world.store.rows(JobRow)} == {"expired"}
    assert world.balance("reserved", CLIENT.public_key) == 0
    check_all(world)


def test_strangers_are_bounded_and_those_known_are_kept() -> None:
    first, second = node(10), node(11)
    policy = replace(POLICY, nodes_max=1, faucet=100, faucet_accounts_max=4)
    world = World(policy, [first])
    refused = world.call(second.key, registration(second.key))
    assert (refused.code, second.key in world.coordinator.registry.nodes) == ("rate_limited", False)
    assert isinstance(world.call(first.key, registration(first.key)), m.Registered)
    accounts = [world.call(identity(50 + i).public_key, m.GetAccount()) for i in range(6)]
    given = [account.available for account in accounts]
    assert given == sorted(given, reverse=True)
    assert 0 < given.count(100) < 6
    check_all(world)


def test_heartbeats_tell_which_block_to_vote_on() -> None:
    a = node(1)
    world = world_of(a)

    def told() -> int | None:
        answer = world.call(a.key, heartbeat())
        assert isinstance(answer, m.HeartbeatAck)
        return answer.block

    assert told() is None
    world.handle(BlockToVote(7))
    assert told() == 7
    vote = m.VoteBlock(seal=bytes(70))
    assert world.handle(Received(a.key, 5, vote)) == [CountVote(a.key, 5, vote.seal)]
    world.handle(BlockToVote(None))
    assert told() is None
