"""Jobs that embed: what may be asked, what leaves hold of vectors, both ends of their stream."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol import hashing
from assay_protocol.codec import decode_as, encode
from assay_protocol.embeddings import (
    VectorWriter,
    check_texts,
    check_vectors,
    embedding_sampler,
    longest,
    split_texts,
    texts_per_job,
    vector_dims,
    vector_sketch,
)
from assay_protocol.errors import ProtocolError
from assay_protocol.limits import DIMS_MAX, TEXTS_MAX, UNACKED_TOKENS_MAX, VECTORS_BYTES_MAX
from assay_protocol.messages import Finished, Receipt, TokenChunk, VectorChunk
from assay_protocol.receipts import check_receipt
from assay_protocol.signing import open_signed, seal
from assay_protocol.sketches import sketch_rows
from assay_protocol.streams import ClientStream, NodeStream, Times
from embedding_cases import DIMS, embedding_ticket, some_vectors
from protocol_cases import CLIENT, NODE, NONCE

TIMES = Times(1, 2, 3)
ROW = 4 * DIMS


@given(
    st.lists(st.floats(width=32, min_value=-1, max_value=1), min_size=1, max_size=70),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 300),
)
def test_a_vector_is_sketched_like_a_row_of_logits(
    numbers: list[float], seed: bytes, at: int
) -> None:
    row = np.array([numbers], "<f4")
    assert vector_sketch(row.tobytes(), seed, at) == sketch_rows(row, [seed], [at])


@given(st.integers(1, 50), st.data())
def test_leaves_do_not_depend_on_how_vectors_came(count: int, data: st.DataObject) -> None:
    ticket, vectors = embedding_ticket(count), some_vectors(count)
    pieces, at = _writer(count), 0
    while at < count:
        n = data.draw(st.integers(1, count - at))
        pieces.add(vectors[at * ROW : (at + n) * ROW], DIMS)
        at += n
    seed = hashing.job_seed(ticket.seed_ticket, NONCE)
    rows = np.frombuffer(vectors, "<f4").reshape(count, DIMS)
    sketches = sketch_rows(rows, [seed] * count, range(count))
    leaves = [vectors[i : i + 16 * ROW] for i in range(0, len(vectors), 16 * ROW)]
    raws = [hashing.vectors_hash(NONCE, leaf) for leaf in leaves]
    running, ends = hashing.OutputHash(ticket.ticket, NONCE), []
    for leaf in leaves:
        running.update(leaf, ROW)
        ends.append(running.digest())
    assert pieces.ends() == tuple(ends)
    assert (pieces.count, pieces.digest()) == (count, ends[-1])
    pieces.leaves().check("any/E", count)
    assert pieces.leaves().root("any/E", ends) == hashing.sketched_root(ends, raws, sketches)


def test_a_vector_changes_the_root_by_a_bit_and_the_digest_needs_the_nonce() -> None:
    vectors = some_vectors(3)
    changed = bytes([vectors[0] ^ 1]) + vectors[1:]
    roots = {_root(one) for one in (vectors, changed, vectors[ROW:] + vectors[:ROW])}
    assert len(roots) == 3
    assert hashing.vectors_hash(NONCE, vectors) != hashing.vectors_hash(bytes(32), vectors)


def test_a_job_that_embeds_asks_for_nothing_else() -> None:
    sampler = embedding_sampler([2, 3])
    check_texts(sampler, 5, 2)
    assert (longest(sampler, 5, 2), longest(replace(sampler, texts=None), 5, 2)) == (3, 7)
    assert split_texts((1, 2, 3, 4, 5), [2, 3]) == [(1, 2), (3, 4, 5)]
    drawing = replace(sampler, temperature=0.1), replace(sampler, logprobs=0)
    for bad, n_in, count in ((sampler, 6, 2), (sampler, 5, 3), *((one, 5, 2) for one in drawing)):
        with pytest.raises(ProtocolError, match="sampler_refused"):
            check_texts(bad, n_in, count)
    check_texts(replace(sampler, texts=None, temperature=4.0), 1, 1)  # draws: not looked at


@pytest.mark.parametrize(
    "row",
    [
        (0.0,) * DIMS,
        (float("nan"), *(0.0,) * (DIMS - 1)),
        (float("inf"), *(0.0,) * (DIMS - 1)),
        (1.01, *(0.0,) * (DIMS - 1)),
    ],
)
def test_what_is_no_direction_is_no_vector(row: tuple[float, ...]) -> None:
    good = some_vectors(2)
    assert check_vectors(good, DIMS) == 2
    for bad in (good + struct.pack(f"<{DIMS}f", *row), good[:-1], b""):
        with pytest.raises(ProtocolError, match="malformed"):
            check_vectors(bad, DIMS)


def test_sizes_are_bounded() -> None:
    assert texts_per_job(384) == TEXTS_MAX
    assert texts_per_job(DIMS_MAX) == VECTORS_BYTES_MAX // (4 * DIMS_MAX) == 64
    assert vector_dims(some_vectors(3), 3) == DIMS
    for data, count in ((some_vectors(3), 2), (b"", 1), (bytes(4 * (DIMS_MAX + 1)), 1)):
        if data == some_vectors(3):
            data += b"...."
        with pytest.raises(ProtocolError, match="malformed"):
            vector_dims(data, count)


def test_vectors_stream_to_a_receipt_that_binds_them() -> None:
    node, client = _both(200)
    vectors, sent = some_vectors(200), 0
    while sent < 200:
        n = min(node.room, 50, 200 - sent)
        step = client.receive(node.vectors(vectors[sent * ROW : (sent + n) * ROW], DIMS))
        assert (step.vectors, step.tokens) == (n, ())
        sent += n
        if step.reply is not None:
            node.receive(step.reply)
    frame, blob = node.finish("length", TIMES)
    step = client.receive(frame)
    assert step.reply is not None
    node.receive(step.reply)
    receipt = open_signed(Receipt, blob, NODE.public_key)
    assert (bytes(client.vectors), client.dims, receipt.n_out) == (vectors, DIMS, 200)
    assert (node.acked, node.output, len(node.ends)) == (200, b"", 13)
    assert receipt.root == node.leaves.root("exact", node.ends)


def test_a_root_of_other_vectors_is_refused() -> None:
    """What a node must not do: give the client one answer and commit to another for auditors."""
    node, client = _both(2)
    client.receive(node.vectors(some_vectors(2), DIMS))
    frame, _ = node.finish("length", TIMES)
    honest = open_signed(Receipt, decode_as(Finished, frame).receipt, NODE.public_key)
    lie = replace(honest, root=_root(some_vectors(2, seed=1)))
    with pytest.raises(ProtocolError, match="root is of other vectors"):
        client.receive(encode(Finished(receipt=seal(NODE, lie))))


def test_the_client_refuses_what_it_did_not_ask_for() -> None:
    def chunk(position: int, count: int, dims: int = DIMS) -> bytes:
        rows = some_vectors(count, dims=dims)
        return encode(VectorChunk(position=position, dims=dims, vectors=rows))

    ticket = embedding_ticket(4)
    for first, then, code in (
        (chunk(1, 1), b"", "unexpected_message"),
        (chunk(0, 5), b"", "oversized"),
        (chunk(0, 1), chunk(1, 1, dims=8), "unexpected_message"),
        (encode(TokenChunk(position=0, tokens=bytes(4))), b"", "unexpected_message"),
    ):
        client = ClientStream(ticket, NONCE, CLIENT)
        with pytest.raises(ProtocolError, match=code):
            for frame in (first, then):
                client.receive(frame)
    drawing = ClientStream(
        embedding_ticket(4, sampler=replace(ticket.sampler, texts=None)), NONCE, CLIENT
    )
    with pytest.raises(ProtocolError, match="unexpected_message"):
        drawing.receive(chunk(0, 1))
    unsigned = ClientStream(embedding_ticket(200), NONCE, CLIENT)
    unsigned.receive(chunk(0, UNACKED_TOKENS_MAX))
    with pytest.raises(ProtocolError, match="stopped signing"):
        unsigned.receive(chunk(UNACKED_TOKENS_MAX, 1))


def test_a_job_that_embeds_does_not_stop() -> None:
    node, _ = _both(2)
    _, blob = node.finish("cancelled", TIMES)
    receipt = open_signed(Receipt, blob, NODE.public_key)
    check_receipt(receipt, node.ticket)
    with pytest.raises(ProtocolError, match="receipt_mismatch"):
        check_receipt(replace(receipt, finish="stop"), node.ticket)


def _both(texts: int) -> tuple[NodeStream, ClientStream]:
    ticket = embedding_ticket(texts)
    return NodeStream(ticket, NONCE, NODE, "exact"), ClientStream(ticket, NONCE, CLIENT)


def _writer(texts: int) -> VectorWriter:
    ticket = embedding_ticket(texts)
    return VectorWriter(ticket.ticket, ticket.seed_ticket, NONCE)


def _root(vectors: bytes) -> bytes:
    writer = _writer(len(vectors) // ROW)
    writer.add(vectors, DIMS)
    return writer.leaves().root("exact", writer.ends())
