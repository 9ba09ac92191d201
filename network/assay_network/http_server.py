"""Serves an ASGI application over HTTP/1.1, within bounds that hold whoever connects.

- At most `connections_max` connections, and no more than the process has descriptors to spare. At
  the bound the connection that has kept the server waiting longest is cut for the new one: idle
  ones and half-sent heads first, then half-sent bodies. If every one of them is being answered, the
  new one gets 503.
- A connection has IDLE_SECONDS between answers to send a whole head. Nothing but the application
  bounds the time for a body, since it knows what it is for.
- An idle connection costs a task and its socket: no protocol object, no timer.
- `stop`: nobody new is let in, idle connections end, answers under way have `graceful_seconds`.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from assay_network.descriptors import descriptor_limit
from assay_network.http_connection import Application, Connection
from assay_network.logs import get_logger
from assay_network.scopes import single_errors
from assay_network.wire import Wire

IDLE_SECONDS: Final = 30.0  # for a connection between requests, and for a request's head
CONNECTIONS_MAX: Final = 16_384
DESCRIPTORS_KEPT: Final = 256  # for everything that is not a client of this server
ACCEPTS_AT_A_TIME: Final = 64  # before other tasks have their turn
PAUSE_SECONDS: Final = 0.1  # where the machine has no descriptor or memory for a connection
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BUSY_BODY: Final = (
    b'{"error":{"message":"the server has as many connections as it may","type":"server_error",'
    b'"param":null,"code":"busy"}}'
)
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(_BUSY_BODY), _BUSY_BODY)
)
_log = get_logger("http")


async def serve_http(
    app: Application,
    listener: socket.socket,
    *,
    graceful_seconds: float,
    stop: Callable[[], Awaitable[object]] = trio.sleep_forever,
    connections_max: int = CONNECTIONS_MAX,
) -> None:
    """Serve `app` on `listener`, which is closed here, until `stop` returns or it is cancelled."""
    server = _Server(app, listener, min(connections_max, _affordable()))
    with single_errors():
        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as doors:
                doors.start_soon(server.accept, clients)
                doors.start_soon(server.end_idle)
                try:
                    await stop()
                finally:
                    server.leave()
                doors.cancel_scope.cancel()
            clients.cancel_scope.deadline = trio.current_time() + graceful_seconds


class _Server:
    """The connections of one listening socket, and for what each waits."""

    def __init__(self, app: Application, listener: socket.socket, most: int) -> None:
        self.leaving = False
        self._app, self._listener, self._most = app, listener, most
        self._address = listener.getsockname()[:2]
        self._open: set[Connection] = set()
        # Those that wait, by when they began to; the oldest first.
        self._for_head: OrderedDict[Connection, float] = OrderedDict()
        self._for_body: OrderedDict[Connection, None] = OrderedDict()
        listener.setblocking(False)

    # ---- what connections tell of themselves ----

    def for_head(self, connection: Connection) -> None:
        """It waits for a request from here on."""
        self.for_nothing(connection)
        self._for_head[connection] = trio.current_time()
        if self.leaving:
            connection.cut()

    def for_body(self, connection: Connection) -> None:
        """It waits for the rest of a request."""
        self._for_head.pop(connection, None)
        self._for_body.setdefault(connection)

    def for_nothing(self, connection: Connection) -> None:
        """It is being answered, or over."""
        self._for_head.pop(connection, None)
        self._for_body.pop(connection, None)

    # ---- tasks ----

    async def accept(self, clients: trio.Nursery) -> None:
        """Let clients in, until cancelled."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self._listener.fileno())
            except trio.ClosedResourceError:  # `leave`
                return
            for _ in range(ACCEPTS_AT_A_TIME):
                try:
                    sock, address = self._listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _EXHAUSTED:
                        _log.warning("connection_not_accepted", reason=errno.errorcode[error.errno])
                        self._make_room()
                        await trio.sleep(PAUSE_SECONDS)
                    continue  # else that client left before it was let in
                self._admit(clients, sock, address)

    async def end_idle(self) -> None:
        """Cut connections that were silent too long, until cancelled."""
        while True:
            now = trio.current_time()
            oldest = next(iter(self._for_head.items()), None)
            if oldest is not None and oldest[1] + IDLE_SECONDS <= now:
                del self._for_head[oldest[0]]
                oldest[0].cut()
            else:
                begun = now if oldest is None else oldest[1]
                await trio.sleep_until(begun + IDLE_SECONDS)

    def leave(self) -> None:
        """Let nobody in, and end what is idle."""
        self.leaving = True
        trio.lowlevel.notify_closing(self._listener.fileno())
        self._listener.close()
        for connection in self._for_head:
            connection.cut()

    def _admit(self, clients: trio.Nursery, sock: socket.socket, address: tuple[str, int]) -> None:
        if len(self._open) >= self._most and not self._make_room():
            with contextlib.suppress(OSError), sock:
                sock.setblocking(False)
                sock.send(_BUSY)
            return
        connection = Connection(self._app, Wire(sock), self, address[:2], self._address)
        self._open.add(connection)
        clients.start_soon(self._run, connection)

    async def _run(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            self._open.discard(connection)

    def _make_room(self) -> bool:
        """Cut who waits longest; False if nobody does."""
        for waiting in (self._for_head, self._for_body):
            if waiting:
                connection, _ = waiting.popitem(last=False)
                self._open.discard(connection)
                connection.cut()
                return True
        return False


def _affordable() -> int:
    """How many connections the process has descriptors for."""
    most = descriptor_limit()
    return CONNECTIONS_MAX if most is None else max(1, most - DESCRIPTORS_KEPT)
