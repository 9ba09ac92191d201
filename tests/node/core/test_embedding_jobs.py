"""Jobs that embed in the node's core: admitted, streamed, shown to auditors without the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.sealing import NaclSealing
from assay_node.engine.interface import Chunk, Replayed
from assay_protocol.codec import decode, decode_as, encode
from assay_protocol.embeddings import VectorWriter, embedding_sampler
from assay_protocol.hashing import pack_tokens
from assay_protocol.leaves import opened_root
from assay_protocol.limits import DIMS_MAX, VECTOR_FRAME_BYTES_MAX
from assay_protocol.messages import (
    AuditDecline,
    AuditReveal,
    Error,
    LeavesOpened,
    OpenLeaves,
    Receipt,
    Register,
    RevealRequest,
    StartJob,
    Ticket,
    Transcript,
    TranscriptBody,
    TranscriptRequest,
)
from assay_protocol.signing import peek, seal
from embedding_cases import DIMS, some_vectors
from node.core.audit_bench import AUDIT, accept, sealed, task, tell
from node.core.node_bench import (
    CLIENT,
    COORDINATOR,
    SERVED,
    Bench,
    Client,
    make_bench,
    make_ticket,
    nonce_of,
)

EMBEDS = replace(SERVED, dims=DIMS, eog=frozenset())
ROW = 4 * DIMS
SECRET = b"\x07" * 32
OTHER = make_ticket(1).prompt_hash


def ticket_of(lengths: tuple[int, ...], **changes: Any) -> Ticket:
    fields = {"sampler": embedding_sampler(lengths), "max_tokens": len(lengths), "price_out": 0}
    return make_ticket(1, prompt_of(lengths), **(fields | changes))


def prompt_of(lengths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(number % 90 + 1 for number in range(sum(lengths)))


def begun(bench: Bench, lengths: tuple[int, ...]) -> Client:
    return bench.start(1, ticket_of(lengths), prompt_of(lengths))


def computed(client: Client, vectors: bytes, finish: Any = None) -> list[do.Effect]:
    effects = client.bench.post(on.Drawn(1, Chunk((), b"", finish, vectors=vectors)))
    client.hear(effects)
    return effects


def embedded(texts: int = 20) -> tuple[Bench, Client, bytes]:
    """A whole job of texts of one token, acknowledged."""
    bench, vectors = make_bench(served=(EMBEDS,)), some_vectors(texts)
    client = begun(bench, (1,) * texts)
    computed(client, vectors[: 7 * ROW])
    computed(client, vectors[7 * ROW :], finish="length")
    client.reply()
    return bench, client, vectors


def test_texts_go_to_the_engine_and_vectors_to_the_client() -> None:
    bench, client, vectors = embedded()
    [request] = bench.requests(bench.done, Register)
    registered = decode(request.body)
    assert isinstance(registered, Register)
    assert registered.offers[0].dims == DIMS
    [started] = bench.of(do.StartGenerate)
    assert started.generate.sampler.texts == (1,) * 20
    assert started.generate.prompt == prompt_of((1,) * 20)
    assert (bytes(client.end.vectors), client.end.dims) == (vectors, DIMS)
    assert client.end.receipt_blob is not None
    receipt = peek(Receipt, client.end.receipt_blob)
    assert (receipt.n_in, receipt.n_out, receipt.finish) == (20, 20, "length")
    assert bench.node.tally.tokens == 0, "vectors are no tokens"
    assert bench.of(do.SaveReceipt)


def test_frames_are_small_and_wait_for_acknowledgements() -> None:
    wide = replace(SERVED, dims=4_096, eog=frozenset())
    bench, texts = make_bench(served=(wide,)), 200
    client = begun(bench, (1,) * texts)
    computed(client, some_vectors(texts, dims=4_096), finish="length")
    frames = [decode(frame.frame) for frame in bench.of(do.SendFrame)]
    assert {len(frame.vectors) for frame in frames} == {VECTOR_FRAME_BYTES_MAX}  # type: ignore[union-attr]
    assert len(client.end.vectors) == 128 * 4 * 4_096, "the window"
    client.reply()
    client.reply()
    assert client.end.receipt_blob is not None


def test_an_auditor_is_shown_the_texts_and_not_the_vectors() -> None:
    bench, client, _ = embedded()
    asked = TranscriptRequest(
        audit=AUDIT, ticket=client.end.ticket.ticket, box_key=NaclSealing().public_key(SECRET)
    )
    [transcript] = bench.notices(tell(bench, asked))
    assert isinstance(transcript, Transcript)
    body = decode_as(TranscriptBody, NaclSealing().open(transcript.sealed, SECRET))
    assert (body.output, body.prompt) == (b"", pack_tokens(prompt_of((1,) * 20)))
    assert client.end.receipt_blob is not None
    opening = OpenLeaves(audit=AUDIT, ticket=client.end.ticket.ticket)
    [opened] = bench.notices(tell(bench, opening))
    assert isinstance(opened, LeavesOpened)
    receipt = peek(Receipt, client.end.receipt_blob)
    assert opened_root(opened, receipt) == receipt.root


def audited(replay: int | None, vectors: bytes) -> AuditReveal:
    """What an auditor of the job of `embedded` reveals, that computed `vectors`."""
    bench = make_bench(served=(EMBEDS,))
    lengths = (1,) * 20
    fields = {"sampler": embedding_sampler(lengths), "n_in": 20, "max_tokens": 20, "n_out": 20}
    hashed = {"prompt_hash": ticket_of(lengths).prompt_hash, "output_hash": bytes(32)}
    asked = task(finish="length", replay=replay, **fields, **hashed)
    shown = sealed(accept(bench, asked), prompt=prompt_of(lengths), output=())
    [started] = tell(bench, shown)
    assert isinstance(started, do.StartReplay)
    texts = replay or 20
    assert started.replay.sampler.texts == (1,) * texts
    assert started.replay.prompt == prompt_of(lengths)[:texts]
    bench.post(on.ReplayDone(AUDIT, Replayed((), b"", (), (), vectors=vectors)))
    [reveal] = bench.notices(tell(bench, RevealRequest(audit=AUDIT)))
    assert isinstance(reveal, AuditReveal | AuditDecline)
    return reveal  # type: ignore[return-value]


@pytest.mark.parametrize("replay", [None, 16])
def test_an_auditor_commits_to_leaves_of_its_own_vectors(replay: int | None) -> None:
    texts = replay or 20
    own = some_vectors(20)[: texts * ROW]
    reveal = audited(replay, own)
    writer = VectorWriter(make_ticket(1).ticket, make_ticket(1).seed_ticket, nonce_of(1))
    writer.add(own, DIMS)
    assert (reveal.raws, reveal.sketches) == (writer.leaves().raws, writer.leaves().sketches)
    assert (reveal.fault, reveal.gaps, reveal.mismatches) == (None, None, ())


def test_an_engine_that_computed_something_else_gives_the_audit_back() -> None:
    for wrong in (some_vectors(19), some_vectors(20)[:-1], bytes(20 * ROW), b""):
        assert isinstance(audited(None, wrong), AuditDecline)


def test_a_transcript_that_shows_an_answer_is_a_fault() -> None:
    bench = make_bench(served=(EMBEDS,))
    fields = {"sampler": embedding_sampler((1, 2)), "n_in": 3, "max_tokens": 2, "n_out": 2}
    shown = sealed(accept(bench, task(finish="length", **fields)), output=(1, 2))
    tell(bench, shown)
    [reveal] = bench.notices(tell(bench, RevealRequest(audit=AUDIT)))
    assert reveal.fault == "transcript_length"


@pytest.mark.parametrize(
    ("served", "ticket", "code"),
    [
        (SERVED, ticket_of((1, 2)), "task_refused"),
        (EMBEDS, make_ticket(1), "task_refused"),
        (
            EMBEDS,
            ticket_of((2, 2), prompt_hash=make_ticket(1).prompt_hash, n_in=3),
            "sampler_refused",
        ),
        (EMBEDS, ticket_of((1, 2), max_tokens=3), "sampler_refused"),
        (EMBEDS, ticket_of((65, 1)), "prompt_too_long"),
        (EMBEDS, ticket_of((64,) * 4), ""),  # each fits the context, their sum does not
        (replace(EMBEDS, dims=DIMS_MAX), ticket_of((1,) * 65), "oversized"),
    ],
)
def test_what_does_not_fit_is_refused(served: Any, ticket: Ticket, code: str) -> None:
    bench = make_bench(served=(served,))
    lengths = ticket.sampler.texts or (3,)
    prompt = (5, 6, 7) if ticket.n_in == 3 and sum(lengths) != 3 else prompt_of(lengths)
    if ticket.sampler.texts is None:
        prompt = (5, 6, 7)
    frame = StartJob(
        ticket=seal(COORDINATOR, ticket), nonce=nonce_of(1), prompt=pack_tokens(prompt)
    )
    effects = bench.post(on.StreamOpened(1, CLIENT.public_key, encode(frame)))
    refusals = [decode(effect.frame) for effect in bench.of(do.SendFrame, effects)]
    assert [one.code for one in refusals if isinstance(one, Error)] == ([code] if code else [])


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk((), b"", None, vectors=some_vectors(3)),  # one more than texts
        Chunk((), b"", None, vectors=some_vectors(1)[:-4]),
        Chunk((7,), b"\0" * 4, None, sketches=bytes(10)),
    ],
)
def test_an_engine_that_gives_something_else_ends_the_job(chunk: Chunk) -> None:
    bench = make_bench(served=(EMBEDS,))
    begun(bench, (1, 1))
    effects = bench.post(on.Drawn(1, chunk))
    [frame] = bench.of(do.SendFrame, effects)
    assert decode_as(Error, frame.frame).code == "engine_failed"


def test_a_text_without_a_vector_is_told_as_such() -> None:
    bench = make_bench(served=(EMBEDS,))
    begun(bench, (1, 1))
    [frame] = bench.of(do.SendFrame, bench.post(on.EngineStopped(1, "not_finite")))
    assert decode_as(Error, frame.frame).code == "not_finite"
