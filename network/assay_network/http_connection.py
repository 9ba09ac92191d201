"""HTTP/1.1 on one connection: requests are read and answered in turn by an ASGI application.

h11 is the protocol: what a request is, how bodies are framed, when a connection can be used again.
What is decided here is when to read and how much.

- Nothing is read ahead: the request's body when the application asks for it, and after that only
  to notice that the client left. A client that sends more than PIPELINED_BYTES_MAX meanwhile is cut
  off; what is less is its next request, answered in turn.
- An end of the client's bytes while it is being answered counts as leaving: one that only closed
  its sending half cannot be told from one that is gone until it is written to, and drawing costs.
- The head of an answer leaves with its first bytes, and a piece of a chunked one in one write: the
  framing of a chunk is two lines, made here, because it is made for every token.
- Where h11 is more lenient than a proxy in front may be, the stricter reading counts: a request
  framed in two ways, or by chunks in HTTP/1.0, and another major version are refused, so nobody can
  smuggle one request inside of another. Nor are there tunnels.
- A body of many small chunks is given in larger pieces, and others have their turn in between.
- A request that was not read to its end is read and dropped for LINGER_SECONDS after its answer:
  a socket closed over unread bytes resets, and a reset takes the answer away.

ASGI as far as it is used: "http" scopes, no lifespan, no extensions. After the client left `send`
does nothing, and `receive` says "http.disconnect".
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any, Final, Protocol
from urllib.parse import unquote

import h11
import trio

from assay_network.logs import get_logger
from assay_network.wire import Wire

HEAD_BYTES_MAX: Final = 16_384  # of a request; also of a chunk's size line and of trailers
PIPELINED_BYTES_MAX: Final = 65_536  # of next requests, while one is being answered
PIECES_AT_A_TIME: Final = 256  # of a body, each a chunk or a read, before others have their turn
PIECE_BYTES: Final = 65_536  # as many are joined, and the last one
LINGER_SECONDS: Final = 5.0
LINGER_BYTES_MAX: Final = 256 << 20
_BODILESS: Final = frozenset({204, 304})
_GONE: Final = {"type": "http.disconnect"}
_log = get_logger("http")

Application = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Any]


class Waiting(Protocol):
    """Who keeps account of connections that wait for their clients."""

    leaving: bool  # no further request is to be answered

    def for_head(self, connection: Connection) -> None: ...
    def for_body(self, connection: Connection) -> None: ...
    def for_nothing(self, connection: Connection) -> None: ...


class Connection:
    """One client's connection, from its first byte to its last."""

    __slots__ = ("_app", "_client", "_h11", "_server", "_waiting", "_wire")

    def __init__(
        self, app: Application, wire: Wire, waiting: Waiting, client: Any, server: Any
    ) -> None:
        self._app, self._wire, self._waiting = app, wire, waiting
        self._client, self._server = client, server
        self._h11: h11.Connection | None = None  # an idle connection has none

    def cut(self) -> None:
        """End it now; what runs for it notices."""
        self._wire.cut()

    async def run(self) -> None:
        """Answer until the client has no more requests, or may send none. Raises nothing."""
        try:
            while (request := await self._head()) is not None:
                await self._answer(request)
                if not self._reusable():
                    break
            await self._linger()
        except Exception as error:  # bytes that neither h11 nor we thought of end their connection
            _log.error("http_connection_failed", error=type(error).__name__)
        finally:
            self._waiting.for_nothing(self)
            self._wire.cut()

    async def _head(self) -> h11.Request | None:
        """The next request; None if there is none. A malformed one is answered here."""
        self._waiting.for_head(self)
        if self._h11 is None:
            if not (data := await self._wire.read()):
                return None
            self._h11 = _protocol(data)
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                self._h11.receive_data(await self._wire.read())
        except h11.RemoteProtocolError as error:
            await self.refuse(error.error_status_hint)
            return None
        if not isinstance(event, h11.Request):
            return None
        if status := _refused_status(event):
            await self.refuse(status)
            return None
        return event

    async def _answer(self, request: h11.Request) -> None:
        assert self._h11 is not None
        try:
            exchange = _Exchange(self, self._wire, self._waiting, self._h11, request)
        except h11.RemoteProtocolError as error:  # the body is not framed as it was said to be
            await self.refuse(error.error_status_hint)
            return
        self._waiting.for_nothing(self)
        scope = _scope(request, self._client, self._server)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # one request's fault must not end the others
            _log.error("http_application_failed", error=type(error).__name__)
        if not exchange.answered:
            await exchange.fail()

    def _reusable(self) -> bool:
        """Whether another request may come; the protocol is then at its beginning again."""
        protocol = self._h11
        assert protocol is not None
        both = (protocol.our_state, protocol.their_state)
        if self._wire.broke or self._waiting.leaving or both != (h11.DONE, h11.DONE):
            return False
        begun, ended = protocol.trailing_data
        if ended:
            return False
        self._h11 = _protocol(begun) if begun else None
        return True

    async def refuse(self, status: int) -> None:
        """Answer bytes that are no request; nothing is sent if an answer has begun."""
        protocol = self._h11
        assert protocol is not None
        if protocol.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self._wire.broke:
            text = b"the request is not well-formed HTTP/1.1, or its head is too large\n"
            told = [
                (b"date", _date()),
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(text)).encode()),
                (b"connection", b"close"),
            ]
            head = protocol.send(h11.Response(status_code=status, headers=told))
            await self._wire.send(head + protocol.send(h11.Data(data=text)))

    async def _linger(self) -> None:
        """Take what a client still sends, so that it can read why that is not wanted."""
        read_all = (h11.IDLE, h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
        if self._h11 is None or self._h11.their_state in read_all:
            return
        self._wire.finish()
        self._waiting.for_head(self)
        left = LINGER_BYTES_MAX
        with trio.move_on_after(LINGER_SECONDS):
            while left > 0 and (data := await self._wire.read()):
                left -= len(data)


class _Exchange:
    """One request and its answer: ASGI's `receive` and `send`."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_ended",
        "_h11",
        "_head",
        "_next",
        "_pieces",
        "_silent",
        "_waiting",
        "_watch",
        "_whole",
        "_wire",
        "answered",
    )

    def __init__(
        self,
        connection: Connection,
        wire: Wire,
        waiting: Waiting,
        protocol: h11.Connection,
        request: h11.Request,
    ) -> None:
        self.answered = False
        self._connection, self._wire, self._waiting = connection, wire, waiting
        self._h11 = protocol
        self._next = protocol.next_event()  # of the request; its end, if it has no body
        self._whole = False  # the application has all of the request
        self._ended = False  # its client sends no more
        self._pieces = 0  # of the body, since others had their turn
        self._head = b""  # of the answer, as long as it was not sent
        self._chunked = request.http_version >= b"1.1"
        self._silent = request.method == b"HEAD"
        self._watch: trio.CancelScope | None = None

    # ---- the request ----

    async def receive(self) -> dict[str, Any]:
        """A piece of the body; after it, that the client left or the answer is whole."""
        if not self._whole and not self.answered:
            try:
                return await self._body()
            except h11.RemoteProtocolError as error:
                await self._end_badly(error.error_status_hint)
                return _GONE
        with trio.CancelScope() as self._watch:
            await self._until_gone()
        return _GONE

    async def _body(self) -> dict[str, Any]:
        protocol, data = self._h11, bytearray()
        if self._pieces >= PIECES_AT_A_TIME:  # else whoever sends a byte a chunk has all the time
            await trio.lowlevel.checkpoint()
            self._pieces = 0
        if self._next is h11.NEED_DATA:
            self._waiting.for_body(self._connection)
            if protocol.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                await self._wire.send(protocol.send(go_on))
        while self._next is h11.NEED_DATA:
            await self._read_on()
        while isinstance(self._next, h11.Data) and len(data) < PIECE_BYTES:
            data += self._next.data
            self._next = protocol.next_event()
            self._pieces += 1
            if self._pieces >= PIECES_AT_A_TIME:
                break
        self._whole = isinstance(self._next, h11.EndOfMessage)
        if self._whole:
            self._waiting.for_nothing(self._connection)
        return {"type": "http.request", "body": bytes(data), "more_body": not self._whole}

    async def _end_badly(self, status: int) -> None:
        """The body is not framed as it was said to be, or cut short."""
        if self._ended or self._h11.our_state is not h11.SEND_RESPONSE:
            self._wire.cut()
            return
        self.answered = True  # here, whatever the application says now
        await self._connection.refuse(status)

    async def _read_on(self) -> None:
        data = await self._wire.read()
        self._ended = not data
        self._h11.receive_data(data)
        self._next = self._h11.next_event()

    async def _until_gone(self) -> None:
        """Read on while an answer is made: bytes are the next request's, their end is the end."""
        protocol = self._h11
        while not self.answered:
            data = await self._wire.read()
            protocol.receive_data(data)
            if not data or len(protocol.trailing_data[0]) > PIPELINED_BYTES_MAX:
                self._wire.cut()
                return

    # ---- the answer ----

    async def send(self, message: dict[str, Any]) -> None:
        """The head, or a piece of the body."""
        if self.answered:
            return
        if message["type"] == "http.response.start":
            self._begin(message)
            return
        assert message["type"] == "http.response.body", message["type"]
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._chunked and more:
            if body:
                data = b"%x\r\n%b\r\n" % (len(body), body)
                if self._head:
                    data, self._head = self._head + data, b""
                await self._wire.send(data)
            return
        await self._send_framed(body, more)

    def _begin(self, message: dict[str, Any]) -> None:
        assert self._h11.our_state is h11.SEND_RESPONSE, "an answer is begun once"
        headers = [(b"date", _date()), *message.get("headers", ())]
        status = message["status"]
        if self._waiting.leaving or self._h11.their_state is h11.SEND_BODY:
            headers.append((b"connection", b"close"))
        if self._silent or status in _BODILESS:
            self._silent, self._chunked = True, False
        elif any(name.lower() == b"content-length" for name, _ in headers):
            self._chunked = False
        self._head = self._h11.send(h11.Response(status_code=status, headers=headers))

    async def _send_framed(self, body: bytes, more: bool) -> None:
        """A piece that h11 counts or ends."""
        data, self._head = self._head, b""
        if body and not self._silent:
            data += self._h11.send(h11.Data(data=body))
        if not more:
            data += self._h11.send(h11.EndOfMessage())
            self.answered = True
        if data:
            await self._wire.send(data)
        if self.answered and self._watch is not None:
            self._watch.cancel()

    async def fail(self) -> None:
        """The application ended without an answer: say so, or cut what was begun of one."""
        if self._h11.our_state is not h11.SEND_RESPONSE or self._wire.broke:
            self._wire.cut()
            return
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body"})


def _protocol(data: bytes) -> h11.Connection:
    protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
    protocol.receive_data(data)
    return protocol


def _refused_status(request: h11.Request) -> int:
    """The status of a head that h11 takes and this server does not; 0 if it is right."""
    if not request.http_version.startswith(b"1."):
        return 505
    if request.method == b"CONNECT":
        return 501  # no tunnels
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" not in names:
        return 0
    return 400 if b"content-length" in names or request.http_version < b"1.1" else 0


def _scope(request: h11.Request, client: Any, server: Any) -> dict[str, Any]:
    target, headers = bytes(request.target), list(request.headers)
    if not target.startswith(b"/") and b"://" in target:  # as to a proxy: its host is the one meant
        host, _, rest = target.partition(b"://")[2].partition(b"/")
        target = b"/" + rest
        others = [(name, value) for name, value in headers if name != b"host"]
        headers = [(b"host", host.rpartition(b"@")[2]), *others]
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode("ascii"),
        "method": request.method.decode("ascii"),
        "scheme": "http",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": server,
    }


_dated: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    """The value of a Date header, made once a second."""
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = now, formatdate(now, usegmt=True).encode("ascii")
    return _dated[1]
