"""Rounds of the lottery in the coordinator: who waits, who does not, and what an outage costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assay_coordinator.core.events import LookupVerdict, Received, RoundMined, Tick
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.records import AuditRow, JobRow, RoundRow
from assay_node.core.parameters import Parameters
from assay_protocol import messages as m
from assay_protocol.lottery import AnchorNote, RoundNote, link_before
from coordinator.core.coordinator_checks import check_all, check_restart
from coordinator.core.coordinator_world import (
    OPERATOR,
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
SLOW = replace(POLICY, round_receipts=100, round_us=20 * SECOND, probation_audits=0)
RARE = replace(SLOW, audit_bps_min=0)  # nothing is drawn but by a client's wish
ALL = replace(SLOW, audit_bps_min=9_999)  # as good as everything is, after a round


def world_of(policy: Policy, *nodes: ScriptedNode) -> World:
    world = World(policy, nodes or (node(10), node(11), node(12)))
    world.grant(CLIENT.public_key)
    return world


def ask(world: World, **changes: Any) -> Issued:
    held = world.ask(CLIENT, **changes)
    assert isinstance(held, Issued), held
    return held


def restart(world: World) -> None:
    check_restart(world)
    for one in world.nodes.values():
        world.join(one)


def code(answer: object) -> str:
    assert isinstance(answer, m.Error), answer
    return answer.code


# ---- waiting for the round ----


def test_a_receipt_waits_for_its_round_and_is_then_held_or_drawn() -> None:
    world = world_of(ALL)
    held = [world.run_job(CLIENT) for _ in range(4)]
    assert {world.job(one).state for one in held} == {"pending"}
    assert not world.store.rows(AuditRow)
    restart(world)
    world.pass_time(19)
    assert {world.job(one).state for one in held} == {"pending"}
    world.pass_time(3)
    assert {world.job(one).verdict for one in held} == {"passed"}
    assert all(1 <= row.candidates <= 2 for row in world.store.rows(AuditRow))
    check_all(world)


def test_what_is_not_drawn_is_held_and_counts_from_then() -> None:
    world = world_of(RARE, node(10))
    held = [world.run_job(CLIENT) for _ in range(5)]
    world.pass_time(21)
    assert [world.job(one).state for one in held] == ["released"] * 2 + ["held"] * 3
    check_all(world)


def test_a_full_round_closes_at_once_and_an_empty_one_never() -> None:
    world = world_of(replace(RARE, round_receipts=3))
    for _ in range(7):
        world.run_job(CLIENT)
    assert [row.count for row in world.store.rows(RoundRow)] == [3, 3]
    world.pass_time(100, step=5)
    assert [row.count for row in world.store.rows(RoundRow)] == [3, 3, 1]


def test_probation_is_audited_at_once_and_stands_in_its_round() -> None:
    world = world_of(replace(SLOW, probation_audits=4))
    held = world.run_job(CLIENT)
    assert world.job(held).verdict == "passed"
    assert world.job(held).round == 1
    assert len(world.job(held).draw_seed) == 32
    assert not world.store.rows(RoundRow)
    restart(world)
    world.pass_time(21)
    assert [row.count for row in world.store.rows(RoundRow)] == [1]
    assert world.job(held).verdict == "passed", "its round changes nothing any more"
    check_all(world)


def test_a_convicted_node_s_pending_answers_are_refunded_and_not_drawn() -> None:
    world = world_of(ALL, node(10), node(11))
    held = world.run_job(CLIENT)
    one = world.coordinator.registry.nodes[held.ticket.node]
    effects, _ = world.coordinator.settlement.convict(world.now, one, "equivocation")
    world.carry_out(effects)
    assert world.job(held).state == "refunded"
    world.pass_time(21)
    assert world.job(held).state == "refunded"
    assert not world.store.rows(AuditRow)
    check_all(world)


def test_a_draining_node_is_told_of_answers_that_wait() -> None:
    world = world_of(RARE, node(10))
    held = world.run_job(CLIENT)
    assert world.call(held.ticket.node, heartbeat()).drawn == 1
    world.pass_time(21)
    assert world.call(held.ticket.node, heartbeat()).drawn == 0


# ---- the chain ----


def test_an_outage_delays_draws_and_loses_nothing() -> None:
    world = world_of(replace(ALL, rounds_waiting_max=2, round_receipts=2))
    world.chain_up = False
    held = [ask(world) for _ in range(6)]
    for one in held:
        world.serve(one)
        world.hand_in(one)
    restart(world)
    assert {world.job(one).state for one in held} == {"pending"}
    assert len(world.to_mine) == 3, "what is not drawn is handed to the chain again"
    assert code(world.ask(CLIENT)) == "busy", "so far behind no tickets are given"
    world.chain_up = True
    world.mine()
    assert {row.state for row in world.store.rows(RoundRow)} == {"drawn"}
    assert "pending" not in {world.job(one).state for one in held}
    check_all(world)
    ask(world)


def test_a_restart_neither_tells_a_link_early_nor_uses_one_twice() -> None:
    world = world_of(replace(RARE, round_receipts=1, links=4))
    for turn in range(10):
        world.chain_up = turn % 3 != 1
        world.run_job(CLIENT)
        world.crash()
        world.mine()
        for one in world.nodes.values():
            world.join(one)
        told = [row for row in world.store.rows(RoundRow) if row.state == "drawn"]
        assert len(told) == sum(bool(row.link) for row in world.store.rows(RoundRow))
        check_all(world)
    world.chain_up = True
    world.mine()
    rows = world.store.rows(RoundRow)
    assert [row.number for row in rows] == list(range(1, 11))
    assert [row.chain for row in rows] == [1] * 4 + [2] * 4 + [3] * 2
    assert len({row.link for row in rows}) == 10
    assert link_before(rows[0].link) == AnchorNote.decode(world.chain.notes_in[1]).anchor
    notes = [data for data in world.chain.notes_in[1:] if data.startswith(b"assay round")]
    assert [RoundNote.decode(data).root for data in notes] == [row.root for row in rows]


def test_what_is_mined_twice_or_never_closed_draws_nothing() -> None:
    world = world_of(replace(RARE, round_receipts=1))
    world.run_job(CLIENT)
    again = RoundMined(1, bytes(32), bytes(32), 9, bytes(32))
    assert world.handle(again) == []
    assert world.handle(replace(again, number=7)) == []


def test_who_is_drawn_very_late_need_not_have_the_transcript_any_more() -> None:
    world = world_of(replace(ALL, round_receipts=1), node(10), node(11))
    early = world.run_job(CLIENT)
    world.chain_up = False
    late = world.run_job(CLIENT, only=(early.ticket.node,))
    world.nodes[late.ticket.node].loses = True
    world.now += ALL.draw_late_us + 1
    for one in world.nodes.values():
        world.join(one)
    world.chain_up = True
    world.mine()
    world.settle()
    assert world.job(late).verdict == "unaudited"
    assert world.coordinator.registry.nodes[late.ticket.node].row.failed == 0
    soon = world.run_job(CLIENT, only=(early.ticket.node,))
    assert world.job(soon).verdict == "withheld"


# ---- what a client may ask ----


def test_none_is_never_audited_and_proves_nothing() -> None:
    world = world_of(replace(POLICY, round_receipts=1))
    held = [world.run_job(CLIENT, verify="none") for _ in range(3)]
    assert not world.store.rows(AuditRow)
    assert {world.job(one).drawn_at for one in held} == {0}
    rows = [world.coordinator.registry.nodes[one.ticket.node].row for one in held]
    assert {row.verified for row in rows} == {0}
    assert {world.job(one).state for one in held} == {"held"}
    a = next(iter(world.nodes))
    plain, waived = ask(world, only=(a,)).ticket, ask(world, only=(a,), verify="none").ticket
    own = ("ticket", "seed_ticket", "prompt_hash", "nonce_commitment")
    same = replace(waived, **{name: getattr(plain, name) for name in own})
    assert same == plain, "the node cannot tell"


def test_what_is_never_audited_does_not_push_out_what_is_at_risk() -> None:
    world = world_of(replace(RARE, round_receipts=1), node(10))
    at_risk = [world.run_job(CLIENT) for _ in range(3)]
    waived = [world.run_job(CLIENT, verify="none") for _ in range(5)]
    assert {world.job(one).state for one in at_risk} == {"held"}
    assert [world.job(one).state for one in waived] == ["released"] * 2 + ["held"] * 3
    restart(world)
    for _ in range(3):
        world.call(OPERATOR.public_key, m.CloseEpoch())
    assert {row.state for row in world.store.rows(JobRow)} == {"released"}
    check_all(world)


def test_what_is_never_audited_is_not_at_risk() -> None:
    """A node's own owner may put any sum into its escrow by such jobs, and loses none of it."""
    policy = replace(SLOW, audit_bps_min=100, gain_bps=8_000)
    bare, padded = world_of(policy, node(10)), world_of(policy, node(10))
    for _ in range(3):
        padded.run_job(CLIENT, n_out=8, verify="none")
    restart(padded)
    plain, other = (world.job(world.run_job(CLIENT, n_out=8)) for world in (bare, padded))
    assert padded.balance("escrow", other.node) > plain.charged == other.charged > 0
    alone = policy.gain_bps * 10 // 9 + 1  # of one who has nothing else at risk
    assert (plain.numerator, plain.denominator) == (alone, 10_000)
    assert (other.numerator, other.denominator) == (plain.numerator, plain.denominator)
    check_all(padded)


def test_now_is_audited_before_its_round() -> None:
    world = world_of(RARE)
    held = world.run_job(CLIENT, verify="now")
    assert (world.job(held).verdict, world.job(held).verify) == ("passed", "now")
    assert not world.store.rows(RoundRow)


def test_a_quorum_is_two_jobs_with_one_seed_on_nodes_of_two_operators() -> None:
    a, b, c = node(10), node(11), node(12)
    b.operator = a.operator
    world = world_of(RARE, a, b, c)
    first = ask(world, verify="quorum", only=(a.key,))
    second = world.ask(CLIENT, first.nonce, verify="quorum", twin=first.ticket.ticket)
    assert isinstance(second, Issued)
    assert second.ticket.node == c.key
    assert second.ticket.seed_ticket == first.ticket.ticket != second.ticket.ticket
    for one in (first, second):
        world.serve(one)
        world.hand_in(one)
    served = [world.nodes[one.ticket.node].served[one.ticket.ticket] for one in (first, second)]
    assert len({body.output for body, _ in served}) == 1
    assert len({world.job(one).receipt_blob for one in (first, second)}) == 2


def test_a_quorum_needs_a_second_operator() -> None:
    a, b = node(10), node(11)
    b.operator = a.operator
    world = world_of(RARE, a, b)
    assert code(world.ask(CLIENT, verify="quorum")) == "verify_refused"
    c = node(12)
    world.join(c)
    first = ask(world, verify="quorum", only=(a.key,))
    world.lose(c)
    again = world.ask(CLIENT, first.nonce, verify="quorum", twin=first.ticket.ticket)
    assert code(again) == "verify_refused"


@pytest.mark.parametrize(
    "changes",
    [
        {"verify": "often"},
        {"verify": "sample", "twin": True},
        {"verify": "quorum", "twin": bytes(16)},
        {"verify": "quorum", "twin": True, "max_tokens": 31},
        {"verify": "quorum", "twin": True, "nonce_commitment": bytes(32)},
        {"verify": "quorum", "twin": True, "prompt_hash": bytes(32)},
        {"verify": "quorum", "twin": True, "by": 51},
    ],
)
def test_levels_and_twins_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    world = world_of(RARE)
    world.grant(identity(51).public_key)
    first = ask(world, verify="quorum")
    if changes.get("twin") is True:
        changes = {**changes, "twin": first.ticket.ticket}
    client = identity(changes.get("by", 50))
    plain = {name: value for name, value in changes.items() if name != "by"}
    assert code(world.ask(client, first.nonce, **plain)) == "verify_refused"


def test_a_plain_ticket_cannot_be_made_a_quorum_later() -> None:
    world = world_of(RARE)
    first = ask(world)
    again = world.ask(CLIENT, first.nonce, verify="quorum", twin=first.ticket.ticket)
    assert code(again) == "verify_refused"


# ---- what a client is told ----


def test_a_grant_says_what_speaks_for_its_node() -> None:
    world = world_of(replace(POLICY, round_receipts=1), node(10), node(11))
    for one in world.nodes.values():
        world.join(one, class_id="cpu/E")
        one.class_id = "cpu/E"
        one.noise = 0.0
    a = next(iter(world.nodes))
    first = granted(world, a)
    assert (first.standing.state, first.standing.audits_passed) == ("probation", 0)
    assert (first.standing.audit_bps, first.standing.exact) == (10_000, False)
    for _ in range(12):
        world.run_job(CLIENT, only=(a,))
    again = granted(world, a)
    row = world.coordinator.registry.nodes[again.route.node].row
    assert again.standing.audits_passed == row.verified > POLICY.probation_audits
    assert again.standing.audit_bps == 10_000 * POLICY.probation_audits // row.verified
    assert again.standing.at_risk == world.balance("escrow", again.route.node)
    assert again.standing.exact, "its own class computed the same bits"
    assert again.standing.class_id == "cpu/E"


def granted(world: World, node_key: bytes) -> Any:
    answer = world.call(CLIENT.public_key, ask(world, only=(node_key,)).asked)
    assert isinstance(answer, m.TicketGrant)
    return answer


def test_tickets_name_the_table_they_will_be_judged_by() -> None:
    world = world_of(RARE)
    assert ask(world).ticket.calibration is None
    world.coordinator.issuing.calibration = 7
    assert ask(world).ticket.calibration == 7


def test_a_verdict_is_looked_up_in_the_tables() -> None:
    world = world_of(RARE)
    held = ask(world)
    asked = Received(CLIENT.public_key, 3, m.GetVerdict(ticket=held.ticket.ticket))
    assert world.handle(asked) == [LookupVerdict(CLIENT.public_key, 3, held.ticket.ticket)]


@pytest.mark.parametrize("state", ["inquiry", "suspended", "convicted"])
def test_barred_nodes_get_no_jobs(state: str) -> None:
    a, b = node(10), node(11)
    world = world_of(RARE, a, b)
    row = world.coordinator.registry.nodes[a.key]
    world.coordinator.registry.update(row, state=state)
    assert {ask(world).ticket.node for _ in range(6)} == {b.key}
    world.handle(Tick())
    shown = world.call(CLIENT.public_key, m.GetNetwork())
    assert {one.state for one in shown.nodes if one.node == a.key} == {state}


def test_nodes_keep_transcripts_for_as_long_as_they_may_be_asked_for_them() -> None:
    policy, bounds = Policy(), Parameters()
    assert bounds.transcript_age_us >= policy.draw_late_us + policy.audit_case_us
    assert bounds.prove_us >= policy.round_us + 4 * policy.audit_stage_us
