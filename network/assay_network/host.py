"""A libp2p host made safe: dial, open, call and serve, with bytes in and bytes out.

What it decides
- Only Noise is offered (the stock default also accepts plaintext, which proves nothing), over
  SafeTCP and FastYamux; `muxer="stock"` keeps py-libp2p's own muxer for comparison.
- The swarm is used without BasicHost: no identify, no auto-connector, no resource manager whose
  tasks or queues a stranger can drive. We answer our own protocols and ping.
- No exception of a handler, and no bytes of a peer, reach the swarm: they end one stream.
- Every stream ends: on leaving `open`, and after each handler, whatever happened.
"""

from __future__ import annotations

import collections
import contextlib
import ipaddress
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import trio
from libp2p.crypto.keys import KeyPair
from libp2p.network.exceptions import SwarmException
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from assay_network import identity
from assay_network.frames import STREAM_FAILURES, ByteBudget, Frames
from assay_network.logs import get_logger
from assay_network.negotiation import ByteStream, answer, proposal
from assay_network.safetcp import SafeTCP, Sent
from assay_network.scopes import shielded, single_errors
from assay_network.swarm import build_swarm
from assay_protocol.errors import AssayError, PeerGone, ProtocolError
from assay_protocol.limits import (
    ADDRESSES_PER_NODE_MAX,
    FRAME_BYTES_MAX,
    STREAMS_PER_PEER_MAX,
)

Handler = Callable[[bytes, Frames], Awaitable[None]]

CONNECTIONS_MAX: Final = 4096
NEGOTIATION_SECONDS_MAX: Final = 10.0
LINGER_SECONDS_MAX: Final = 5.0  # how long a served stream waits for the peer's end
LINGER_BYTES_MAX: Final = 2 * FRAME_BYTES_MAX
DIAL_STAGGER_SECONDS: Final = 0.25  # head start of an address over the next (RFC 8305's 250 ms)
ABORT_SECONDS_MAX: Final = 2.0
CLOSE_SECONDS_MAX: Final = 2.0
PEER_BUFFER_BYTES_MAX: Final = 16 * FRAME_BYTES_MAX
HOST_BUFFER_BYTES_MAX: Final = 256 * FRAME_BYTES_MAX
PING_PROTOCOL: Final = "/ipfs/ping/1.0.0"
PING_IDLE_SECONDS_MAX: Final = 60.0
PING_BYTES: Final = 32

log = get_logger("host")


@asynccontextmanager
async def open_host(
    seed: bytes,
    listen: Sequence[str] = (),
    *,
    muxer: Literal["fast", "stock"] = "fast",
    transports: list[Any] | None = None,
    keys: KeyPair | None = None,
    connections_max: int = CONNECTIONS_MAX,
) -> AsyncIterator[Host]:
    """Run a host with the identity of `seed` (32 bytes) on the multiaddresses `listen`.

    Without addresses the host only dials. `transports` replaces TCP, and `keys` those of `seed`
    (see memory.py).
    Raises AssayError("config_invalid") for an address that cannot be read,
    AssayError("port_in_use") when one cannot be listened on. Leaving closes every connection.
    """
    silence_libp2p()
    addresses = [_read_address(text) for text in listen]
    tcp = SafeTCP(connections_max)
    swarm = build_swarm(
        keys or identity.keypair(seed),
        muxer=muxer,
        transports=[tcp] if transports is None else transports,
        connections_max=connections_max,
    )
    host = Host(swarm, tcp.sent if transports is None else None)
    with single_errors():
        async with background_trio_service(swarm):
            await swarm.listen(*addresses)
            for address in addresses:
                if str(address) not in swarm.listeners:
                    raise AssayError("port_in_use", f"cannot listen on {address}")
            try:
                yield host
            finally:
                await host._close()


class Host:
    """One identity on the network; made by `open_host`."""

    def __init__(self, swarm: Any, sent: Sent | None = None) -> None:
        self._swarm, self._sent = swarm, sent
        self.public_key = identity.public_key(swarm.get_peer_id())
        self._handlers: dict[str, Handler] = {}
        self._dials: dict[bytes, trio.Lock] = {}
        self._budget = ByteBudget(HOST_BUFFER_BYTES_MAX)
        self._peer_budgets: dict[bytes, ByteBudget] = {}
        self._inbound: collections.Counter[bytes] = collections.Counter()
        swarm.set_stream_handler(self._on_stream)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddresses listened on, with real ports, ending in /p2p/<our id>."""
        name = identity.peer_text(self.public_key)
        return tuple(
            f"{address}/p2p/{name}"
            for listener in self._swarm.listeners.values()
            for address in listener.get_addrs()
        )

    @property
    def bytes_sent(self) -> int | None:
        """Bytes sent over TCP since the start, all peers together; None for another transport."""
        return None if self._sent is None else self._sent.bytes

    def connected(self, public_key: bytes) -> bool:
        """Whether a live connection to this peer exists."""
        return self._connection(public_key) is not None

    def remote_ip(self, public_key: bytes) -> str:
        """The IP address the peer's newest connection comes from; "" if it is not known."""
        connection = self._connection(public_key)
        remote = None if connection is None else connection.muxed_conn.get_remote_address()
        if not remote:
            return ""
        ip = ipaddress.ip_address(remote[0])
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return str(mapped or ip)

    async def dial(self, public_key: bytes, addresses: Iterable[str], timeout: float = 8.0) -> None:
        """Make sure there is a connection to the peer: reuse a live one, else try its addresses.

        A later address starts when the one before failed or had 250 ms; the first to prove the
        peer's identity wins. At most ADDRESSES_PER_NODE_MAX addresses are tried.
        Raises PeerGone when none answers within `timeout` seconds.
        """
        if self.connected(public_key):
            return
        peer = identity.peer_id(public_key)
        lock = self._dials.setdefault(public_key, trio.Lock())
        try:
            with trio.move_on_after(timeout):
                async with lock:
                    if not self.connected(public_key):
                        await self._dial_any(peer, list(addresses)[:ADDRESSES_PER_NODE_MAX])
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._dials.pop(public_key, None)
        if not self.connected(public_key):
            raise PeerGone(f"no address of {peer} answered")

    async def disconnect(self, public_key: bytes) -> None:
        """Close every connection to the peer; its streams end at once."""
        peer = identity.peer_id(public_key)
        with shielded(CLOSE_SECONDS_MAX):
            await self._close_all(self._swarm.get_connections(peer))

    def serve(self, protocol: str, handler: Handler) -> None:
        """Answer `protocol` with `handler(peer public key, frames)`; one task per stream.

        When the handler returns the peer gets the end of frames; when it raises, a reset.
        """
        assert protocol not in self._handlers, f"{protocol} is served already"
        self._handlers[protocol] = handler

    @asynccontextmanager
    async def open(
        self,
        public_key: bytes,
        protocol: str,
        first: bytes,
        timeout: float = 10.0,
        *,
        addresses: Iterable[str] = (),
    ) -> AsyncIterator[Frames]:
        """A stream to the peer on which `first` is already sent; dials when not connected.

        Nothing is waited for: a refusal shows at the first `receive`. Leaving resets the stream,
        unless the peer has finished or we have (`finish`): then the peer's end is waited for.
        Raises PeerGone, AssayError("timeout") after `timeout` seconds of dialing and opening.
        """
        frames = None
        try:
            with trio.move_on_after(timeout):
                await self.dial(public_key, addresses, timeout)
                frames = await self._open_stream(public_key, proposal(protocol), first)
            if frames is None:
                raise AssayError("timeout", "the stream could not be opened in time")
            yield frames
            if frames.ended or frames.finished:
                await self._end_politely(frames)
        finally:
            if frames is not None:
                await _abort(frames)

    async def call(
        self,
        public_key: bytes,
        protocol: str,
        request: bytes,
        timeout: float = 30.0,
        addresses: Iterable[str] = (),
    ) -> bytes:
        """One frame out, one frame back.

        Raises PeerGone (it may or may not have run), AssayError("timeout"),
        AssayError("unsupported_protocol"), ProtocolError.
        """
        with trio.move_on_after(timeout):
            async with self.open(
                public_key, protocol, request, timeout, addresses=addresses
            ) as frames:
                return await frames.receive()
        raise AssayError("timeout")

    # Dialing

    def _connection(self, public_key: bytes) -> Any:
        """The newest live connection to the peer, or None."""
        peer = identity.peer_id(public_key)
        for connection in reversed(self._swarm.get_connections(peer)):
            muxed = connection.muxed_conn
            if not connection.is_closed and not muxed.is_closed and muxed.is_established:
                return connection
        return None

    async def _dial_any(self, peer: Any, addresses: list[str]) -> None:
        async with trio.open_nursery() as nursery:
            for text in addresses:
                failed = trio.Event()
                nursery.start_soon(self._dial_one, peer, text, failed, nursery.cancel_scope)
                with trio.move_on_after(DIAL_STAGGER_SECONDS):
                    await failed.wait()

    async def _dial_one(
        self, peer: Any, text: str, failed: trio.Event, winner: trio.CancelScope
    ) -> None:
        try:
            await self._swarm.dial_addr(Multiaddr(text), peer)
        except Exception as error:
            # The address came from a peer: whatever is wrong with it, it only fails to answer.
            log.debug("dial_failed", address=text[:128], reason=repr(error)[:200])
            failed.set()
        else:
            winner.cancel()

    async def _open_stream(self, public_key: bytes, prelude: bytes, first: bytes) -> Frames:
        connection = self._connection(public_key)
        if connection is None:
            raise PeerGone("the connection is gone")
        try:
            # Shielded: a cancelled open of a stock stream would leak its slot.
            with trio.CancelScope(shield=True), trio.fail_after(NEGOTIATION_SECONDS_MAX):
                stream = await connection.muxed_conn.open_stream()
        except (*STREAM_FAILURES, SwarmException, trio.TooSlowError) as error:
            raise PeerGone(f"no stream could be opened: {error}") from error
        try:
            frames = Frames(stream, public_key, expect=prelude, budget=self._budget_of(public_key))
            size = len(first).to_bytes(4, "big")
            if len(first) > FRAME_BYTES_MAX:
                raise ProtocolError("oversized", f"a frame of {len(first)} bytes")
            await stream.write(prelude + size + first)
            return frames
        except BaseException as error:
            await _abort(Frames(stream, public_key))
            if isinstance(error, STREAM_FAILURES):
                raise PeerGone("the stream was cut while it was opened") from error
            raise

    # Serving

    async def _on_stream(self, net_stream: Any) -> None:
        """Serve one inbound stream. Nothing but a cancellation may leave here."""
        stream = net_stream.muxed_stream
        try:
            peer = identity.public_key(stream.muxed_conn.peer_id)
            if self._inbound[peer] >= STREAMS_PER_PEER_MAX:
                raise ProtocolError("oversized", "too many streams from this peer")
            self._inbound[peer] += 1
            try:
                await self._serve_stream(peer, stream)
            finally:
                self._inbound[peer] -= 1
                if not self._inbound[peer]:
                    del self._inbound[peer]
                    self._peer_budgets.pop(peer, None)
        except (*STREAM_FAILURES, trio.TooSlowError) as error:
            log.debug("stream_cut", reason=repr(error))
        except AssayError as error:
            log.info("stream_refused", code=error.code, reason=error.message)
        except Exception:
            log.exception("stream_handler_failed")
        finally:
            with shielded(ABORT_SECONDS_MAX):
                with contextlib.suppress(Exception):
                    await stream.reset()

    async def _serve_stream(self, peer: bytes, stream: ByteStream) -> None:
        with trio.fail_after(NEGOTIATION_SECONDS_MAX):
            try:
                protocol, rest = await answer(stream, {*self._handlers, PING_PROTOCOL})
            except ProtocolError:
                # Ended, not reset: a lazy dialer still has our "na" to read.
                refused = Frames(stream, peer)
                await self._end_politely(refused)
                raise
        if protocol == PING_PROTOCOL:
            await _answer_pings(stream, rest)
            return
        frames = Frames(stream, peer, received=rest, budget=self._budget_of(peer))
        try:
            await self._handlers[protocol](peer, frames)
            await self._end_politely(frames)
        finally:
            frames.release()

    async def _end_politely(self, frames: Frames) -> None:
        """Tell the peer we are done and wait a bounded while for its own end."""
        with trio.move_on_after(LINGER_SECONDS_MAX):
            with contextlib.suppress(PeerGone):
                await frames.finish()
                await frames.drain(LINGER_BYTES_MAX)

    def _budget_of(self, peer: bytes) -> ByteBudget:
        budget = self._peer_budgets.get(peer)
        if budget is None:
            budget = ByteBudget(PEER_BUFFER_BYTES_MAX, self._budget)
            if self._inbound[peer]:
                self._peer_budgets[peer] = budget
        return budget

    # Closing

    async def _close(self) -> None:
        with shielded(CLOSE_SECONDS_MAX):
            await self._close_all(self._swarm.get_connections())

    async def _close_all(self, connections: Iterable[Any]) -> None:
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(_close_connection, connection)


def silence_libp2p() -> None:
    """libp2p reports expected failures as errors on stderr; ours are events with stable codes.

    LIBP2P_DEBUG, its own switch, keeps its logging as it is.
    """
    if "LIBP2P_DEBUG" in os.environ:
        return
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("libp2p.")]:
        logging.getLogger(name).setLevel(logging.NOTSET)
    logger = logging.getLogger("libp2p")
    logger.propagate = True
    logger.setLevel(logging.CRITICAL)


async def _close_connection(connection: Any) -> None:
    with contextlib.suppress(Exception):
        await connection.close()


async def _abort(frames: Frames) -> None:
    with shielded(ABORT_SECONDS_MAX):
        await frames.abort()


async def _answer_pings(stream: ByteStream, rest: bytes) -> None:
    """libp2p ping: send back what comes, until the peer has had enough."""
    data = rest
    while True:
        with trio.fail_after(PING_IDLE_SECONDS_MAX):  # of silence, and of not reading the echo
            if data:
                await stream.write(data)
            data = await stream.read(PING_BYTES)


def _read_address(text: str) -> Multiaddr:
    try:
        return Multiaddr(text)
    except Exception as error:
        raise AssayError("config_invalid", f"not a multiaddress: {text!r}") from error
