"""Sessions over the in-memory network, in virtual time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from nacl.signing import SigningKey

from assay_network import kept_stream
from assay_network.frames import Frames
from assay_network.host import Host, open_host
from assay_network.memory import MemoryNetwork
from assay_network.session import OnFrame, Session, open_session, serve_sessions
from assay_protocol.errors import AssayError, PeerGone
from assay_protocol.limits import SESSION_QUEUE_FRAMES_MAX, SESSION_REQUESTS_MAX

SEEDS = [bytes([number]) * 32 for number in range(1, 7)]
KEYS = [bytes(SigningKey(seed).verify_key) for seed in SEEDS]
PROTOCOL = "/session"


@asynccontextmanager
async def hosts(
    count: int, latency: float = 0.01
) -> AsyncIterator[tuple[MemoryNetwork, list[Host]]]:
    network = MemoryNetwork(latency=lambda a, b: latency)
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                open_host(seed, [network.address()], transports=[network.transport(key)])
            )
            for seed, key in zip(SEEDS[:count], KEYS[:count], strict=True)
        ]
        yield network, opened


class Server:
    """Serves sessions and keeps what happened; replies with the body unless told otherwise."""

    def __init__(self, host: Host, **limits: float) -> None:
        self.sessions: list[Session] = []
        self.closed: list[Session] = []
        self.frames: list[tuple[int, bytes]] = []
        self.silent = False
        serve_sessions(host, PROTOCOL, self.on_open, self.closed.append, **limits)  # type: ignore[arg-type]  # ints and floats

    def on_open(self, session: Session) -> OnFrame:
        self.sessions.append(session)
        return self.on_frame

    def on_frame(self, session: Session, request_id: int, body: bytes) -> None:
        self.frames.append((request_id, body))
        if body == b"fault":
            raise RuntimeError("our own fault")
        if request_id and not self.silent:
            session.reply(request_id, body)


def ignore(session: Session, request_id: int, body: bytes) -> None:
    """A client that expects nothing."""


def connect(host: Host, server: Host, on_frame: OnFrame = ignore, **options: float):  # type: ignore[no-untyped-def]  # an async context manager
    return open_session(host, server.public_key, server.addresses, PROTOCOL, on_frame, **options)


async def test_requests_and_notices_keep_their_order(autojump_clock: trio.abc.Clock) -> None:
    async with hosts(2) as (_, (a, b)):
        server = Server(a)
        async with connect(b, a) as session:
            assert session.peer == a.public_key
            replies: dict[int, bytes] = {}

            async def ask(number: int) -> None:
                replies[number] = await session.request(bytes([number]))

            async with trio.open_nursery() as nursery:
                for number in range(50):
                    session.notify(b"n")
                    nursery.start_soon(ask, number)
            assert replies == {number: bytes([number]) for number in range(50)}
            assert server.sessions[0].peer == b.public_key
            ids = [request_id for request_id, _ in server.frames if request_id]
            assert ids == sorted(ids)
        await trio.sleep(1)
        assert server.closed == server.sessions


async def test_requests_go_both_ways(autojump_clock: trio.abc.Clock) -> None:
    async with hosts(2) as (_, (a, b)):
        server = Server(a)
        got: list[bytes] = []

        def on_frame(session: Session, request_id: int, body: bytes) -> None:
            got.append(body)
            session.reply(request_id, b"from the client: " + body)

        async with connect(b, a, on_frame) as session:
            start = trio.current_time()
            assert await session.request(b"x") == b"x"
            assert trio.current_time() - start == pytest.approx(0.02)
            reply = await server.sessions[0].request(b"y")
            assert reply == b"from the client: y"
            server.sessions[0].notify(b"z")
            await trio.sleep(0.1)
        assert got == [b"y", b"z"]


async def test_a_request_times_out_and_its_late_reply_is_ignored(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with hosts(2) as (_, (a, b)):
        server = Server(a)
        server.silent = True
        async with connect(b, a) as session:
            with pytest.raises(AssayError) as caught:
                await session.request(b"x", timeout=1.0)
            assert caught.value.code == "timeout"
            late = server.frames[-1][0]
            server.sessions[0].reply(late, b"late")
            server.sessions[0].reply(late, b"twice")
            server.sessions[0].reply(4711, b"never asked")
            server.silent = False
            assert await session.request(b"y") == b"y"
            assert not session.closed.is_set()


async def test_too_many_unanswered_requests_are_refused(autojump_clock: trio.abc.Clock) -> None:
    async with hosts(2) as (_, (a, b)):
        server = Server(a)
        server.silent = True
        async with connect(b, a) as session:
            codes: list[str] = []

            async def ask() -> None:
                with pytest.raises(AssayError) as caught:
                    await session.request(b"x", timeout=1.0)
                codes.append(caught.value.code)

            async with trio.open_nursery() as nursery:
                for _ in range(SESSION_REQUESTS_MAX + 1):
                    nursery.start_soon(ask)
            assert sorted(codes) == ["busy"] + ["timeout"] * SESSION_REQUESTS_MAX
            # The server still owes all of them: it refuses the next one itself.
            await ask()
            assert codes[-1] == "busy"
            server.sessions[0].reply(server.frames[0][0], b"")
            server.silent = False
            assert await session.request(b"y") == b"y"


async def test_an_overflowing_queue_ends_the_session(autojump_clock: trio.abc.Clock) -> None:
    async with hosts(2) as (network, (a, b)):
        server = Server(a)
        async with connect(b, a) as session:
            network.freeze(b.public_key)
            for _ in range(SESSION_QUEUE_FRAMES_MAX):
                server.sessions[0].notify(b"x")
            assert not server.sessions[0].closed.is_set()
            server.sessions[0].notify(b"one too many")
            assert server.sessions[0].closed.is_set()
            with pytest.raises(PeerGone):
                await server.sessions[0].request(b"x")
            for body in (bytes(1 << 20) for _ in range(2)):
                with pytest.raises(AssayError) as caught:
                    session.notify(body)
                assert caught.value.code == "oversized"
            for _ in range(9):
                session.notify(bytes(1_000_000))
            assert session.closed.is_set()


async def test_a_dead_peer_ends_the_session_and_its_requests(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with hosts(2) as (network, (a, b)):
        server = Server(a, idle_seconds=2.0)
        async with connect(b, a, idle_seconds=2.0) as session:
            await trio.sleep(60)  # pings keep an idle session alive
            assert not session.closed.is_set()
            network.freeze(a.public_key)
            start = trio.current_time()
            with pytest.raises(PeerGone):
                await session.request(b"x", timeout=100.0)
            assert trio.current_time() - start <= 6.0
            await trio.sleep(6)
            assert server.closed == server.sessions


async def test_a_killed_connection_ends_both_ends(autojump_clock: trio.abc.Clock) -> None:
    async with hosts(2) as (network, (a, b)):
        server = Server(a)
        async with connect(b, a) as session:
            network.kill(a.public_key)
            await session.closed.wait()
            with pytest.raises(PeerGone):
                await session.request(b"x")
            await trio.sleep(1)
            assert server.closed == server.sessions


async def test_a_fault_in_on_frame_drops_only_its_session(autojump_clock: trio.abc.Clock) -> None:
    async with hosts(3) as (_, (a, b, c)):
        Server(a)
        async with connect(b, a) as faulty, connect(c, a) as healthy:
            with pytest.raises(PeerGone):
                await faulty.request(b"fault")
            assert await healthy.request(b"x") == b"x"
            assert a.connected(b.public_key)


async def test_sessions_beyond_the_limits(autojump_clock: trio.abc.Clock) -> None:
    async with hosts(3) as (_, (a, b, c)):
        server = Server(a, sessions_max=5)
        async with contextlib.AsyncExitStack() as stack:
            mine = [await stack.enter_async_context(connect(b, a)) for _ in range(5)]
            await trio.sleep(1)
            assert [session.closed.is_set() for session in mine] == [True] + [False] * 4
            await stack.enter_async_context(connect(c, a))
            with pytest.raises(AssayError) as caught:
                async with connect(c, a):
                    pytest.fail("there was no room")
            assert caught.value.code == "busy"
        assert len(server.sessions) == 6


async def test_hostile_frames_end_the_session_only(autojump_clock: trio.abc.Clock) -> None:
    header = kept_stream.HEADER
    async with hosts(2) as (_, (a, b)):
        server = Server(a)
        for hostile in (b"", b"\x01", header.pack(9, 1), header.pack(1, 0), b"\xff" * 9):
            hello = kept_stream.session_frame(kept_stream.PING, 0, b"")
            async with b.open(a.public_key, PROTOCOL, hello, addresses=a.addresses) as frames:
                await frames.receive()
                await frames.send(hostile)
                with pytest.raises(PeerGone):
                    await frames.receive(5.0)
        async with b.open(a.public_key, PROTOCOL, b"no ping") as frames:
            with pytest.raises(PeerGone):
                await frames.receive(5.0)
        async with connect(b, a) as session:
            assert await session.request(b"x") == b"x"
        assert len(server.sessions) == 6


async def test_opening_fails_as_it_should(autojump_clock: trio.abc.Clock) -> None:
    async with hosts(2) as (_, (a, b)):
        with pytest.raises(AssayError) as caught:
            async with connect(b, a):
                pytest.fail("nobody serves sessions")
        assert caught.value.code == "unsupported_protocol"

        async def strange(peer: bytes, frames: Frames) -> None:
            await frames.receive(1.0)
            await frames.send(b"hello?")

        a.serve(PROTOCOL, strange)
        with pytest.raises(AssayError) as caught:
            async with connect(b, a):
                pytest.fail("that was no answer")
        assert caught.value.code == "unexpected_message"

        with pytest.raises(PeerGone):
            async with open_session(b, KEYS[5], ["/memory/77"], PROTOCOL, ignore):
                pytest.fail("nobody is there")


async def test_an_error_in_the_body_comes_out_as_it_is(autojump_clock: trio.abc.Clock) -> None:
    async with hosts(2) as (_, (a, b)):
        server = Server(a)
        with pytest.raises(ValueError, match="mine"):
            async with connect(b, a) as session:
                session.notify(b"flushed before the end")
                raise ValueError("mine")
        await trio.sleep(1)
        assert server.frames == [(0, b"flushed before the end")]
