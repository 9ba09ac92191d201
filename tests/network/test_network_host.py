"""Hosts over loopback TCP: interop of the muxers, limits, hostile yamux, silent sockets, ping."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import pytest
import trio
import trio.testing

from assay_network import fastyamux, identity, safetcp
from assay_network.frames import EndOfFrames, Frames
from assay_network.host import PING_PROTOCOL, Host, open_host
from assay_network.negotiation import proposal
from assay_network.yamux_stream import DATA, FIN, HEADER, PING, SYN, WINDOW_BYTES, WINDOW_UPDATE
from assay_protocol.errors import AssayError, PeerGone
from assay_protocol.limits import STREAMS_PER_PEER_MAX

SEEDS = [bytes([number]) * 32 for number in range(1, 7)]
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
MUXERS = list(itertools.product(["fast", "stock"], repeat=2))


async def echo(peer: bytes, frames: Frames) -> None:
    while True:
        try:
            await frames.send(await frames.receive(10.0))
        except EndOfFrames:
            return


@pytest.mark.parametrize(("ours", "theirs"), MUXERS)
async def test_every_pair_of_muxers_understands_each_other(ours: Any, theirs: Any) -> None:
    async with (
        open_host(SEEDS[0], [LOOPBACK], muxer=ours) as server,
        open_host(SEEDS[1], muxer=theirs) as client,
    ):
        server.serve("/echo", echo)
        big = bytes(range(256)) * 4096
        await client.dial(server.public_key, server.addresses)
        assert await client.call(server.public_key, "/echo", big, 10.0) == big
        async with client.open(server.public_key, "/echo", b"1") as frames:
            assert await frames.receive(5.0) == b"1"
            await frames.send_many([b"2", b"3"])
            assert [await frames.receive(5.0) for _ in range(2)] == [b"2", b"3"]
            await frames.finish()
            with pytest.raises(EndOfFrames):
                await frames.receive(5.0)
        with pytest.raises(AssayError) as caught:
            await client.call(server.public_key, "/nothing", b"", 5.0)
        assert caught.value.code == "unsupported_protocol"
        assert await client.call(server.public_key, "/echo", b"x", 5.0) == b"x"


async def test_both_sides_can_open_and_disconnect() -> None:
    async with open_host(SEEDS[0], [LOOPBACK]) as a, open_host(SEEDS[1]) as b:
        b.serve("/echo", echo)
        await b.dial(a.public_key, a.addresses)
        await a_sees(a, b.public_key, True)
        assert await a.call(b.public_key, "/echo", b"to the dialer", 5.0) == b"to the dialer"
        assert b.addresses == ()
        await b.disconnect(a.public_key)
        assert not b.connected(a.public_key)
        await a_sees(a, b.public_key, False)
        with pytest.raises(PeerGone):
            await a.call(b.public_key, "/echo", b"x", 5.0)


async def a_sees(host: Host, peer: bytes, connected: bool) -> None:
    with trio.fail_after(20):
        while host.connected(peer) != connected:
            await trio.sleep(0.01)


async def test_a_call_that_is_never_answered_times_out() -> None:
    async def mute(peer: bytes, frames: Frames) -> None:
        await trio.sleep_forever()

    async with open_host(SEEDS[0], [LOOPBACK]) as server, open_host(SEEDS[1]) as client:
        server.serve("/mute", mute)
        with pytest.raises(AssayError) as caught:
            await client.call(server.public_key, "/mute", b"", 0.1, server.addresses)
        assert caught.value.code == "timeout"
        assert client.connected(server.public_key)


async def test_a_handler_learns_that_its_client_left() -> None:
    stopped = trio.Event()

    async def pour(peer: bytes, frames: Frames) -> None:
        await frames.receive(5.0)
        try:
            while True:
                await frames.send(b"token")
                await trio.sleep(0.001)
        except PeerGone:
            stopped.set()
            raise

    async with open_host(SEEDS[0], [LOOPBACK]) as server, open_host(SEEDS[1]) as client:
        server.serve("/pour", pour)
        async with client.open(
            server.public_key, "/pour", b"", addresses=server.addresses
        ) as frames:
            assert await frames.receive(5.0) == b"token"
        with trio.fail_after(20):
            await stopped.wait()


async def test_silent_sockets_do_not_keep_peers_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetcp, "HANDSHAKES_MAX", 4)
    async with open_host(SEEDS[0], [LOOPBACK], connections_max=8) as server:
        server.serve("/echo", echo)
        port = int(server.addresses[0].split("/")[4])
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(20)]
        async with open_host(SEEDS[1]) as client:
            await client.dial(server.public_key, server.addresses, timeout=3.0)
            more = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(20)]
            await trio.sleep(0.1)
            # Those that have authenticated are never the ones dropped.
            assert await client.call(server.public_key, "/echo", b"x", 3.0) == b"x"
        for socket in silent + more:
            await socket.aclose()


class Wire:
    """A secured connection under the test's control, for bytes no muxer would send."""

    is_initiator = False

    def __init__(self) -> None:
        self.to_us, self.from_test = trio.open_memory_channel[bytes](100_000)
        self.written = bytearray()
        self.stalled = False

    async def read(self, n: int | None = None) -> bytes:
        try:
            return await self.from_test.receive()
        except trio.EndOfChannel:
            return b""

    async def write(self, data: bytes) -> None:
        if self.stalled:
            await trio.sleep_forever()
        self.written += data

    async def close(self) -> None:
        self.to_us.close()


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


OPEN_AND_FILL = HEADER.pack(0, DATA, SYN, 1, WINDOW_BYTES) + bytes(WINDOW_BYTES)


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x01" * 12,  # another version
        HEADER.pack(0, 9, 0, 1, 0),  # an unknown type
        HEADER.pack(0, DATA, SYN, 1, WINDOW_BYTES + 1),  # larger than any window
        OPEN_AND_FILL + HEADER.pack(0, DATA, 0, 1, 1) + b"x",  # beyond its window
        HEADER.pack(0, WINDOW_UPDATE, SYN, 1, 0xFFFFFFFF),  # a window nobody can have
        HEADER.pack(0, WINDOW_UPDATE, SYN, 2, 0),  # a stream id of ours
        HEADER.pack(0, WINDOW_UPDATE, SYN, 0, 0),  # the connection's own id
    ],
)
async def test_broken_yamux_ends_its_connection(
    hostile: bytes, autojump_clock: trio.abc.Clock
) -> None:
    wire = Wire()
    connection = fastyamux.FastYamux(wire, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.start)
        await connection.event_started.wait()
        await wire.to_us.send(hostile)
        await connection.event_closed.wait()
    assert HEADER.pack(0, 3, 0, 0, 1) in wire.written  # told why: GO_AWAY, protocol error


async def test_what_a_peer_can_pin_is_bounded(autojump_clock: trio.abc.Clock) -> None:
    wire = Wire()
    connection = fastyamux.FastYamux(wire, None, buffer_bytes_max=2 * WINDOW_BYTES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.start)
        for number in range(4):
            stream_id = 2 * number + 1
            await wire.to_us.send(HEADER.pack(0, DATA, SYN, stream_id, WINDOW_BYTES))
            await wire.to_us.send(bytes(WINDOW_BYTES))
        await settled()
        assert connection.buffered_bytes == 2 * WINDOW_BYTES
        assert len(connection.streams) == 2
        first = await connection.accept_stream()
        assert len(await first.read()) == WINDOW_BYTES
        for number in range(4, STREAMS_PER_PEER_MAX + 20):
            await wire.to_us.send(HEADER.pack(0, WINDOW_UPDATE, SYN, 2 * number + 1, 0))
        await settled()
        assert len(connection.streams) <= STREAMS_PER_PEER_MAX
        assert not connection.is_closed
        await connection.close()


async def test_answers_that_are_not_read_end_the_connection(
    autojump_clock: trio.abc.Clock,
) -> None:
    wire = Wire()
    wire.stalled = True
    connection = fastyamux.FastYamux(wire, None)
    pings = HEADER.pack(0, PING, SYN, 0, 1) * 10_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.start)
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            for _ in range(100):
                await wire.to_us.send(pings)
                await trio.sleep(0.1)
    assert connection.is_closed


async def test_data_before_the_end_can_still_be_read(autojump_clock: trio.abc.Clock) -> None:
    wire = Wire()
    connection = fastyamux.FastYamux(wire, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.start)
        await wire.to_us.send(HEADER.pack(0, DATA, SYN | FIN, 1, 3) + b"abc")
        stream = await connection.accept_stream()
        await wire.to_us.aclose()
        await connection.event_closed.wait()
        assert await stream.read() == b"abc"
        with pytest.raises(Exception, match="stream"):
            await stream.read()


async def test_libp2p_ping_is_answered() -> None:
    async with open_host(SEEDS[0], [LOOPBACK]) as server, open_host(SEEDS[1]) as client:
        await client.dial(server.public_key, server.addresses)
        stream = await client._connection(server.public_key).muxed_conn.open_stream()
        await stream.write(proposal(PING_PROTOCOL) + bytes(32))
        answer = b""
        with trio.fail_after(20):
            while len(answer) < len(proposal(PING_PROTOCOL)) + 32:
                answer += await stream.read(100)
        assert answer == proposal(PING_PROTOCOL) + bytes(32)
        await stream.reset()


def test_importing_the_package_does_not_import_libp2p() -> None:
    code = (
        "import sys, assay_network, assay_network.identity as i; i.peer_text(bytes(32));"
        "sys.exit('libp2p' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert identity.peer_text(bytes(32)).startswith("12D3Koo")
