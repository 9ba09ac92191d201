"""The whole node process, in memory: real core, runtime, store and network, scripted engine."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from assay_network.session import Session
from assay_node.app import run_node
from assay_node.core.parameters import Parameters
from assay_node.engine.grammar import dialect
from assay_node.engine.scripted import Script
from assay_node.status import read_status
from assay_node.store import Mark, ReceiptStore, Saved
from assay_protocol.codec import encode
from assay_protocol.errors import AssayError, PeerGone, RemoteError
from assay_protocol.grammars import pack_grammar
from assay_protocol.hashing import grammar_hash
from assay_protocol.messages import (
    Ack,
    AuditAccept,
    AuditCommit,
    AuditReveal,
    AuditTask,
    Heartbeat,
    LeavesOpened,
    OpenLeaves,
    Receipt,
    Register,
    RevealRequest,
    SubmitReceipt,
    Ticket,
    Transcript,
    TranscriptRequest,
)
from assay_protocol.signing import open_signed, peek, seal
from node.app_world import CLIENT, COORDINATOR, QUICK, SAMPLER, World, nonce_of, open_world

LONG = Script(end_bias=-100.0)
AUDIT = b"audit number one"


async def test_a_job_is_streamed_receipted_booked_and_drained(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        async with world.node(LONG) as node:
            end = await world.run_job(world.ticket(node.register, 1), node.register)
            submitted = await world.coordinator.hear(SubmitReceipt)
        assert len(end.tokens) == 100
        assert submitted.receipt == end.receipt_blob
        ack = open_signed(Ack, submitted.ack, CLIENT.public_key)
        assert ack.count == 100
        assert node.code == 0
        beat = await world.coordinator.hear(Heartbeat)
        assert beat.draining
    store = ReceiptStore(tmp_path / "receipts.sqlite")
    [row] = store.export_receipts()
    store.close()
    assert (row.state, row.charged, row.receipt) == ("booked", 9, end.receipt_blob)
    status = read_status(tmp_path)
    assert (status["phase"], status["jobs_done"], status["tokens"]) == ("drained", 1, 100)
    assert status["earned"] == 5


async def test_what_was_not_booked_is_handed_in_by_the_next_run(tmp_path: Path) -> None:
    hasty = replace(QUICK, drain_us=0, deliver_us=50_000)
    async with open_world(tmp_path) as world:
        world.coordinator.books = False
        async with world.node(LONG, parameters=hasty) as node:
            ticket = world.ticket(node.register, 1)
            end = await world.run_job(ticket, node.register)
            await world.coordinator.hear(SubmitReceipt)
        world.coordinator.books = True
        async with world.node(LONG) as again:
            second = await world.coordinator.hear(SubmitReceipt, 2)
            assert second.receipt == end.receipt_blob
            with pytest.raises(RemoteError) as caught:
                await world.run_job(ticket, again.register)
        assert caught.value.code == "ticket_replayed"


async def test_a_ticket_s_id_is_answered_once_whatever_is_issued_later(tmp_path: Path) -> None:
    """Two receipts for one id cost the node its bond: a coordinator might give one again."""
    async with open_world(tmp_path) as world:
        async with world.node(LONG) as node:
            old = replace(world.ticket(node.register, 1), issued_at=1, expires_at=2)
        store = ReceiptStore(tmp_path / "receipts.sqlite")
        blob = seal(COORDINATOR, old)
        store.write(
            [Saved(old.ticket, b"receipt", None, blob, 3)], [Mark(old.ticket, "booked", 1, "")]
        )
        assert store.has(old.ticket)
        assert not store.has(bytes(16))
        assert store.used_tickets(3) == {}
        store.close()
        async with world.node(LONG) as again:
            with pytest.raises(RemoteError) as caught:
                await world.run_job(world.ticket(again.register, 1), again.register)
            assert caught.value.code == "ticket_replayed"
            await world.run_job(world.ticket(again.register, 2), again.register)


async def test_a_dead_engine_sends_the_client_elsewhere_and_the_node_lives(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        async with world.node(LONG):
            assert (tmp_path / "benchmark.json").exists()  # so that the next one measures nothing
        async with world.node(Script(end_bias=-100.0, die_at=40)) as node:
            with pytest.raises(RemoteError) as caught:
                await world.run_job(world.ticket(node.register, 1), node.register)
            assert caught.value.code == "engine_failed"
            await world.coordinator.hear(Heartbeat, 2)
        assert not [m for m in world.coordinator.heard if isinstance(m, SubmitReceipt)]
        assert node.code == 0


async def test_a_client_that_vanishes_leaves_a_receipt_at_the_coordinator(tmp_path: Path) -> None:
    slow = Script(end_bias=-100.0, seconds_per_token=0.002)
    async with open_world(tmp_path) as world:
        async with world.node(slow) as node:
            ticket = world.ticket(node.register, 1)
            world.nursery.start_soon(_start_and_forget, world, ticket, node.register)
            submitted = await world.coordinator.hear(SubmitReceipt)
        receipt = peek(Receipt, submitted.receipt)
        assert receipt.finish == "cancelled"
        assert 0 < receipt.n_out < 100


async def _start_and_forget(world: World, ticket: Ticket, register: Register) -> None:
    with trio.move_on_after(0.05):
        await world.run_job(ticket, register)


async def test_it_registers_again_when_the_coordinator_comes_back(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node(LONG):
        world.coordinator.sessions[-1].end(PeerGone("restarted"))
        assert await world.coordinator.hear(Register, 2)


async def test_an_audit_runs_through_the_real_engine(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.node(LONG) as node:
        ticket = world.ticket(node.register, 1)
        end = await world.run_job(ticket, node.register)
        receipt = peek(Receipt, end.receipt_blob or b"")
        session = world.coordinator.sessions[-1]
        _tell(session, _task(ticket, receipt))
        accepted = await world.coordinator.hear(AuditAccept)
        asked = TranscriptRequest(audit=AUDIT, ticket=ticket.ticket, box_key=accepted.box_key)
        _tell(session, asked)
        _tell(session, await world.coordinator.hear(Transcript))
        await world.coordinator.hear(AuditCommit)
        _tell(session, OpenLeaves(audit=AUDIT, ticket=ticket.ticket))
        opened = await world.coordinator.hear(LeavesOpened)
        _tell(session, RevealRequest(audit=AUDIT))
        reveal = await world.coordinator.hear(AuditReveal)
        assert (reveal.mismatches, reveal.fault) == ((), None)
        assert (reveal.raws, reveal.sketches) == (opened.raws, opened.sketches)
        assert len(reveal.sketches or b"") == 10 * receipt.n_out


async def test_a_grammar_goes_all_the_way_and_a_bad_one_harms_nobody(tmp_path: Path) -> None:
    grammar = pack_grammar("regex", "([a-f]{3}-){2,4}end")
    bad = pack_grammar("json_schema", '{"type":"array","uniqueItems":true}')
    async with open_world(tmp_path) as world, world.node(replace(LONG, grammars=True)) as node:
        assert node.register.offers[0].grammar == dialect()
        held = replace(SAMPLER, grammar=grammar_hash(nonce_of(1), grammar))
        ticket = world.ticket(node.register, 1, sampler=held)
        refused = replace(SAMPLER, grammar=grammar_hash(nonce_of(2), bad))
        with pytest.raises(RemoteError) as caught:
            other = world.ticket(node.register, 2, sampler=refused)
            await world.run_job(other, node.register, bad)
        assert caught.value.code == "grammar_refused"
        end = await world.run_job(ticket, node.register, grammar)
        assert re.fullmatch(rb"([a-f]{3}-){2,4}end", bytes(end.tokens[:-1]))
        assert end.receipt_blob is not None
        reveal = await _audited(world, ticket, peek(Receipt, end.receipt_blob))
        assert (reveal.mismatches, reveal.fault) == ((), None)


async def _audited(world: World, ticket: Ticket, receipt: Receipt) -> AuditReveal:
    """The node's own replay of its answer, up to what it reveals."""
    session = world.coordinator.sessions[-1]
    _tell(session, _task(ticket, receipt))
    accepted = await world.coordinator.hear(AuditAccept)
    _tell(
        session,
        TranscriptRequest(audit=AUDIT, ticket=ticket.ticket, box_key=accepted.box_key),
    )
    _tell(session, await world.coordinator.hear(Transcript))
    await world.coordinator.hear(AuditCommit)
    _tell(session, RevealRequest(audit=AUDIT))
    reveal: AuditReveal = await world.coordinator.hear(AuditReveal)
    return reveal


def _tell(session: Session, message: object) -> None:
    session.notify(encode(message))


def _task(ticket: Ticket, receipt: Receipt) -> AuditTask:
    same = ("ticket", "seed_ticket", "model", "sampler", "max_tokens", "start", "n_in")
    copied = {name: getattr(ticket, name) for name in (*same, "prompt_hash", "nonce_commitment")}
    return AuditTask(
        audit=AUDIT,
        n_out=receipt.n_out,
        output_hash=receipt.output_hash,
        finish=receipt.finish,
        deadline_at=1 << 62,
        **copied,
    )


async def test_the_model_is_verified_before_any_engine_is_made(tmp_path: Path) -> None:
    def corrupt(settings: object, card: object) -> object:
        raise AssayError("model_corrupt")

    def engine(settings: object, prepared: object) -> object:
        raise AssertionError("an engine was made of an unverified file")

    async with open_world(tmp_path) as world:
        with pytest.raises(AssayError) as caught:
            await run_node(
                world.settings(),
                prepare=corrupt,  # type: ignore[arg-type]  # never returns
                engine_factory=engine,  # type: ignore[arg-type]  # never called
                host_factory=world.host,
                parameters=Parameters(),
            )
        assert caught.value.code == "model_corrupt"
