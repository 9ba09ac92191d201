"""Both ends of the token stream against a connection that loses, reorders and changes frames."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from assay_protocol import hashing, messages
from assay_protocol.codec import decode_as, encode
from assay_protocol.errors import AssayError, ProtocolError, RemoteError
from assay_protocol.limits import CHECKPOINT_TOKENS, UNACKED_TOKENS_MAX
from assay_protocol.signing import open_signed, seal
from assay_protocol.streams import ClientStream, NodeStream, Times
from protocol_cases import CLIENT, NODE, NONCE, STRANGER, any_message, damaged, make_ticket

TICKET = make_ticket()
TIMES = Times(1, 2, 3)


def _ends(ticket: messages.Ticket = TICKET) -> tuple[NodeStream, ClientStream]:
    return NodeStream(ticket, NONCE, NODE, "exact"), ClientStream(ticket, NONCE, CLIENT)


def _chunk(node: NodeStream, n: int) -> bytes:
    first = node.count
    return node.chunk(tuple(range(first, first + n)), bytes(range(4)) * n, bytes(range(10)) * n)


class Stream(RuleBasedStateMachine):
    """A node and a client; frames in flight may be lost, swapped, doubled or damaged.

    A machine that refused a frame is over, as its caller would close the stream.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    @precondition(lambda self: self.finished and not (self.to_client or self.to_node))
    @rule()
    def begin(self) -> None:
        self.node, self.client = _ends()
        self.to_client: list[bytes] = []
        self.to_node: list[bytes] = []
        self.finished = self.client_over = self.node_over = False

    def _may_draw(self) -> bool:
        left = TICKET.max_tokens - self.node.count
        return not (self.finished or self.node_over) and min(left, self.node.room) > 0

    @precondition(_may_draw)
    @rule(n=st.integers(1, UNACKED_TOKENS_MAX))
    def draw(self, n: int) -> None:
        n = min(n, self.node.room, TICKET.max_tokens - self.node.count)
        self.to_client.append(_chunk(self.node, n))

    @precondition(lambda self: not self.finished)
    @rule()
    def finish(self) -> None:
        self.finished = True
        full = self.node.count == TICKET.max_tokens
        frame, _ = self.node.finish("length" if full else "stop", TIMES)
        self.to_client.append(frame)

    @precondition(lambda self: self.to_client)
    @rule()
    def client_receives(self) -> None:
        if self.client_over:
            self.to_client.clear()
            return
        try:
            step = self.client.receive(self.to_client.pop(0))
        except AssayError:
            self.client_over = True
            return
        if step.reply:
            self.to_node.append(step.reply)
        self.client_over = step.receipt is not None

    @precondition(lambda self: self.to_node)
    @rule()
    def node_receives(self) -> None:
        if self.node_over:
            self.to_node.clear()
            return
        try:
            self.node.receive(self.to_node.pop(0))
        except ProtocolError:
            self.node_over = True

    @precondition(lambda self: self.to_client or self.to_node)
    @rule(kind=st.sampled_from(["lose", "swap", "double", "damage"]), data=st.data())
    def interfere(self, kind: str, data: st.DataObject) -> None:
        queue = data.draw(st.sampled_from([q for q in (self.to_client, self.to_node) if q]))
        at = data.draw(st.integers(0, len(queue) - 1))
        if kind == "lose":
            queue.pop(at)
        elif kind == "swap":
            queue.append(queue.pop(at))
        elif kind == "double":
            queue.insert(at, queue[at])
        else:
            queue[at] = data.draw(damaged(queue[at]))

    @invariant()
    def the_window_is_kept(self) -> None:
        assert 0 <= self.node.room <= UNACKED_TOKENS_MAX
        assert len(self.client.tokens) - self.client.signed_count <= UNACKED_TOKENS_MAX

    @invariant()
    def counts_are_in_order(self) -> None:
        assert self.node.acked <= self.client.signed_count <= len(self.client.tokens)
        assert self.client.signed_count <= self.node.count

    @invariant()
    def what_was_signed_is_what_both_hold(self) -> None:
        signed = 4 * self.client.signed_count
        assert hashing.pack_tokens(self.client.tokens)[:signed] == self.node.output[:signed]

    @invariant()
    def the_last_signatures_hold(self) -> None:
        if self.client.last_progress and not self.client.receipt_blob:
            made = open_signed(messages.Progress, self.client.last_progress, NODE.public_key)
            assert (made.count, made.output_hash) == self._hash_at(self.client.signed_count)
        if self.node.last_ack:
            ack = open_signed(messages.Ack, self.node.last_ack, CLIENT.public_key)
            assert (ack.count, ack.output_hash) == self._hash_at(self.node.acked)

    @invariant()
    def an_accepted_receipt_is_of_these_tokens(self) -> None:
        if self.client.receipt_blob is None:
            return
        receipt = open_signed(messages.Receipt, self.client.receipt_blob, NODE.public_key)
        output = hashing.pack_tokens(self.client.tokens)
        assert output == self.node.output
        ends = hashing.leaf_hashes(TICKET.ticket, NONCE, output)
        assert receipt.root == self.node.leaves.root("exact", ends)
        assert (receipt.n_out, receipt.output_hash) == self._hash_at(len(self.client.tokens))

    def _hash_at(self, count: int) -> tuple[int, bytes]:
        running = hashing.OutputHash(TICKET.ticket, NONCE)
        running.update(self.node.output[: 4 * count])
        return count, running.digest()


TestStream = Stream.TestCase
TestStream.settings = settings(max_examples=60, stateful_step_count=40)


@given(st.lists(st.integers(1, UNACKED_TOKENS_MAX), min_size=1, max_size=60), st.booleans())
def test_over_a_sound_connection_every_stream_ends_acknowledged(
    sizes: list[int], eager: bool
) -> None:
    """Acknowledgements as late as the window allows never leave the two ends waiting."""
    node, client = _ends()
    late: list[bytes] = []
    for size in sizes:
        size = min(size, TICKET.max_tokens - node.count)
        if size == 0:
            break
        while (eager or node.room < size) and late:
            node.receive(late.pop(0))
        size = min(size, node.room)
        assert size > 0, "the window is full and nothing is on its way to open it"
        reply = client.receive(_chunk(node, size)).reply
        late += [reply] if reply else []
    frame, blob = node.finish("length" if node.count == TICKET.max_tokens else "stop", TIMES)
    step = client.receive(frame)
    assert step.receipt is not None
    assert client.receipt_blob == blob
    for reply in [*late, step.reply]:
        assert reply is not None
        node.receive(reply)
    assert node.acked == node.count == len(client.tokens)


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=80) | any_message().map(encode), max_size=4))
def test_any_frames_give_steps_or_operating_errors(frames: list[bytes]) -> None:
    for end in _ends():
        try:
            for frame in frames:
                end.receive(frame)
        except (ProtocolError, RemoteError):
            continue


def test_the_node_signs_every_checkpoint() -> None:
    node, client = _ends()
    for count in range(1, 2 * CHECKPOINT_TOKENS + 1):
        step = client.receive(_chunk(node, 1))
        assert (step.reply is not None) == (count % CHECKPOINT_TOKENS == 0)
    assert client.signed_count == 2 * CHECKPOINT_TOKENS


def test_a_frame_that_fails_leaves_nothing_behind() -> None:
    node, client = _ends()
    client.receive(_chunk(node, 31))
    good = decode_as(messages.TokenChunk, _chunk(node, 1))
    bad = dataclasses.replace(good, tokens=hashing.pack_tokens((9,)))
    for frame, code in (
        (bad, "receipt_mismatch"),
        (dataclasses.replace(good, position=30), "unexpected_message"),
        (dataclasses.replace(good, tokens=good.tokens + b"x"), "malformed"),
        (dataclasses.replace(good, progress=bytes(80)), "bad_signature"),
    ):
        with pytest.raises(ProtocolError, match=code):
            client.receive(encode(frame))
        assert (len(client.tokens), client.signed_count) == (31, 0)
    assert client.receive(encode(good)).reply is not None


def _fill(client: ClientStream, count: int, chunk: int) -> None:
    for at in range(0, count, chunk):
        tokens = bytes(4 * min(chunk, count - at))
        client.receive(encode(messages.TokenChunk(position=at, tokens=tokens)))


def test_a_node_that_stops_signing_is_dropped() -> None:
    _, client = _ends()
    _fill(client, UNACKED_TOKENS_MAX, 32)
    with pytest.raises(ProtocolError, match="stopped signing"):
        client.receive(encode(messages.TokenChunk(position=UNACKED_TOKENS_MAX, tokens=bytes(4))))
    with pytest.raises(ProtocolError, match="stopped signing"):
        _fill(_ends()[1], UNACKED_TOKENS_MAX + 1, UNACKED_TOKENS_MAX + 1)


def test_more_tokens_than_the_ticket_allows_are_refused() -> None:
    client = _ends(make_ticket(max_tokens=5))[1]
    with pytest.raises(ProtocolError, match="oversized"):
        _fill(client, 6, 6)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_out": 4},
        {"output_hash": bytes(32)},
        {"seed_hash": bytes(32)},
        {"ticket": b"x" * 16},
        {"model": b"x" * 32},
        {"finish": "length"},
    ],
)
def test_a_receipt_for_another_answer_is_refused(changes: dict[str, Any]) -> None:
    node, client = _ends()
    client.receive(_chunk(node, 5))
    frame, blob = node.finish("stop", TIMES)
    receipt = open_signed(messages.Receipt, blob, NODE.public_key)
    forged = seal(NODE, dataclasses.replace(receipt, **changes))
    with pytest.raises(ProtocolError, match="receipt_mismatch"):
        client.receive(encode(messages.Finished(receipt=forged)))
    with pytest.raises(ProtocolError, match="bad_signature"):
        client.receive(encode(messages.Finished(receipt=seal(STRANGER, receipt))))
    assert client.receive(frame).receipt == receipt


@pytest.mark.parametrize(
    ("changes", "signer", "code"),
    [
        ({"count": 31}, CLIENT, "unexpected_message"),
        ({"count": 64}, CLIENT, "unexpected_message"),
        ({"output_hash": bytes(32)}, CLIENT, "unexpected_message"),
        ({"ticket": b"x" * 16}, CLIENT, "unexpected_message"),
        ({}, STRANGER, "bad_signature"),
    ],
)
def test_an_acknowledgement_of_anything_else_is_refused(
    changes: dict[str, Any], signer: Any, code: str
) -> None:
    node, client = _ends()
    reply = client.receive(_chunk(node, 32)).reply
    assert reply is not None
    ack = open_signed(messages.Ack, decode_as(messages.SendAck, reply).ack, CLIENT.public_key)
    forged = seal(signer, dataclasses.replace(ack, **changes))
    with pytest.raises(ProtocolError, match=code):
        node.receive(encode(messages.SendAck(ack=forged)))
    assert node.acked == 0
    node.receive(reply)
    node.receive(reply)  # the same again is no harm
    assert node.acked == 32


def test_an_acknowledgement_cannot_go_back() -> None:
    node, client = _ends()
    first, second = (client.receive(_chunk(node, 32)).reply for _ in range(2))
    assert first is not None
    assert second is not None
    node.receive(second)
    with pytest.raises(ProtocolError, match="goes back"):
        node.receive(first)


def test_start_cancel_and_refusal() -> None:
    node, client = _ends()
    start = decode_as(messages.StartJob, client.start(bytes(65), bytes(4)))
    assert (start.nonce, start.prompt) == (NONCE, bytes(4))
    node.receive(client.cancel())
    assert node.cancelled
    with pytest.raises(RemoteError, match="busy") as caught:
        client.receive(encode(messages.Error(code="busy", detail="", retry_after_ms=7)))
    assert caught.value.retry_after_ms == 7
    with pytest.raises(RemoteError, match="internal: new_code: why"):
        client.receive(encode(messages.Error(code="new_code", detail="why")))
