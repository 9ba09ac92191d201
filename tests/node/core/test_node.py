"""The node as a whole: lease, outbox, drain, standing, and notices that make no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.outbox import FINAL_REFUSALS, Outbox, Owed
from assay_node.core.parameters import Parameters
from assay_node.core.sealing import Secrets
from assay_protocol.codec import decode, encode
from assay_protocol.errors import RemoteError
from assay_protocol.messages import (
    AuditDecline,
    Error,
    Heartbeat,
    ReceiptBooked,
    Register,
    StandingChanged,
    SubmitReceipt,
)
from node.core.node_bench import END, NOW, SECOND, Bench, finished_job, make_bench, make_ticket

OWED = Owed(b"t" * 16, b"ticket blob", b"r" * 70, None)


def refuse(bench: Bench, request: do.Request, code: str) -> list[do.Effect]:
    return bench.post(on.Answered(request.request, encode(Error(code=code, detail=""))))


def refused_start(bench: Bench, number: int) -> str:
    with pytest.raises(RemoteError) as caught:
        bench.start(number, make_ticket(number))
    return caught.value.code


# lease


def test_it_registers_as_soon_as_there_is_a_session() -> None:
    bench = make_bench(registered=False)
    assert not bench.requests(bench.post(on.Tick()), Register)
    [request] = bench.requests(bench.post(on.SessionUp()), Register)
    message = decode(request.body)
    assert isinstance(message, Register)
    assert message.offers[0].slots == 2


def test_heartbeats_follow_the_coordinators_beat_one_at_a_time() -> None:
    bench = make_bench()
    assert not bench.requests(bench.later(5 * SECOND - 1), Heartbeat)
    effects = bench.later(1)
    assert len(bench.requests(effects, Heartbeat)) == 1
    assert not bench.requests(bench.later(9 * SECOND), Heartbeat)
    bench.answer_heartbeat(effects, earned=12, audits_passed=3)
    assert (bench.node.repute.earned, bench.node.repute.audits_passed) == (12, 3)


def test_a_node_with_nothing_to_do_rests_until_its_next_heartbeat() -> None:
    bench = make_bench()
    beat_at = bench.node.rests_until
    assert beat_at == bench.now + 5 * SECOND
    effects = bench.later(5 * SECOND)
    assert bench.node.rests_until == 0, "an answer is awaited"
    bench.answer_heartbeat(effects)
    assert bench.node.rests_until == beat_at + 5 * SECOND
    bench.post(on.SessionDown())
    assert bench.node.rests_until == 0


def test_a_node_that_owes_or_keeps_anything_does_not_rest() -> None:
    bench = make_bench()
    finished_job(bench)
    assert bench.node.rests_until == 0
    bench.book(bench.save_all())
    assert bench.node.receipts_owed == 0
    assert bench.node.rests_until == 0, "the transcript is kept for an audit"
    draining = make_bench()
    draining.post(on.Drain())
    assert draining.node.rests_until == 0


def test_a_lost_lease_is_taken_again_at_once_then_with_growing_waits() -> None:
    bench = make_bench()
    [beat] = bench.requests(bench.later(5 * SECOND), Heartbeat)
    [again] = bench.requests(refuse(bench, beat, "not_registered"), Register)
    waits = []
    for _ in range(8):
        effects, waited = refuse(bench, again, "busy"), 0
        while not bench.requests(effects, Register):
            effects = bench.later(SECOND // 4)
            waited += 1
        [again] = bench.requests(effects, Register)
        waits.append(waited / 4)
    assert 0.5 <= waits[0] <= 1.25
    assert 30 <= waits[-1] <= 60.25


def test_an_answer_of_an_ended_session_is_ignored() -> None:
    bench = make_bench(registered=False)
    [old] = bench.requests(bench.post(on.SessionUp()), Register)
    bench.post(on.SessionDown())
    assert len(bench.requests(bench.post(on.SessionUp()), Register)) == 1
    assert not bench.post(on.Failed(old.request, "peer_gone"))


def test_no_lease_no_jobs_and_a_lapsed_one_serves_its_last_tickets() -> None:
    assert refused_start(make_bench(registered=False), 1) == "not_registered"
    bench = make_bench()
    bench.post(on.SessionDown())
    bench.now += 30 * SECOND
    bench.start(1, make_ticket(1))
    bench.now = NOW + 621 * SECOND
    with pytest.raises(RemoteError, match="not_registered"):
        bench.start(2, make_ticket(2, expires_at=bench.now + SECOND))


def test_a_suspended_node_serves_nobody() -> None:
    bench = make_bench()
    bench.post(on.Noticed(encode(StandingChanged(state="suspended", reason="audits"))))
    assert refused_start(bench, 1) == "suspended"
    assert bench.node.repute.reason == "audits"


@given(st.binary(max_size=100), st.integers(0, 3))
def test_any_bytes_of_the_coordinator_do_no_harm(data: bytes, request: int) -> None:
    bench = make_bench()
    bench.post(on.Noticed(data))
    bench.post(on.Answered(request, data))
    bench.start(1, make_ticket(1))
    assert bench.node.running == 1


# receipts


def test_a_receipt_is_saved_before_it_is_sent_and_sent_until_booked() -> None:
    bench = make_bench()
    finished_job(bench)
    bench.later(SECOND)
    assert not bench.requests(bench.done, SubmitReceipt)
    [first] = bench.requests(bench.save_all(), SubmitReceipt)
    bench.post(on.Failed(first.request, "timeout"))
    effects = bench.later(SECOND)
    [second] = bench.requests(effects, SubmitReceipt)
    assert second.body == first.body
    assert bench.book(effects) == [do.MarkReceipt((1).to_bytes(16, "big"), "booked", 7)]
    assert bench.node.receipts_owed == 0
    bench.post(on.Answered(second.request, second.body))
    assert bench.node.tally.receipts_booked == 1


@pytest.mark.parametrize("code", sorted(FINAL_REFUSALS))
def test_a_final_refusal_is_marked_and_not_sent_again(code: str) -> None:
    bench = make_bench()
    finished_job(bench)
    [request] = bench.requests(bench.save_all(), SubmitReceipt)
    effects = refuse(bench, request, code)
    assert do.MarkReceipt((1).to_bytes(16, "big"), "refused", 0, code) in effects
    assert not bench.requests(bench.later(120 * SECOND), SubmitReceipt)
    assert bench.node.tally.receipts_refused == 1


def test_a_booking_of_another_ticket_does_not_count() -> None:
    bench = make_bench()
    finished_job(bench)
    [request] = bench.requests(bench.save_all(), SubmitReceipt)
    other = ReceiptBooked(ticket=b"x" * 16, charged=1)
    bench.post(on.Answered(request.request, encode(other)))
    assert bench.node.receipts_owed == 1


def test_a_full_disk_stops_new_jobs_until_the_receipt_is_saved() -> None:
    bench = make_bench()
    finished_job(bench)
    for save in bench.of(do.SaveReceipt):
        bench.post(on.ReceiptNotSaved(save.ticket, "disk_full"))
    assert refused_start(bench, 2) == "disk_full"
    bench.done.clear()
    bench.later(2 * SECOND)
    assert len(bench.of(do.SaveReceipt)) == 1
    bench.save_all()
    bench.start(3, make_ticket(3))
    assert bench.node.running == 1


def test_receipts_of_an_earlier_run_are_sent_and_their_tickets_stay_used() -> None:
    ticket = make_ticket(1)
    bench = make_bench(owed=[OWED], used={ticket.ticket: ticket.expires_at})
    assert len(bench.requests(bench.done, SubmitReceipt)) == 1
    assert refused_start(bench, 1) == "ticket_replayed"


class OutboxMachine(RuleBasedStateMachine):
    """In whatever order things happen, nothing is lost, sent unsaved or sent twice."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(Parameters(outbox_in_flight_max=3), Secrets(b"s" * 32))
        self.now, self.number = 0, 0
        self.unsaved: list[bytes] = []
        self.saved: set[bytes] = set()
        self.flying: list[bytes] = []
        self.ended: set[bytes] = set()

    def note(self, effects: list[do.Effect]) -> None:
        self.unsaved += [e.ticket for e in effects if isinstance(e, do.SaveReceipt)]

    @rule(ack=st.sampled_from([None, b"ack"]))
    def finish_job(self, ack: bytes | None) -> None:
        self.number += 1
        ticket = self.number.to_bytes(16, "big")
        self.note(self.outbox.add(Owed(ticket, b"t", b"r" * 70, None)))
        self.note(self.outbox.settle(ticket, ack))

    @precondition(lambda self: self.unsaved)
    @rule(works=st.booleans())
    def disk(self, works: bool) -> None:
        ticket = self.unsaved.pop(0)
        if works:
            self.outbox.saved(ticket)
            self.saved.add(ticket)
        else:
            self.outbox.not_saved(self.now, ticket, "disk_full")

    @rule(wait=st.integers(0, 70 * SECOND))
    def send(self, wait: int) -> None:
        self.now += wait
        saves, sends = self.outbox.due(self.now, may_send=True)
        self.note(saves)
        for ticket, _ in sends:
            assert ticket in self.saved, "persist before send"
            assert ticket not in self.flying
            assert ticket not in self.ended
            self.flying.append(ticket)

    @precondition(lambda self: self.flying)
    @rule(code=st.sampled_from(["", "timeout", "receipt_mismatch"]))
    def answer(self, code: str) -> None:
        ticket = self.flying.pop(0)
        if code:
            self.outbox.refused(self.now, ticket, code)
        else:
            self.outbox.booked(ReceiptBooked(ticket=ticket, charged=0))
        if code != "timeout":
            self.ended.add(ticket)

    @invariant()
    def all_are_accounted_for(self) -> None:
        assert len(self.outbox) == self.number - len(self.ended)
        assert len(self.flying) <= 3


TestOutbox = OutboxMachine.TestCase


# leaving


def test_an_idle_node_says_so_and_drains() -> None:
    bench = make_bench()
    effects = bench.post(on.Drain())
    [beat] = bench.requests(effects, Heartbeat)
    message = decode(beat.body)
    assert isinstance(message, Heartbeat)
    assert (message.draining, message.free_slots) == (True, 0)
    assert do.Drained() not in effects
    bench.answer_heartbeat(effects)
    assert bench.of(do.Drained) == [do.Drained()]


def test_a_silent_coordinator_does_not_keep_an_idle_node() -> None:
    bench = make_bench()
    bench.post(on.Drain())
    assert not bench.of(do.Drained, bench.later(10 * SECOND - 1))
    assert bench.of(do.Drained, bench.later(1))


def test_a_node_without_a_session_drains_at_once() -> None:
    bench = make_bench()
    bench.post(on.SessionDown())
    assert do.Drained() in bench.post(on.Drain())


def test_draining_finishes_jobs_and_delivers_before_it_ends() -> None:
    bench = make_bench()
    client = bench.start(1, make_ticket(1))
    bench.answer_heartbeat(bench.post(on.Drain()))
    assert refused_start(bench, 2) == "draining"
    client.draw(11, END, finish="stop")
    client.reply()
    effects = bench.save_all()
    assert not bench.of(do.Drained)
    asked = bench.book(effects)
    assert not bench.of(do.Drained), "the receipt may have been drawn for an audit"
    bench.answer_heartbeat(asked, drawn=1)
    assert not bench.node.drained, "only this process can show the transcript"
    bench.answer_heartbeat(bench.later(10 * SECOND), drawn=0)
    assert bench.of(do.Drained) == [do.Drained()]
    assert bench.node.drained


def test_a_drain_does_not_wait_for_ever_for_audits() -> None:
    bounds = Parameters(drain_us=20 * SECOND, deliver_us=SECOND, prove_us=5 * SECOND)
    bench = make_bench(parameters=bounds)
    bench.answer_heartbeat(bench.post(on.Drain()), drawn=3)
    assert not bench.of(do.Drained, bench.later(26 * SECOND - 1))
    assert bench.of(do.Drained, bench.later(1))


def test_the_drain_timeout_sends_clients_elsewhere_and_gives_up_delivery() -> None:
    bench = make_bench(parameters=Parameters(drain_us=SECOND, deliver_us=SECOND), owed=[OWED])
    client = bench.start(1, make_ticket(1))
    bench.post(on.Drain())
    effects = bench.later(SECOND)
    with pytest.raises(RemoteError) as caught:
        client.hear(effects)
    assert caught.value.code == "draining"
    assert do.Drained() not in effects
    assert do.Drained() in bench.later(SECOND)


def test_draining_gives_open_audits_back() -> None:
    from node.core.test_audits import AUDIT, accept, task

    bench = make_bench()
    accept(bench, task())
    effects = bench.post(on.Drain())
    assert AuditDecline(audit=AUDIT, code="draining") in bench.notices(effects)


def test_a_coordinator_cannot_make_a_node_a_request_loop() -> None:
    bench = make_bench(registered=False)
    bench.register(heartbeat_ms=0)
    beats = 0
    for _ in range(100):
        effects = bench.later(SECOND // 100)
        beats += len(bench.requests(effects, Heartbeat))
        bench.answer_heartbeat(effects)
    assert 1 <= beats <= 2
