"""Audits end to end: who is paid, who is caught, and that no honest node is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay_coordinator.core.events import EpochPosted
from assay_coordinator.core.records import AuditRow, LineRow
from assay_coordinator.core.standing import CLOSED
from assay_protocol import messages as m
from coordinator.core.coordinator_checks import check_all, check_restart
from coordinator.core.coordinator_world import (
    POLICY,
    SECOND,
    SUSPENSION_US,
    Issued,
    ScriptedNode,
    World,
    identity,
    node,
    other_receipt,
)

CLIENT = identity(50)


def world_of(*nodes: ScriptedNode) -> World:
    world = World(POLICY, nodes)
    world.grant(CLIENT.public_key)
    return world


def convict(world: World, cheat: ScriptedNode, tokens: int = 96) -> int:
    """Give it jobs until it is convicted; returns how many it took."""
    for jobs in range(1, 20):
        if world.row(cheat).state == "suspended":
            world.pass_time(SUSPENSION_US / SECOND + 1, step=10)
        world.run_job(CLIENT, max_tokens=tokens, only=(cheat.key,))
        world.pass_time(2)
        if world.row(cheat).state == "convicted":
            return jobs
    raise AssertionError("it was not convicted")


def test_an_honest_node_leaves_probation_and_auditors_are_paid() -> None:
    a, b = node(10), node(11)
    world = world_of(a, b)
    for _ in range(POLICY.probation_audits):
        held = world.run_job(CLIENT, only=(a.key,))
        assert (world.job(held).state, world.job(held).verdict) == ("released", "passed")
    assert world.row(a).state == "active"
    assert world.row(b).audits_done == POLICY.probation_audits
    price = 72  # 8 * 1 + 32 * 2
    assert world.job(held).charged == price
    assert world.balance("earned", a.key) == 4 * (price - 7)
    assert world.balance("earned", b.key) == 4 * 7, "at rate 1 an audit earns at most the fee"
    assert world.balance("treasury") == 0
    check_all(world)


@pytest.mark.parametrize("seed", range(4))
def test_a_cheat_is_convicted_and_the_honest_are_not(seed: int) -> None:
    """Three nodes; one serves another model and calls the others' answers wrong."""
    a, b, c = node(10 + seed), node(20 + seed), node(30 + seed, wrong=0.6, lies=True)
    world = world_of(a, b, c)
    for _ in range(60):
        world.run_job(CLIENT, max_tokens=96)
        world.pass_time(1)
        if world.row(c).state in CLOSED:
            break
    world.pass_time(120)
    assert world.row(c).state == "suspended", "one job is not enough to convict"
    assert world.row(c).jobs <= 4
    assert convict(world, c) == 1
    assert world.row(c).disproved == POLICY.convicting_jobs == 2
    assert world.balance("earned", c.key) == world.balance("escrow", c.key) == 0
    assert {world.row(a).state, world.row(b).state} <= {"probation", "active"}
    assert world.row(a).evidence == world.row(b).evidence == 0
    for _ in range(8):
        held = world.run_job(CLIENT, max_tokens=96)
        assert held.ticket.node != c.key
        assert world.job(held).state in ("released", "held")
    check_all(world)


def test_a_convicted_key_never_comes_back() -> None:
    a, b, c = node(10, wrong=0.6), node(11), node(12)
    world = world_of(a, b, c)
    assert convict(world, a) == 2
    assert refusal(world.join(a)) == "convicted"
    check_restart(world)
    assert refusal(world.join(a)) == "convicted"


def test_a_dispute_is_decided_when_the_liar_is_convicted() -> None:
    a, b, c = node(10), node(11), node(12, lies=True)
    world = world_of(a, c)
    held = world.run_job(CLIENT, only=(a.key,))
    assert world.job(held).state == "drawn", "one word against the node decides nothing"
    world.join(b)
    world.pass_time(2)
    assert world.job(held).state == "drawn", "one against one neither"
    own = world.ask(CLIENT, only=(c.key,))
    assert isinstance(own, Issued)
    world.serve(own)
    world.hand_in(own)
    world.hand_in(replace(own, receipt=other_receipt(own, c.me)))
    assert world.row(c).state == "convicted"
    assert world.job(held).verdict == "passed", "its word counts for nothing now"
    assert world.job(own).verdict == "convicted"
    assert world.row(a).failed == 0
    check_all(world)


def test_one_against_one_pays_the_node_and_convicts_nobody() -> None:
    a, b, c = node(10), node(11), node(12, lies=True)
    world = World(replace(POLICY, probation_audits=100), [a, b, c])
    world.grant(CLIENT.public_key)
    for _ in range(12):
        world.run_job(CLIENT, only=(a.key,))
    world.pass_time(60)
    verdicts = {row.verdict for row in map(world.job, world.issued.values())}
    assert verdicts == {"passed", "unaudited"}
    assert {world.job(h).state for h in world.issued.values()} == {"released"}
    assert (world.row(a).evidence, world.row(a).failed) == (0, 0)
    check_all(world)


@pytest.mark.parametrize("flag", ["lies", "copies", "spites"])
def test_a_false_auditor_is_contradicted_and_barred(flag: str) -> None:
    a, b, d = node(10), node(11), node(13)
    c = node(12, **{flag: True})
    world = World(replace(POLICY, probation_audits=100), [a, b, c, d])
    world.grant(CLIENT.public_key)
    for _ in range(24):
        held = world.run_job(CLIENT, only=(a.key,))
        assert world.job(held).verdict == "passed"
    outcomes = {row.outcome for row in world.store.rows(AuditRow) if row.auditor == c.key}
    assert outcomes == {"bad"}, "whoever computes nothing is seen on every audit"
    assert world.row(c).outvoted == world.row(c).audits_done == POLICY.outvoted_max
    assert world.balance("earned", c.key) == 0
    assert world.row(a).evidence == world.row(a).disproved == 0
    check_all(world)


def test_two_who_make_their_words_up_convict_nobody() -> None:
    a = node(10)
    liars = [node(20, lies=True), node(21, lies=True)]
    world = world_of(a, *liars)
    held = world.run_job(CLIENT, only=(a.key,))
    world.pass_time(40)
    assert world.job(held).verdict == "unproven", "they do not even agree with each other"
    assert world.row(a).disproved == world.row(a).evidence == 0
    assert world.row(a).state == "probation"


def test_a_barred_auditor_loses_its_held_pay_and_its_record() -> None:
    a, b, d = node(10), node(11), node(13)
    c = node(12)
    world = world_of(a, b, c, d)
    while world.row(c).verified < 10:
        world.run_job(CLIENT, only=(c.key,))
    while not world.balance("escrow", c.key):
        world.run_job(CLIENT, only=(c.key,))
    c.spites = True
    while world.row(c).outvoted < POLICY.outvoted_max:
        world.run_job(CLIENT, only=(a.key,))
    assert world.balance("escrow", c.key) == 0
    assert (world.row(c).state, world.row(c).verified) == ("probation", 0)
    check_all(world)


@pytest.mark.parametrize("how", ["mute", "bad_key"])
def test_an_unsigned_commitment_or_a_key_nobody_can_seal_to_is_the_auditors_fault(
    how: str,
) -> None:
    a, b, c = node(10), node(11), node(12, **{how: True})
    world = world_of(a, c)
    held = world.run_job(CLIENT, only=(a.key,))
    assert world.row(c).audit_faults == 1
    world.join(b)
    world.pass_time(2)
    assert world.job(held).verdict == "passed"
    assert world.row(a).failed == 0


def test_a_share_of_passed_audits_is_shown_to_a_second_auditor() -> None:
    a, b, c, d = node(10), node(11), node(12), node(13)
    for bps, least, most in ((0, 20, 20), (5_000, 24, 36), (10_000, 40, 40)):
        world = World(replace(POLICY, probation_audits=100, reaudit_bps=bps), [a, b, c, d])
        world.grant(CLIENT.public_key)
        for _ in range(20):
            assert world.job(world.run_job(CLIENT, only=(a.key,))).verdict == "passed"
        assert least <= len(world.store.rows(AuditRow)) <= most


def test_who_passes_what_a_friend_wrote_is_found_out_by_the_second_auditor() -> None:
    a, b, c, d = node(10, wrong=0.6), node(11), node(12), node(13)
    world = World(replace(POLICY, reaudit_bps=10_000), [a, d])
    world.grant(CLIENT.public_key)
    held = world.ask(CLIENT, max_tokens=96, only=(a.key,))
    assert isinstance(held, Issued)
    d.friend = a
    world.serve(held)
    world.hand_in(held)
    world.settle()
    world.join(b)
    world.join(c)
    world.pass_time(3)
    assert world.job(held).verdict == "failed"
    assert world.row(d).outvoted == 1
    assert world.balance("earned", d.key) == 0


def test_two_nodes_judge_each_other_without_convicting() -> None:
    a, c = node(10), node(11, wrong=0.6)
    world = world_of(a, c)
    held = world.run_job(CLIENT, max_tokens=96, only=(c.key,))
    world.pass_time(32)
    assert (world.job(held).state, world.job(held).verdict) == ("refunded", "unproven")
    assert world.row(c).state == "probation"
    assert world.row(c).evidence == 0


def test_without_any_auditor_probation_jobs_are_refunded_in_time() -> None:
    a = node(10)
    world = world_of(a, node(11))
    world.lose(world.nodes[node(11).key])
    held = world.run_job(CLIENT)
    world.pass_time(POLICY.audit_case_us / SECOND - 2, step=2)
    assert world.job(held).state == "drawn"
    world.pass_time(4)
    assert (world.job(held).state, world.job(held).verdict) == ("refunded", "unaudited")


def test_nodes_of_one_operator_do_not_audit_each_other() -> None:
    a, b = node(10), node(11)
    b.operator = a.operator
    world = world_of(a, b)
    held = world.run_job(CLIENT)
    assert world.job(held).state == "drawn"
    assert not world.store.rows(AuditRow)


def test_the_client_is_not_its_own_auditor() -> None:
    a, b = node(10), node(11)
    world = world_of(a, b)
    world.grant(b.key)
    held = world.run_job(b.me, only=(a.key,))
    assert world.job(held).state == "drawn"
    assert not world.store.rows(AuditRow)


@pytest.mark.parametrize("flag", ["loses", "opens_wrong", "garbles"])
def test_who_cannot_show_its_work_is_not_paid(flag: str) -> None:
    a, b, d = node(10, **{flag: True}), node(11), node(12)
    world = world_of(a, b, d)
    held = world.run_job(CLIENT, only=(a.key,))
    assert world.job(held).state == "refunded"
    assert world.row(a).failed == 1
    assert world.balance("escrow", a.key) == world.balance("earned", a.key) == 0


def test_withholding_what_is_drawn_brings_the_audits_back() -> None:
    """Else a node with a record could cheat in all jobs and give up the few that are drawn."""
    a, b = node(10), node(11)
    world = world_of(a, b)
    while world.row(a).verified < 16:
        world.run_job(CLIENT, only=(a.key,))
    a.loses = True
    states = [world.job(world.run_job(CLIENT, only=(a.key,))).state for _ in range(40)]
    assert world.row(a).verified == 0
    assert world.row(a).state == "probation"
    assert set(states[-10:]) == {"refunded"}
    check_all(world)


def test_an_auditor_that_never_ends_is_replaced() -> None:
    a, b, c = node(10), node(11), node(12, silent=True)
    world = world_of(a, c)
    held = world.run_job(CLIENT, only=(a.key,))
    world.join(b)
    world.pass_time(POLICY.audit_stage_us / SECOND + 2, step=2)
    assert world.job(held).verdict == "passed"
    assert world.row(c).audit_faults == 1


def test_who_reads_transcripts_and_audits_none_is_soon_asked_no_more() -> None:
    class Peeker(ScriptedNode):
        def receive(self, message: object) -> list[object]:
            if isinstance(message, m.Transcript):
                return [m.AuditDecline(audit=message.audit, code="engine_failed")]
            return super().receive(message)

    a, peeker = node(10), Peeker(identity(11), identity(1011).public_key)
    world = world_of(a, peeker)
    for _ in range(24):
        world.run_job(CLIENT, only=(a.key,))
        world.pass_time(POLICY.audit_case_us / SECOND, step=20)
        world.join(a)
        world.join(peeker)
    assert world.row(peeker).audit_faults == 17, "the sixteen that are free, and one"
    assert world.row(peeker).audits_done == 0
    honest = node(12)
    world.join(honest)
    held = world.run_job(CLIENT, only=(a.key,))
    assert world.job(held).verdict == "passed"
    assert world.row(honest).audits_done == 1


def test_a_busy_auditor_is_asked_again_but_not_at_once() -> None:
    a, b = node(10), node(11, busy=True)
    world = world_of(a, b)
    held = world.run_job(CLIENT, only=(a.key,))  # ends: no loop of task and decline
    b.busy = False
    world.pass_time(2)
    assert world.job(held).verdict == "passed"


def test_a_lost_request_to_the_executor_is_sent_again() -> None:
    a, b = node(10), node(11)
    world = world_of(a, b)
    held = world.ask(CLIENT, only=(a.key,))
    assert isinstance(held, Issued)
    world.serve(held)
    world.hand_in(held)
    world.deliver()  # the task; the auditor accepts
    assert isinstance(world.wire.popleft()[1], m.TranscriptRequest)  # lost with its session
    world.pass_time(12)
    assert world.job(held).verdict == "passed"


def test_audits_begin_again_after_a_restart() -> None:
    a, b = node(10), node(11)
    world = world_of(a, b)
    for steps in range(7):
        held = world.ask(CLIENT, only=(a.key,))
        assert isinstance(held, Issued)
        world.serve(held)
        world.hand_in(held)
        for _ in range(steps):
            if world.wire:
                world.deliver()
        check_restart(world)
        world.join(a)
        world.join(b)
        world.pass_time(2)
        assert world.job(held).state in ("released", "held")
        check_all(world)


def test_an_answer_of_no_tokens_proves_nothing() -> None:
    a, b = node(10), node(11)
    world = world_of(a, b)
    held = world.ask(CLIENT, only=(a.key,))
    assert isinstance(held, Issued)
    world.serve(held, 0)
    unsigned = world.call(a.key, m.SubmitReceipt(receipt=held.receipt))
    assert unsigned == m.ReceiptBooked(ticket=held.ticket.ticket, charged=0)
    world.settle()
    assert world.row(a).verified == 0
    signed = world.run_job(CLIENT, n_out=0, only=(a.key,))
    assert world.job(signed).charged == 8, "the client says that it got nothing but asked for it"
    assert world.row(a).verified == 0


def test_the_treasury_is_not_overdrawn_by_audits() -> None:
    """Fresh keys that serve and audit one another take out no more than they paid in."""
    world = world_of(*[node(i) for i in range(10, 16)])
    paid_in = world.balance("available", CLIENT.public_key)
    for _ in range(30):
        world.run_job(CLIENT)
    spent = paid_in - world.balance("available", CLIENT.public_key)
    earned = sum(world.balance("earned", one.key) for one in world.nodes.values())
    escrow = sum(world.balance("escrow", one.key) for one in world.nodes.values())
    assert earned + escrow + world.balance("treasury") == spent
    assert any(line.kind == "audit" for line in world.store.rows(LineRow))


def test_two_signatures_on_one_ticket_convict() -> None:
    a, b = node(10), node(11)
    world = world_of(a, b)
    held = world.run_job(CLIENT, only=(a.key,))
    before = world.balance("earned", a.key)
    forged = other_receipt(held, identity(98))
    answer = world.call(CLIENT.public_key, m.SubmitReceipt(receipt=forged))
    assert answer.code == "bad_signature"
    assert world.row(a).state not in CLOSED
    answer = world.call(CLIENT.public_key, m.SubmitReceipt(receipt=other_receipt(held, a.me)))
    assert answer.code == "receipt_mismatch"
    assert world.row(a).state == "convicted"
    assert world.balance("earned", a.key) == before, "what is paid is paid"
    assert world.ask(CLIENT, only=(a.key,)) == m.Error(
        code="no_capacity",
        detail="No node that fits the constraints is free.",
        retry_after_ms=1000,
    )


def test_a_receipt_of_a_convicted_node_is_refunded_at_once() -> None:
    a, b = node(10, wrong=0.5), node(11)
    world = world_of(a, b, node(12))
    late = world.ask(CLIENT, only=(a.key,))
    assert isinstance(late, Issued)
    world.serve(late)
    convict(world, a)
    assert world.hand_in(late) == m.ReceiptBooked(ticket=late.ticket.ticket, charged=0)
    assert world.job(late).state == "refunded"
    assert world.balance("reserved", CLIENT.public_key) == 0
    world.handle(EpochPosted(1))
    check_all(world)


# ---- classes ----


def refusal(answer: object) -> str | None:
    return answer.code if isinstance(answer, m.Error) else None


def test_a_class_that_cannot_be_audited_cannot_register() -> None:
    strict, lenient = World(POLICY), World(replace(POLICY, logprob_leaves=1))
    for world, class_id, code in (
        (strict, "x/U", "class_refused"),
        (strict, "x/L", "class_refused"),
        (strict, "x/F", None),
        (lenient, "x/U", "class_refused"),
        (lenient, "x/L", None),
    ):
        assert refusal(world.join(node(10), class_id=class_id)) == code


def test_logprob_leaves_are_replayed_as_such_and_never_by_their_own_kind() -> None:
    a, b, c = node(10, class_id="x/L"), node(11, class_id="x/L"), node(12)
    world = World(replace(POLICY, logprob_leaves=1))
    for one in (a, b, c):
        world.join(one, class_id=one.class_id)
    world.grant(CLIENT.public_key)
    for _ in range(5):
        assert world.job(world.run_job(CLIENT, only=(a.key,))).verdict == "passed"
    assert not b.tasks, "it cannot replay"
    assert {task.leaves for task in c.tasks.values()} == {"logprob"}


def test_nobody_can_plead_logprob_leaves_where_they_are_not_taken() -> None:
    a, b = node(10, class_id="x/L"), node(11)
    world = World(POLICY)
    world.join(a, class_id="x/F")
    world.join(b)
    world.grant(CLIENT.public_key)
    world.run_job(CLIENT, only=(a.key,))
    assert {task.leaves for task in b.tasks.values()} == {None}
