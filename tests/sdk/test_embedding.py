"""A client's job that embeds: whole, begun anew elsewhere, and what a record of it proves."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from assay.core import JobMachine, Phase
from assay.embedding import make_jobs
from assay.events import (
    AskTicket,
    Begin,
    Ended,
    Granted,
    HandIn,
    Job,
    OpenStream,
    Outcome,
    Received,
    SendFrame,
    StreamLost,
)
from assay.records import ReceiptRecord, record_of
from assay.vector_replay import EmbeddedAgain, judge_vectors
from assay.verify import verify
from assay_protocol.codec import decode_as, encode
from assay_protocol.embeddings import embedding_sampler
from assay_protocol.errors import AssayError, PeerGone
from assay_protocol.messages import AbandonJob, Finished, Receipt, StartJob, SubmitReceipt, Ticket
from assay_protocol.signing import open_signed, peek, seal
from assay_protocol.streams import NodeStream, Times
from embedding_cases import DIMS, some_vectors
from sdk.client_world import (
    CLIENT,
    COORDINATOR,
    MODEL,
    NONCE,
    FakeCoordinator,
    node_key,
)

LENGTHS = (2, 1, 3)
ROW = 4 * DIMS
VECTORS = some_vectors(3)
JOB = Job(
    model=MODEL,
    prompt=(5, 6, 7, 8, 9, 10),
    sampler=embedding_sampler(LENGTHS),
    max_tokens=3,
    nonce=NONCE,
    price_out_max=0,
    dims=DIMS,
)
Frames = Callable[[NodeStream], list[bytes]]
WIDE = SimpleNamespace(name="m", model=MODEL, dims=16_384, price_in=7)
MANY: Any = SimpleNamespace(summary=WIDE)  # what make_jobs reads of a model


def honest(stream: NodeStream) -> list[bytes]:
    frames = [stream.vectors(VECTORS[:ROW], DIMS), stream.vectors(VECTORS[ROW:], DIMS)]
    return [*frames, stream.finish("length", Times(1, 2, 3))[0]]


def half(stream: NodeStream) -> list[bytes]:
    return [stream.vectors(VECTORS[:ROW], DIMS)]


def cut_short(stream: NodeStream) -> list[bytes]:
    return [*half(stream), stream.finish("cancelled", Times(1, 2, 3))[0]]


def of_another_size(stream: NodeStream) -> list[bytes]:
    return [stream.vectors(some_vectors(3, dims=8), 8)]


def rooted_elsewhere(stream: NodeStream) -> list[bytes]:
    *frames, last = honest(stream)
    key = next(k for k in map(node_key, range(4)) if k.public_key == stream.ticket.node)
    receipt = open_signed(Receipt, decode_as(Finished, last).receipt, key.public_key)
    lie = seal(key, replace(receipt, root=bytes(32)))
    return [*frames, encode(Finished(receipt=lie))]


def run(*nodes: Frames, job: Job = JOB) -> tuple[Outcome, list[Any], FakeCoordinator]:
    """Each ticket's node in turn, which vanishes when its frames are out."""
    coordinator = FakeCoordinator(changes={n: {"price_out": 0} for n in range(1, 9)})
    machine = JobMachine(job, CLIENT, COORDINATOR.public_key)
    todo, handed, behaviours = machine.handle(0, Begin()), [], list(nodes)
    while machine.phase is not Phase.OVER or todo:
        effect = todo.pop(0)
        match effect:
            case AskTicket(attempt, body):
                todo += machine.handle(0, Granted(attempt, coordinator.grant(body)))
            case OpenStream(attempt, _, first):
                start = decode_as(StartJob, first)
                ticket = peek(Ticket, start.ticket)
                key = next(k for k in map(node_key, range(4)) if k.public_key == ticket.node)
                stream = NodeStream(ticket, start.nonce, key, "test/cpu")
                for frame in behaviours.pop(0)(stream):
                    todo += machine.handle(0, Received(attempt, frame))
                todo += machine.handle(0, StreamLost(attempt, PeerGone()))
            case HandIn(body):
                handed.append(body)
            case Ended(outcome):
                return outcome, handed, coordinator
            case SendFrame():
                pass
    raise AssertionError("it ended without saying so")


def record(outcome: Outcome) -> ReceiptRecord:
    made = record_of(outcome.segments[-1], JOB, COORDINATOR.public_key)
    assert made is not None
    return made


def test_vectors_come_with_the_receipt_that_binds_them() -> None:
    outcome, handed, _ = run(honest)
    assert (outcome.finish, outcome.error, outcome.tokens) == ("length", None, ())
    [segment] = outcome.segments
    assert segment.vectors == VECTORS
    [given] = handed
    assert isinstance(given, SubmitReceipt)


@pytest.mark.parametrize("bad", [half, of_another_size, rooted_elsewhere, lambda stream: []])
def test_a_node_that_fails_is_left_and_all_texts_go_elsewhere(bad: Frames) -> None:
    outcome, handed, coordinator = run(bad, honest)
    assert (outcome.finish, len(outcome.segments)) == ("length", 1)
    assert outcome.segments[0].vectors == VECTORS
    first, second = coordinator.asked
    assert (second.resume, second.n_in, second.max_tokens) == (None, 6, 3)
    assert second.exclude == (node_key(0).public_key,)
    assert first.nonce_commitment == second.nonce_commitment
    assert [type(one) for one in handed] == [AbandonJob, SubmitReceipt]


def test_a_node_that_signs_for_a_part_is_paid_and_left() -> None:
    outcome, handed, _ = run(cut_short, honest)
    assert outcome.segments[-1].vectors == VECTORS
    assert [type(one) for one in handed] == [SubmitReceipt, SubmitReceipt]
    assert verify(record(replace(outcome, segments=outcome.segments[:1]))).ok


def test_a_record_proves_its_vectors_and_no_others() -> None:
    outcome, _, _ = run(honest)
    good = ReceiptRecord.decode(record(outcome).encode())
    checked = verify(good, COORDINATOR.public_key)
    assert checked.ok
    assert ("leaves root", True) in [(step.name, step.ok) for step in checked.steps]
    assert checked.price == 6
    swapped = replace(good, output=VECTORS[ROW:] + VECTORS[:ROW])
    assert set(verify(swapped).failed) == {"output", "leaves root"}
    for broken in (b"", VECTORS[:-4], VECTORS[:-1] + b"\xff"):
        assert not verify(replace(good, output=broken)).ok
    key = node_key(0)
    lie = seal(key, replace(peek(Receipt, good.receipt), root=bytes(32)))
    assert verify(replace(good, receipt=lie)).failed == ("leaves root",), "hash and root disagree"


def test_a_recomputation_decides_in_the_exact_class_and_weighs_in_others() -> None:
    outcome, _, _ = run(honest)
    good = record(outcome)
    exact = seal(node_key(0), replace(peek(Receipt, good.receipt), class_id="x/E"))
    rows = tuple(VECTORS[at : at + ROW] for at in range(0, len(VECTORS), ROW))
    near = (_nudged(rows[0], 0.01), *rows[1:])
    far = (some_vectors(1, seed=5), *rows[1:])
    for receipt, ours, class_id, ok in (
        (exact, rows, "x/E", True),
        (exact, near, "x/E", False),
        (exact, near, "y/E", None),
        (good.receipt, rows, "test/cpu", None),
        (good.receipt, far, "test/cpu", False),
        (good.receipt, tuple(row[:-4] for row in rows), "test/cpu", False),
    ):
        found = EmbeddedAgain(class_id, ours)
        [step] = judge_vectors(replace(good, receipt=receipt), found).steps
        assert step.ok is ok, step


def _nudged(row: bytes, by: float) -> bytes:
    numbers = list(struct.unpack(f"<{DIMS}f", row))
    numbers[0] += by
    return struct.pack(f"<{DIMS}f", *numbers)


def test_many_texts_are_several_jobs_in_order() -> None:
    texts = [(i,) * (1 + i % 3) for i in range(150)]
    jobs = make_jobs(MANY, texts)
    assert [job.max_tokens for job in jobs] == [64, 64, 22]
    assert [n for job in jobs for n in job.sampler.texts or ()] == [len(one) for one in texts]
    assert [t for job in jobs for t in job.prompt] == [t for one in texts for t in one]
    assert len({job.nonce for job in jobs}) == 3
    long = make_jobs(MANY, [(1,) * 70_000, (2,) * 70_000])
    assert [len(job.prompt) for job in long] == [70_000, 70_000]
    with pytest.raises(AssayError, match="verify_refused"):
        make_jobs(MANY, texts, verify="quorum")
    with pytest.raises(ValueError, match="verify must be"):
        make_jobs(MANY, texts, verify="perhaps")
