"""Frames, budgets, negotiation lines and identities, without a network."""

from __future__ import annotations

import itertools

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamReset
from nacl.signing import SigningKey

from assay_network import identity
from assay_network.frames import ByteBudget, EndOfFrames, Frames
from assay_network.negotiation import answer, proposal, take_agreement
from assay_protocol.errors import AssayError, PeerGone, ProtocolError

PEER = bytes(32)
LIMIT = 300


class ScriptedStream:
    """Reads the given chunks, then the given end; keeps what is written."""

    def __init__(self, chunks: list[bytes], end: type[Exception] = MuxedStreamEOF) -> None:
        self.chunks = [chunk for chunk in chunks if chunk]
        self.end = end
        self.written = b""
        self.was_closed = self.was_reset = False

    async def read(self, n: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self.chunks:
            raise self.end("end")
        head = self.chunks[0]
        count = len(head) if n is None else min(n, len(head))
        self.chunks[0] = head[count:]
        if not self.chunks[0]:
            del self.chunks[0]
        return head[:count]

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.was_reset:
            raise MuxedStreamReset("reset")
        self.written += data

    async def close(self) -> None:
        self.was_closed = True

    async def reset(self) -> None:
        self.was_reset = True


def encoded(frames: list[bytes]) -> bytes:
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


async def received(frames: Frames) -> tuple[list[bytes], AssayError]:
    taken = []
    try:
        while True:
            taken.append(await frames.receive())
    except AssayError as error:
        return taken, error


@given(st.lists(st.binary(max_size=LIMIT), max_size=8), st.lists(st.integers(0, 4000), max_size=9))
def test_any_chunking_gives_the_same_frames(sent: list[bytes], cuts: list[int]) -> None:
    stream = ScriptedStream(chunked(encoded(sent), cuts))
    taken, error = trio.run(received, Frames(stream, PEER, frame_bytes_max=LIMIT))
    assert taken == sent
    assert isinstance(error, EndOfFrames)


@given(st.binary(max_size=2000), st.lists(st.integers(0, 4000), max_size=5))
def test_any_bytes_give_frames_or_an_operating_error(data: bytes, cuts: list[int]) -> None:
    frames = Frames(ScriptedStream(chunked(data, cuts)), PEER, frame_bytes_max=LIMIT)
    taken, error = trio.run(received, frames)
    assert isinstance(error, PeerGone) or error.code == "oversized"
    assert data.startswith(encoded(taken))
    if isinstance(error, EndOfFrames):
        assert encoded(taken) == data


async def test_sent_frames_are_length_prefixed_and_joined() -> None:
    stream = ScriptedStream([])
    frames = Frames(stream, PEER)
    await frames.send(b"abc")
    await frames.send_many([b"", b"d"])
    assert stream.written == encoded([b"abc", b"", b"d"])
    with pytest.raises(ProtocolError) as caught:
        await frames.send(bytes((1 << 20) + 1))
    assert caught.value.code == "oversized"


async def test_a_stream_that_dies_inside_a_frame_is_a_lost_peer() -> None:
    for end in (MuxedStreamEOF, MuxedStreamReset, OSError):
        frames = Frames(ScriptedStream([b"\0\0\0\x05ab"], end), PEER)
        with pytest.raises(PeerGone) as caught:
            await frames.receive()
        assert not isinstance(caught.value, EndOfFrames)


async def test_nothing_is_sent_after_a_cut_or_finished_send() -> None:
    stream = ScriptedStream([])
    frames = Frames(stream, PEER)
    with trio.move_on_after(0) as scope:
        await frames.send(b"never whole")
    assert scope.cancelled_caught
    with pytest.raises(PeerGone):
        await frames.send(b"x")
    finished = Frames(stream, PEER)
    await finished.finish()
    with pytest.raises(PeerGone):
        await finished.send(b"x")
    assert stream.was_closed


async def test_receive_times_out_and_can_go_on(autojump_clock: trio.abc.Clock) -> None:
    class Slow(ScriptedStream):
        async def read(self, n: int | None = None) -> bytes:
            await trio.sleep(5)
            return await super().read(n)

    frames = Frames(Slow([encoded([b"late"])]), PEER)
    with pytest.raises(AssayError) as caught:
        await frames.receive(1.0)
    assert caught.value.code == "timeout"
    assert await frames.receive(6.0) == b"late"


async def test_large_unfinished_frames_are_paid_for() -> None:
    host, size = ByteBudget(250_000), 100_000
    peer = ByteBudget(220_000, host)
    half = [size.to_bytes(4, "big") + bytes(10)]
    held = [Frames(ScriptedStream(list(half)), PEER, budget=peer) for _ in range(2)]
    for frames in held:
        with pytest.raises(PeerGone):
            await frames.receive()
    assert peer.used == host.used == 2 * size
    with pytest.raises(AssayError) as caught:
        await Frames(ScriptedStream(list(half)), PEER, budget=peer).receive()
    assert caught.value.code == "busy"
    await held[0].abort()
    assert peer.used == host.used == size
    whole = Frames(ScriptedStream([*half, bytes(size - 10)]), PEER, budget=peer)
    assert len(await whole.receive()) == size
    assert peer.used == host.used == size


def test_agreement_and_refusal_in_any_pieces() -> None:
    expected = proposal("/echo")
    refusal = b"\x13/multistream/1.0.0\n\x03na\n"
    for end in range(len(expected)):
        assert not take_agreement(bytearray(expected[:end]), expected)
    buffer = bytearray(expected + b"rest")
    assert take_agreement(buffer, expected)
    assert buffer == b"rest"
    with pytest.raises(AssayError) as caught:
        take_agreement(bytearray(refusal), expected)
    assert caught.value.code == "unsupported_protocol"
    with pytest.raises(ProtocolError):
        take_agreement(bytearray(b"HTTP/1.1 400"), expected)


async def test_the_listener_agrees_at_once_or_step_by_step() -> None:
    for chunks in ([proposal("/echo") + b"rest"], chunked(proposal("/echo"), list(range(40)))):
        stream = ScriptedStream(chunks)
        assert (await answer(stream, {"/echo"}))[0] == "/echo"
        assert stream.written == proposal("/echo")
    second = ScriptedStream([proposal("/other"), b"\x06/echo\n", b"rest"])
    assert (await answer(second, {"/echo"}))[0] == "/echo"
    assert second.written == proposal("/echo").replace(b"\x06/echo", b"\x03na\n\x06/echo")


@given(st.binary(max_size=600), st.booleans())
def test_any_negotiation_bytes_end_in_an_operating_error(data: bytes, greeted: bool) -> None:
    head = b"\x13/multistream/1.0.0\n" if greeted else b""
    stream = ScriptedStream([head + data])

    async def run() -> None:
        with pytest.raises((ProtocolError, MuxedStreamEOF)):
            await answer(stream, {"/echo/1"})

    trio.run(run)


async def test_a_lazy_dialer_hears_that_a_protocol_is_not_available() -> None:
    stream = ScriptedStream([proposal("/other") + encoded([b"first"])])
    with pytest.raises(ProtocolError):
        await answer(stream, {"/echo"})
    assert stream.written.endswith(b"\x03na\n")


@given(st.binary(min_size=32, max_size=32))
def test_one_seed_is_one_identity(seed: bytes) -> None:
    key = bytes(SigningKey(seed).verify_key)
    peer = identity.peer_id(key)
    assert identity.keypair(seed).public_key.to_bytes() == key
    assert identity.public_key(peer) == key
    assert identity.peer_text(key) == str(peer)
    assert identity.peer_text(key).startswith("12D3Koo")


def test_other_kinds_of_peer_ids_are_refused() -> None:
    from libp2p.peer.id import ID

    for raw in (b"\x12\x20" + bytes(32), b"", bytes(38)):
        with pytest.raises(ProtocolError):
            identity.public_key(ID(raw))
    with pytest.raises(ProtocolError):
        identity.peer_id(b"short")
