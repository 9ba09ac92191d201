"""One job's life: flow control, the ways it ends, and the receipt each leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.parameters import Parameters
from assay_node.engine.interface import Chunk
from assay_protocol.codec import decode, encode
from assay_protocol.errors import RemoteError
from assay_protocol.hashing import job_seed
from assay_protocol.limits import UNACKED_TOKENS_MAX
from assay_protocol.messages import Ack, LeavesOpened, OpenLeaves, Receipt, SendAck
from assay_protocol.receipts import check_receipt
from assay_protocol.signing import open_signed, peek, seal
from node.core.node_bench import (
    CLIENT,
    END,
    NODE,
    NOW,
    SECOND,
    SERVED,
    Bench,
    finished_job,
    make_bench,
    make_ticket,
    nonce_of,
)


def long_bench(**bounds: int) -> Bench:
    return make_bench(served=(replace(SERVED, context=2_048),), parameters=Parameters(**bounds))


def receipt_of(bench: Bench) -> Receipt:
    saves = bench.of(do.SaveReceipt)
    return open_signed(Receipt, saves[-1].receipt, NODE.public_key)


def test_the_engine_is_asked_for_the_job_of_the_ticket() -> None:
    bench = make_bench()
    ticket = make_ticket(1, start=2, seed_ticket=b"first ticket id.")
    bench.start(4, ticket)
    [asked] = bench.of(do.StartGenerate)
    assert asked.stream == 4
    assert asked.generate.prompt == (5, 6, 7)
    assert (asked.generate.start, asked.generate.max_tokens) == (2, 8)
    assert asked.generate.seed == job_seed(b"first ticket id.", nonce_of(1))


def test_a_finished_job_leaves_a_receipt_the_client_accepts_and_acknowledges() -> None:
    bench = make_bench()
    client = finished_job(bench)
    receipt = receipt_of(bench)
    check_receipt(receipt, client.end.ticket)
    assert client.end.tokens == [11, 12, 13, 14, 15, END]
    assert (receipt.finish, receipt.n_out) == ("stop", 6)
    first, last = bench.of(do.SaveReceipt)
    assert first.ack is None
    ack = open_signed(Ack, last.ack, CLIENT.public_key)
    assert (ack.count, ack.output_hash) == (6, receipt.output_hash)
    assert bench.of(do.CloseStream) == [do.CloseStream(1)]
    assert not bench.of(do.StopGenerate)


def test_logprobs_travel_with_their_tokens_through_a_full_window() -> None:
    bench = long_bench()
    sampler = replace(make_ticket(1).sampler, logprobs=2)
    client = bench.start(1, make_ticket(1, max_tokens=200, sampler=sampler))
    tokens = tuple(range(9, 9 + UNACKED_TOKENS_MAX + 40))
    client.draw(*tokens, finish=None)  # ClientStream refuses any that is not its token's
    while client.replies:
        client.reply()
    assert client.end.tokens == list(tokens)


def test_an_engine_that_leaves_logprobs_out_is_not_believed() -> None:
    bench = make_bench()
    sampler = replace(make_ticket(1).sampler, logprobs=0)
    bench.start(1, make_ticket(1, sampler=sampler))
    effects = bench.post(on.Drawn(1, Chunk((11,), bytes(4), None, sketches=bytes(10))))
    assert bench.of(do.StopGenerate, effects)


@pytest.mark.parametrize(
    ("class_id", "sketches", "cut"),
    [
        ("scripted", 10, False),
        ("scripted", 0, True),
        ("scripted", 20, True),
        ("x/L", 0, False),
        ("x/L", 10, True),
    ],
)
def test_a_class_has_its_leaves_or_no_answer(class_id: str, sketches: int, cut: bool) -> None:
    bench = make_bench(served=(replace(SERVED, class_id=class_id),))
    bench.start(1, make_ticket(1))
    chunk = Chunk((11,), bytes(4), None, sketches=bytes(sketches))
    assert bool(bench.of(do.StopGenerate, bench.post(on.Drawn(1, chunk)))) == cut


@pytest.mark.parametrize(("tokens", "a_token"), [(128, 2.95), (512, 0.75)])
def test_a_signed_receipt_is_small(tokens: int, a_token: float) -> None:
    class_id = "llama.cpp/0123abcd/cpu-avx512/fa-split48/kv-f16/Q8_0/E"
    bench = make_bench(served=(replace(SERVED, class_id=class_id, context=1_024),))
    ticket = make_ticket(1, max_tokens=tokens, calibration=9)
    client = bench.start(1, ticket)
    for at in range(0, tokens, 32):
        last = at + 32 == tokens
        client.draw(*range(1, 33), finish="length" if last else None)
        client.reply()
    receipt = bench.of(do.SaveReceipt)[-1].receipt
    assert peek(Receipt, receipt).calibration == 9
    assert len(receipt) <= a_token * tokens


def test_what_is_kept_of_a_token_and_what_is_opened_is_small() -> None:
    bench = make_bench(served=(replace(SERVED, context=1_024),))
    client = bench.start(1, make_ticket(1, max_tokens=128))
    for at in range(0, 128, 32):
        client.draw(*range(1, 33), finish="length" if at == 96 else None)
        client.reply()
    opened = bench.node._transcripts.open_leaves(
        OpenLeaves(audit=bytes(16), ticket=make_ticket(1).ticket)
    )
    assert isinstance(opened, LeavesOpened)
    kept = len(opened.raws or b"") + len(opened.sketches or b"")
    assert kept == 12 * 128
    assert len(opened.hashes) + kept == 1_792
    assert len(encode(opened)) <= 2_048


def test_each_chunk_that_fits_asks_for_the_next() -> None:
    bench = make_bench()
    client = bench.start(1, make_ticket(1))
    assert do.NextChunk(1) in client.draw(11)
    assert do.NextChunk(1) not in client.draw(END, finish="stop")


def test_a_client_that_does_not_acknowledge_gets_no_more_than_the_window() -> None:
    bench = long_bench()
    client = bench.start(1, make_ticket(1, max_tokens=300))
    effects = client.draw(*[9] * 200)
    assert len(client.end.tokens) == UNACKED_TOKENS_MAX
    assert not bench.of(do.NextChunk, effects)
    client.reply()
    assert len(client.end.tokens) == 200
    assert bench.of(do.NextChunk)


def test_a_slow_reader_ends_with_a_receipt_for_what_was_sent() -> None:
    bench = long_bench()
    client = bench.start(1, make_ticket(1, max_tokens=300))
    client.draw(*[9] * 200)
    bench.later(30 * SECOND - 1)
    assert not bench.of(do.SaveReceipt)
    bench.later(1)
    receipt = receipt_of(bench)
    assert (receipt.finish, receipt.n_out) == ("slow_reader", UNACKED_TOKENS_MAX)
    assert bench.of(do.StopGenerate)


def test_cancelling_gives_the_receipt_for_what_was_sent() -> None:
    bench = make_bench()
    client = bench.start(1, make_ticket(1))
    client.draw(11, 12)
    client.hear(bench.post(on.StreamFrame(1, client.end.cancel())))
    assert (receipt_of(bench).finish, receipt_of(bench).n_out) == ("cancelled", 2)
    assert bench.of(do.StopGenerate)
    client.reply()
    assert bench.of(do.CloseStream)


def test_a_lost_client_still_owes_what_it_got() -> None:
    bench = long_bench()
    client = bench.start(1, make_ticket(1, max_tokens=300))
    client.draw(*[9] * 40)
    client.reply()
    client.draw(9, 9)
    bench.post(on.StreamLost(1))
    receipt, [save] = receipt_of(bench), bench.of(do.SaveReceipt)
    assert (receipt.finish, receipt.n_out) == ("cancelled", 42)
    assert open_signed(Ack, save.ack, CLIENT.public_key).count == 40
    assert bench.node.running == 0


def test_a_failed_engine_leaves_no_receipt_and_tells_the_client() -> None:
    bench = make_bench()
    client = bench.start(1, make_ticket(1))
    client.draw(11)
    with pytest.raises(RemoteError) as caught:
        client.hear(bench.post(on.EngineStopped(1, "engine_failed")))
    assert caught.value.code == "engine_failed"
    assert not bench.of(do.SaveReceipt)
    assert bench.node.tally.jobs_failed == 1


def test_a_silent_engine_is_a_failed_one() -> None:
    bench = make_bench()
    bench.start(1, make_ticket(1))
    effects = bench.later(300 * SECOND)
    assert do.StopGenerate(1) in effects
    assert bench.node.running == 0


def test_a_false_acknowledgement_ends_the_stream_with_the_last_good_one() -> None:
    bench = make_bench()
    client = bench.start(1, make_ticket(1))
    client.draw(11)
    false = Ack(ticket=client.end.ticket.ticket, count=1, output_hash=b"x" * 32)
    effects = bench.post(on.StreamFrame(1, encode(SendAck(ack=seal(CLIENT, false)))))
    [save] = bench.of(do.SaveReceipt)
    assert save.ack is None
    [frame] = [e for e in effects if isinstance(e, do.SendFrame)]
    assert type(decode(frame.frame)).__name__ == "Error"
    assert do.CloseStream(1) in effects


def test_a_client_that_never_acknowledges_the_receipt_is_not_waited_for() -> None:
    bench = make_bench()
    client = bench.start(1, make_ticket(1))
    client.draw(END, finish="stop")
    assert not bench.of(do.CloseStream)
    bench.later(2 * SECOND)
    assert bench.of(do.CloseStream) == [do.CloseStream(1)]


def test_times_stay_in_order_when_the_clock_steps_back() -> None:
    bench = make_bench()
    client = bench.start(1, make_ticket(1))
    bench.now = NOW - 5 * SECOND
    client.draw(END, finish="stop")
    receipt = receipt_of(bench)
    assert receipt.started_at <= receipt.first_at <= receipt.ended_at
