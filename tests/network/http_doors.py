"""An application served over real sockets, and a client that sends and reads bytes as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from assay_network.http_listener import listening_socket
from assay_network.http_server import CONNECTIONS_MAX, serve_http

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
PATIENCE_SECONDS = 5.0  # by the machine's clock: for what must happen at once


@dataclass
class Client:
    """One connection."""

    tcp: trio.SocketStream
    held: bytes = b""

    async def send(self, data: bytes) -> None:
        await self.tcp.send_all(data)

    async def answer(self, *, head_only: bool = False) -> tuple[bytes, bytes]:
        """Head and body of the next answer, by its own framing."""
        head = await self.until(b"\r\n\r\n")
        lower = head.lower()
        if head_only or b" 100 " in head.split(b"\r\n")[0]:
            return head, b""
        if b"transfer-encoding: chunked" in lower:
            return head, await self._chunks()
        if b"content-length: " in lower:
            size = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(self.held) < size:
                await self._more()
            body, self.held = self.held[:size], self.held[size:]
            return head, body
        return head, await self.rest()

    async def until(self, mark: bytes) -> bytes:
        """What comes, up to `mark`."""
        while mark not in self.held:
            await self._more()
        found, _, self.held = self.held.partition(mark)
        return found + mark

    async def rest(self) -> bytes:
        """All until the end; a connection that is cut ends, too."""
        while await self._read():
            continue
        rest, self.held = self.held, b""
        return rest

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self.until(b"\r\n")).strip(), 16):
            while len(self.held) < size + 2:
                await self._more()
            body += self.held[:size]
            self.held = self.held[size + 2 :]
        await self.until(b"\r\n")
        return body

    async def _more(self) -> None:
        if not await self._read():
            raise EOFError(self.held)

    async def _read(self) -> bytes:
        try:
            data = bytes(await self.tcp.receive_some(65_536))
        except trio.BrokenResourceError:
            return b""
        self.held += data
        return data


@dataclass
class Served:
    """A server under test. `stop` begins its end."""

    port: int
    stop: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as tcp:
            yield Client(tcp)

    async def ask(self, request: bytes = GET) -> tuple[bytes, bytes]:
        """One request on a connection of its own."""
        async with self.client() as client:
            await client.send(request)
            return await client.answer()


@asynccontextmanager
async def served(
    app: Any, *, graceful_seconds: float = 1.0, connections_max: int = CONNECTIONS_MAX
) -> AsyncIterator[Served]:
    listener = listening_socket("127.0.0.1", 0)
    server = Served(listener.getsockname()[1])

    async def serve() -> None:
        await serve_http(
            app,
            listener,
            graceful_seconds=graceful_seconds,
            stop=server.stop.wait,
            connections_max=connections_max,
        )
        server.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield server
        nursery.cancel_scope.cancel()


async def eventually(true: Callable[[], bool]) -> None:
    """Wait, by turns of the loop and not by any clock, until it is so."""
    for _ in range(20_000):
        if true():
            return
        await trio.lowlevel.checkpoint()
    raise AssertionError("it never was so")


Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


async def whole_body(receive: Receive) -> bytes:
    """The request's body, as an application reads it."""
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        body += message["body"]
        if not message["more_body"]:
            return body


async def say(send: Send, body: bytes = b"ok", status: int = 200, headers: Any = None) -> None:
    """A whole answer of known length."""
    told = [(b"content-length", str(len(body)).encode())] if headers is None else headers
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body})


async def piece(send: Send, body: bytes) -> None:
    """A part of an answer that goes on."""
    await send({"type": "http.response.body", "body": body, "more_body": True})


begin = partial(dict, type="http.response.start", status=200, headers=[])
