"""TCP for py-libp2p that survives cancellation, silent sockets and taken ports.

The stock 0.8.1 transport lets a cancelled task tear an encrypted message apart (which ends the
connection for every stream), keeps an inbound slot until the host stops, and shares a listening
port silently (SO_REUSEPORT). This one
- shields every write, with a bound on how long a stalled socket may hold a cancellation back;
- frees the inbound slot soon after the socket closed;
- cuts who says nothing for who comes, when nearly all places are taken (crowd.py);
- holds at most HANDSHAKES_MAX sockets that have not proved who they are, and drops the oldest
  first;
- refuses an address it cannot have for itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio
from libp2p.abc import IListener
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from libp2p.utils.multiaddr_utils import extract_ip_from_multiaddr, multiaddr_from_socket
from multiaddr import Multiaddr

from assay_network.crowd import to_cut
from assay_network.scopes import shielded

WRITE_SECONDS_MAX: Final = 30.0
HANDSHAKES_MAX: Final = 128
SLOT_GRACE_SECONDS: Final = 2.0  # time for the swarm to take note of a closed connection
ACCEPT_BACKLOG: Final = 1024
READ_BYTES: Final = 65_536

Handler = Callable[["SafeStream"], Awaitable[None]]

# The socket whose upgrade runs in this task; lets the muxer say "this one has authenticated".
_upgrading: ContextVar[SafeStream | None] = ContextVar("_upgrading", default=None)


@dataclass(slots=True)
class Sent:
    """How much all sockets of a transport sent since its start: encrypted, without headers."""

    bytes: int = 0


class Muxed(Protocol):
    """What runs over a socket, as far as its listener asks."""

    idle_at: float | None  # since when there has been no stream


class SafeStream(TrioTCPStream):  # type: ignore[misc]  # libp2p is untyped
    """A TCP socket whose writes are whole or end the connection, and whose reads are buffered."""

    def __init__(self, stream: trio.SocketStream, sent: Sent | None = None) -> None:
        super().__init__(stream)
        self._sent = sent or Sent()
        self.closed = trio.Event()
        self.authenticated = False
        self.muxed: Muxed | None = None  # once the peer has proved its identity
        self.released = trio.Event()  # its inbound slot in the swarm is free again
        self._remote: tuple[str, int] | None = None
        self._buffer = bytearray()

    async def read(self, n: int | None = None) -> bytes:
        """Exactly `n` bytes, fewer only at the end; with None, whatever is there.

        Noise reads a length and then a body: waiting for all of it here saves half the system calls
        and avoids the stock helper's limit of 100 partial reads.
        """
        if n == 0:
            return b""
        async with self.read_lock:
            while len(self._buffer) < (n or 1):
                chunk = await self._receive()
                if not chunk:
                    break
                self._buffer += chunk
            end = len(self._buffer) if n is None else n
            data = bytes(self._buffer[:end])
            del self._buffer[:end]
            return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`; a cancellation waits, at most WRITE_SECONDS_MAX.

        Raises ConnectionClosedError when the peer is gone or the socket stays stalled.
        """
        # No checkpoint before the shield: Noise has already advanced its nonce for these bytes.
        with shielded(WRITE_SECONDS_MAX) as scope:
            await super().write(data)
        self._sent.bytes += len(data)
        if scope.cancelled_caught:
            await self.close()
            raise ConnectionClosedError("write stalled", transport="tcp")

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the peer, also over IPv6, which the stock one does not tell."""
        if self._remote is None:
            try:
                host, port = self.stream.socket.getpeername()[:2]
            except OSError:
                return None
            self._remote = (str(host), int(port))
        return self._remote

    @property
    def host(self) -> str:
        remote = self.get_remote_address()
        return "" if remote is None else remote[0]

    @property
    def idle_at(self) -> float | None:
        return None if self.muxed is None else self.muxed.idle_at

    async def close(self) -> None:
        """Close the socket now; never raises and is not held back by a cancellation."""
        self.closed.set()
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self.stream)

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(READ_BYTES))
        except trio.BrokenResourceError as error:
            raise ConnectionClosedError("connection reset", transport="tcp") from error
        except trio.ClosedResourceError:
            return b""


class SafeListener(IListener):  # type: ignore[misc]  # libp2p is untyped
    """Listens on one address; every accepted socket runs the swarm's handler until it closes."""

    background_nursery: trio.Nursery | None = None  # set by Swarm.listen()

    def __init__(self, handler: Handler, sent: Sent, places: int) -> None:
        self._handler, self._sent, self._places = handler, sent, places
        self._guests: dict[SafeStream, None] = {}
        self._listeners: list[trio.SocketListener] = []
        self._scope = trio.CancelScope()
        self._admission = trio.Lock()
        self._handshaking: dict[SafeStream, None] = {}  # oldest first

    async def listen(self, maddr: Multiaddr) -> None:
        """Raises OpenConnectionError when the address is taken or not ours."""
        host, port = extract_ip_from_multiaddr(maddr), int(maddr.value_for_protocol("tcp"))
        assert self.background_nursery is not None, "the swarm sets the nursery before listen()"
        try:
            listeners = await trio.open_tcp_listeners(port, host=host, backlog=ACCEPT_BACKLOG)
        except OSError as error:
            raise OpenConnectionError(f"cannot listen on {maddr}: {error}") from error
        self._listeners = await self.background_nursery.start(self._serve, listeners)

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """The addresses listened on, with the real port."""
        return tuple(multiaddr_from_socket(listener.socket) for listener in self._listeners)

    async def close(self) -> None:
        """Stop accepting and end every connection accepted here."""
        self._scope.cancel()
        for listener in self._listeners:
            await listener.aclose()

    async def _serve(self, listeners: list[trio.SocketListener], *, task_status: Any) -> None:
        with self._scope:
            await trio.serve_listeners(self._on_socket, listeners, task_status=task_status)

    async def _on_socket(self, socket: trio.SocketStream) -> None:
        stream = SafeStream(socket, self._sent)
        async with self._admission:  # in turn, so that evicted sockets leave before others enter
            await self._admit(stream)
        self._guests[stream] = None
        try:
            async with trio.open_nursery() as nursery:
                _upgrading.set(stream)
                nursery.start_soon(self._run_handler, stream, nursery.cancel_scope)
                _upgrading.set(None)
                await stream.closed.wait()
                # The handler itself waits for the swarm to stop; ending it frees the inbound slot.
                await trio.sleep(SLOT_GRACE_SECONDS)
                nursery.cancel_scope.cancel()
        finally:
            self._handshaking.pop(stream, None)
            del self._guests[stream]
            stream.released.set()
            await stream.close()

    async def _run_handler(self, stream: SafeStream, scope: trio.CancelScope) -> None:
        try:
            await self._handler(stream)
        except Exception:
            # Whatever hostile bytes provoke in the upgrade ends this socket and nothing else.
            await stream.close()
        scope.cancel()

    async def _admit(self, stream: SafeStream) -> None:
        """Count an unauthenticated socket; make room by dropping the one that waited longest."""
        for other in [s for s in self._handshaking if s.authenticated or s.closed.is_set()]:
            del self._handshaking[other]
        if len(self._handshaking) >= HANDSHAKES_MAX:
            oldest = next(iter(self._handshaking))
            del self._handshaking[oldest]
            await oldest.close()
            with trio.move_on_after(SLOT_GRACE_SECONDS):
                await oldest.released.wait()
        self._handshaking[stream] = None
        held = [guest for guest in self._guests if not guest.closed.is_set()]
        for guest in to_cut(held, self._places):
            await guest.close()


class SafeTCP(TCP):  # type: ignore[misc]  # libp2p is untyped
    """The TCP transport to give to a swarm; DNS names are resolved by the stock base class."""

    def __init__(self, connections_max: int) -> None:
        super().__init__()
        self.sent, self._places = Sent(), connections_max

    def create_listener(self, handler_function: Handler) -> SafeListener:
        return SafeListener(handler_function, self.sent, self._places)

    async def _dial_resolved(
        self, maddr: Multiaddr, source: tuple[str, int] | None = None
    ) -> RawConnection:
        host, port = extract_ip_from_multiaddr(maddr), int(maddr.value_for_protocol("tcp"))
        if host is None:
            raise OpenConnectionError(f"no IP address in {maddr}")
        try:
            socket = await trio.open_tcp_stream(host, port)
        except OSError as error:
            raise OpenConnectionError(f"cannot dial {maddr}: {error}") from error
        return RawConnection(SafeStream(socket, self.sent), True)


def mark_authenticated() -> SafeStream | None:
    """Called in the task of an upgrade once the peer has proved its identity; its socket, if
    somebody else opened it."""
    stream = _upgrading.get()
    if stream is not None:
        stream.authenticated = True
    return stream
