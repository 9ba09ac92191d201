"""Audits end to end: who is paid, who is caught, and that no honest node is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from assay_coordinator.core.events import EpochPosted
from assay_coordinator.core.evidence import (
    CONVICTION,
    LOGIT_TOLERANCE,
    SUSPICION,
    Finding,
    accumulate,
    agree,
    check_opening,
    convicting_evidence,
    weigh,
)
from assay_coordinator.core.records import AuditRow, LineRow
from assay_protocol import messages as m
from assay_protocol.codec import decode_as
from assay_protocol.errors import ProtocolError
from assay_protocol.leaves import leaves_of
from coordinator.core.coordinator_checks import check_all, check_restart
from coordinator.core.coordinator_world import (
    POLICY,
    SECOND,
    Issued,
    ScriptedNode,
    World,
    identity,
    node,
    other_receipt,
    pack_logits,
    sketches_of,
)

CLIENT = identity(50)


def world_of(*nodes: ScriptedNode) -> World:
    world = World(POLICY, nodes)
    world.grant(CLIENT.public_key)
    return world


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
def test_a_cheat_is_suspended_and_the_honest_are_not(seed: int) -> None:
    """Three nodes; one serves another model and calls the others' answers wrong."""
    a, b, c = node(10 + seed), node(20 + seed), node(30 + seed, wrong=0.3, lies=True)
    world = world_of(a, b, c)
    for jobs in range(1, 60):  # noqa: B007
        world.run_job(CLIENT, max_tokens=96)
        world.pass_time(1)
        if world.row(c).state == "suspended":
            break
    world.pass_time(120)
    assert world.row(c).state == "suspended"
    assert world.row(c).jobs <= 4
    assert world.balance("earned", c.key) == 0
    assert {world.row(a).state, world.row(b).state} <= {"probation", "active"}
    assert world.row(a).evidence == world.row(b).evidence == 0
    for _ in range(8):
        held = world.run_job(CLIENT, max_tokens=96)
        assert held.ticket.node != c.key
        assert world.job(held).verdict == "passed"
    check_all(world)


def test_a_dispute_is_decided_when_the_liar_is_suspended() -> None:
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
    assert world.row(c).state == "suspended"
    assert world.job(held).verdict == "passed", "its word counts for nothing now"
    assert world.job(own).verdict == "suspended"
    assert world.row(a).failed == 0
    check_all(world)


def test_one_against_one_pays_the_node_and_convicts_nobody() -> None:
    a, b, c = node(10), node(11), node(12, lies=True)
    world = world_of(a, b, c)
    for _ in range(12):
        world.run_job(CLIENT, only=(a.key,))
    world.pass_time(60)
    verdicts = {row.verdict for row in map(world.job, world.issued.values())}
    assert verdicts == {"passed", "unaudited"}
    assert {world.job(h).state for h in world.issued.values()} == {"released"}
    assert (world.row(a).evidence, world.row(a).failed) == (0, 0)
    check_all(world)


@pytest.mark.parametrize("flag", ["lies", "copies"])
def test_a_false_auditor_is_outvoted(flag: str) -> None:
    a, b, d = node(10), node(11), node(13)
    c = node(12, **{flag: True})
    world = World(replace(POLICY, probation_audits=100), [a, b, c, d])
    world.grant(CLIENT.public_key)
    for _ in range(12):
        held = world.run_job(CLIENT, only=(a.key,))
        assert world.job(held).verdict == "passed"
    outcomes = {row.outcome for row in world.store.rows(AuditRow) if row.auditor == c.key}
    assert outcomes == {"bad"}
    assert world.row(c).audit_faults == world.row(c).audits_done > 0
    assert world.balance("earned", c.key) == 0
    assert world.row(a).evidence == 0


def test_two_nodes_judge_each_other_without_convicting() -> None:
    a, c = node(10), node(11, wrong=0.3)
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


def test_a_busy_auditor_is_asked_again_but_not_at_once() -> None:
    a, b = node(10), node(11, busy=True)
    world = world_of(a, b)
    held = world.run_job(CLIENT, only=(a.key,))  # ends: no loop of task and decline
    b.busy = False
    world.pass_time(2)
    assert world.job(held).verdict == "passed"


def test_a_key_nobody_can_seal_to_is_the_auditors_fault() -> None:
    a, b, c = node(10), node(11), node(12, bad_key=True)
    world = world_of(a, c)
    held = world.run_job(CLIENT, only=(a.key,))
    assert world.row(c).audit_faults == 1
    world.join(b)
    world.pass_time(2)
    assert world.job(held).verdict == "passed"
    assert world.row(a).failed == 0


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


def test_two_signatures_on_one_ticket_suspend() -> None:
    a, b = node(10), node(11)
    world = world_of(a, b)
    held = world.run_job(CLIENT, only=(a.key,))
    before = world.balance("earned", a.key)
    forged = other_receipt(held, identity(98))
    answer = world.call(CLIENT.public_key, m.SubmitReceipt(receipt=forged))
    assert answer.code == "bad_signature"
    assert world.row(a).state != "suspended"
    answer = world.call(CLIENT.public_key, m.SubmitReceipt(receipt=other_receipt(held, a.me)))
    assert answer.code == "receipt_mismatch"
    assert world.row(a).state == "suspended"
    assert world.balance("earned", a.key) == before, "what is paid is paid"
    assert world.ask(CLIENT, only=(a.key,)) == m.Error(
        code="no_capacity",
        detail="No node that fits the constraints is free.",
        retry_after_ms=1000,
    )


def test_a_receipt_of_a_suspended_node_is_refunded_at_once() -> None:
    a, b = node(10, wrong=0.5), node(11)
    world = world_of(a, b, node(12))
    late = world.ask(CLIENT, only=(a.key,))
    assert isinstance(late, Issued)
    world.serve(late)
    while world.row(a).state != "suspended":
        world.run_job(CLIENT, max_tokens=96, only=(a.key,))
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


# ---- evidence ----


def finding(mismatches: int, n_out: int = 96, auditor: bytes = b"a", shift: float = 0.0) -> Finding:
    ends = [b"\x01" * 32] * -(-n_out // 16)
    ours = leaves_of(pack_logits([1.0] * n_out), sketches_of([1.0] * n_out))
    shifted = [1.0 + shift] * n_out
    theirs = leaves_of(pack_logits(shifted), sketches_of(shifted))
    receipt = m.Receipt(
        ticket=bytes(16),
        model=bytes(32),
        class_id="x",
        prompt_hash=bytes(32),
        seed_hash=bytes(32),
        output_hash=b"\x01" * 32,
        root=ours.root("x", ends),
        n_in=1,
        n_out=n_out,
        finish="stop",
        started_at=0,
        first_at=0,
        ended_at=0,
    )
    opened = m.LeavesOpened(
        audit=bytes(16),
        hashes=b"".join(ends),
        logits=b"",
        raws=ours.raws,
        sketches=ours.sketches,
    )
    check_opening(receipt, opened)
    reveal = m.AuditReveal(
        audit=bytes(16),
        nonce=bytes(32),
        mismatches=tuple(range(mismatches)),
        margins=(),
        logits=b"",
        raws=theirs.raws,
        sketches=theirs.sketches,
    )
    return weigh(auditor, bytes(32), receipt, opened, reveal)


def test_one_replay_of_a_cheap_model_convicts_and_drift_does_not() -> None:
    assert finding(30).evidence > CONVICTION
    assert not finding(6).bad
    assert finding(0).evidence < 0
    assert convicting_evidence([finding(30), finding(20)]) == finding(20).evidence
    liar = finding(96)
    assert convicting_evidence([liar, finding(0, shift=9.0)]) == 0, "one liar adds nothing"
    assert finding(0, shift=0.2).bad is False
    assert finding(0, shift=0.5).bad is True


def test_an_answer_is_as_far_off_as_its_worst_span() -> None:
    def tail(start: int, n: int = 96, apart: float = 2.0) -> Finding:
        values = (*(0.0 for _ in range(start)), *(apart for _ in range(n - start)))
        return Finding(b"", b"", b"", n, 0, 0, values, 0, 0.0, "")

    zero = tail(96)
    assert agree(zero, tail(95))
    assert not agree(zero, tail(80)), "a cheat that starts late"
    assert not agree(zero, tail(0, apart=float("nan")))
    assert agree(tail(0), tail(0))
    assert LOGIT_TOLERANCE == 0.5


@pytest.mark.parametrize(
    "changes",
    [
        {"mismatches": (3, 3)},
        {"mismatches": (4, 3)},
        {"mismatches": (96,)},
        {"logits": b"abcd"},
        {"sketches": b""},
        {"raws": bytes(160)},
        {"sketches": bytes(959)},
        {"sketches": b"\x01" * 8 + b"\x00\x7e" + bytes(950)},
        {"raws": None, "sketches": None, "logits": b"abc"},
        {"raws": None, "sketches": None, "logits": b""},
        {"raws": None, "sketches": None, "logits": pack_logits([float("nan")] * 96)},
        {"raws": None, "sketches": None, "logits": pack_logits([float("inf")] * 96)},
    ],
)
def test_a_malformed_reveal_is_refused(changes: dict[str, object]) -> None:
    good = {
        "audit": bytes(16),
        "nonce": bytes(32),
        "mismatches": (),
        "margins": (),
        "logits": b"",
        "raws": bytes(192),
        "sketches": sketches_of([1.0] * 96),
    }
    opened = m.LeavesOpened(
        audit=bytes(16),
        hashes=bytes(192),
        logits=b"",
        raws=bytes(192),
        sketches=sketches_of([1.0] * 96),
    )
    receipt = decode_as(m.Receipt, _receipt_bytes())
    with pytest.raises(ProtocolError):
        weigh(b"", b"", receipt, opened, m.AuditReveal(**(good | changes)))  # type: ignore[arg-type]  # malformed on purpose


def _receipt_bytes() -> bytes:
    a = node(10)
    world = world_of(a)
    held = world.ask(CLIENT, max_tokens=96)
    assert isinstance(held, Issued)
    world.serve(held)
    return held.receipt[64:]


def test_honest_drift_never_convicts() -> None:
    """100,000 audited jobs of nodes whose arithmetic differs from both auditors' alike: 3 % of
    tokens differ, and the two auditors always agree. The quorum rule and the settlement's
    arithmetic, without the messages."""
    rng = np.random.default_rng(2026)
    per_match, per_miss = finding(0, 16).evidence // 16, finding(16, 16).evidence // 16
    lengths = rng.choice((16, 32, 96), 100_000)
    replays = rng.binomial(lengths, 0.03) * (per_miss - per_match) + lengths * per_match
    worst = evidence = 0
    for replay in replays.tolist():
        evidence = accumulate(evidence, replay if replay > SUSPICION else min(0, replay))
        worst = max(worst, evidence)
    assert 0 < worst < CONVICTION
