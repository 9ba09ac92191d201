"""The bounds of a server: who is let in, who is cut, and how it ends."""

from __future__ import annotations

import errno
import resource
import socket
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from assay_network.http_listener import listening_socket
from assay_network.http_server import IDLE_SECONDS, serve_http
from assay_network.wire import UNREAD_SECONDS
from network.http_doors import (
    GET,
    PATIENCE_SECONDS,
    Client,
    Receive,
    Send,
    begin,
    eventually,
    piece,
    say,
    served,
    whole_body,
)

HALF_HEAD = b"GET / HTTP/1.1\r\nhost: x\r\nx-more: "
HALF_BODY = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc"


async def answering(scope: Any, receive: Receive, send: Send) -> None:
    await whole_body(receive)
    await say(send)


class Held:
    """Answers when it is let go; `asked` and `left` count."""

    def __init__(self) -> None:
        self.asked = self.left = 0
        self.go = trio.Event()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        await whole_body(receive)
        self.asked += 1
        try:
            await self.go.wait()
            await say(send)
        except trio.Cancelled:
            self.left += 1
            raise


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, GET])
async def test_a_connection_that_asks_nothing_is_cut(sent: bytes, mock_clock: MockClock) -> None:
    """Also one that asked before, and one whose head comes in drops."""
    async with served(answering) as server, server.client() as client:
        await client.send(sent)
        if sent == GET:
            await client.answer()
        await wait_all_tasks_blocked()
        mock_clock.jump(IDLE_SECONDS - 1)
        await wait_all_tasks_blocked()
        if sent == HALF_HEAD:
            await client.send(b"x")
        await wait_all_tasks_blocked()
        mock_clock.jump(1.5)
        assert await client.rest() == b""


async def test_an_answer_may_take_longer_than_a_connection_may_be_idle(
    mock_clock: MockClock,
) -> None:
    held = Held()
    async with served(held) as server, server.client() as client, server.client() as slow:
        await client.send(GET)
        await slow.send(HALF_BODY)  # the application says how long this may take
        await eventually(lambda: held.asked == 1)
        mock_clock.jump(10 * IDLE_SECONDS)
        await wait_all_tasks_blocked()
        await slow.send(bytes(7))
        held.go.set()
        assert (await client.answer())[1] == (await slow.answer())[1] == b"ok"


async def test_the_oldest_who_waits_makes_room() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(served(answering, connections_max=4))
        clients = [await stack.enter_async_context(server.client()) for _ in range(10)]
        await wait_all_tasks_blocked()
        for client in clients[:6]:
            assert await client.rest() == b""
        for client in clients[6:]:
            await client.send(GET)
            assert (await client.answer())[1] == b"ok"
        assert (await server.ask())[1] == b"ok"  # in place of the one that asked longest ago
        assert await clients[6].rest() == b""


async def test_half_sent_bodies_make_room_after_half_sent_heads() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(served(answering, connections_max=2))
        body = await stack.enter_async_context(server.client())
        head = await stack.enter_async_context(server.client())
        await body.send(HALF_BODY)
        await wait_all_tasks_blocked()
        await head.send(HALF_HEAD)
        await wait_all_tasks_blocked()
        other = await stack.enter_async_context(server.client())
        await other.send(HALF_BODY)
        assert await head.rest() == b""
        assert (await server.ask())[1] == b"ok"
        assert await body.rest() == b""


async def test_who_is_answered_is_not_cut_for_others() -> None:
    held = Held()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(served(held, connections_max=3))
        clients = [await stack.enter_async_context(server.client()) for _ in range(3)]
        for client in clients:
            await client.send(GET)
        await eventually(lambda: held.asked == 3)
        async with server.client() as late:
            head, body = await late.answer()
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in head
            assert b'"code":"busy"' in body
        held.go.set()
        for client in clients:
            assert (await client.answer())[1] == b"ok"


async def test_any_number_of_half_sent_requests_keeps_nobody_out() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(1_500, (soft - 500) // 2)
    async with served(answering, connections_max=300) as server:
        with ExitStack() as stack:
            for number in range(count):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                sock.sendall(HALF_HEAD if number % 2 else HALF_BODY)
                await trio.lowlevel.checkpoint()
                if number % 250 == 0:
                    with trio.fail_after(PATIENCE_SECONDS):
                        assert (await server.ask())[1] == b"ok"


class Streaming:
    """Writes as much as it can to a client; `written` counts bytes."""

    def __init__(self) -> None:
        self.written, self.gone = 0, False

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        await whole_body(receive)
        await send(begin())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, send)
            await receive()
            self.gone = True
            nursery.cancel_scope.cancel()

    async def _write(self, send: Send) -> None:
        while True:
            await piece(send, bytes(10_000))
            self.written += 10_000


async def test_a_client_that_does_not_read_holds_its_answer_back_and_is_cut(
    mock_clock: MockClock,
) -> None:
    app = Streaming()
    async with served(app) as server, server.client() as client, server.client() as other:
        client.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        await client.send(GET)
        before = -1
        while before != app.written:  # until the kernel takes no more
            before = app.written
            for _ in range(200):
                await trio.lowlevel.checkpoint()
        assert 0 < app.written < 8_000_000
        assert not app.gone
        await other.send(GET)
        await other.until(b"\r\n\r\n")  # others are served
        await other.tcp.aclose()
        mock_clock.jump(UNREAD_SECONDS + 1)
        await eventually(lambda: app.gone)


async def test_the_end_lets_answers_finish_and_nobody_in() -> None:
    held = Held()
    async with served(held) as server, server.client() as client, server.client() as idle:
        await client.send(GET)
        await eventually(lambda: held.asked == 1)
        server.stop.set()
        assert await idle.rest() == b""
        with pytest.raises(OSError, match=r"refused|attempts"):
            await trio.open_tcp_stream("127.0.0.1", server.port)
        assert not server.ended.is_set()
        held.go.set()
        head, body = await client.answer()
        assert body == b"ok"
        assert b"connection: close" in head.lower()
        assert await client.rest() == b""
        await server.ended.wait()
        assert held.left == 0


async def test_the_end_waits_no_longer_than_it_may(mock_clock: MockClock) -> None:
    held = Held()
    async with served(held, graceful_seconds=3) as server, server.client() as client:
        await client.send(GET)
        await eventually(lambda: held.asked == 1)
        server.stop.set()
        await wait_all_tasks_blocked()
        mock_clock.jump(3.1)
        await server.ended.wait()
        assert held.left == 1
        assert await client.rest() == b""


class Exhausted(socket.socket):
    """A listener whose process has no descriptors for a while."""

    refusals = 3

    def accept(self) -> Any:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()


async def test_without_descriptors_the_oldest_who_waits_is_cut(autojump_clock: MockClock) -> None:
    with listening_socket("127.0.0.1", 0) as made:
        listener = Exhausted(fileno=made.detach())
    port = listener.getsockname()[1]
    listener.refusals = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_http(answering, listener, graceful_seconds=1.0))
        async with await trio.open_tcp_stream("127.0.0.1", port) as idle:
            await wait_all_tasks_blocked()
            listener.refusals = 3
            async with await trio.open_tcp_stream("127.0.0.1", port) as tcp:
                client = Client(tcp)
                await client.send(GET)
                assert (await client.answer())[1] == b"ok"
            assert await Client(idle).rest() == b""
        nursery.cancel_scope.cancel()
