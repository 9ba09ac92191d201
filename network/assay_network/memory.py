"""A network inside one process for tests and simulation: real hosts, real muxer, virtual time.

Only sockets and encryption are replaced: a dial gives both ends a FastYamux connection over a pipe
with latency, bandwidth and loss. With trio.testing.MockClock a run takes no real time; in
assay_simnet's run_virtual two runs with the same seed have the same timings. Identities are trusted
here: a transport is given its key.

Faults: `kill` ends connections at once (a crashed process), `freeze` stops all delivery to and
from a peer with nobody told (a hung process), `block` does so between two peers, and `reaches`
between any, one way or both (a network partition).
"""

from __future__ import annotations

import collections
import contextlib
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from libp2p.abc import IListener, ITransport
from libp2p.connection_types import ConnectionType
from libp2p.crypto.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from libp2p.crypto.keys import KeyPair
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from assay_network import identity
from assay_network.fastyamux import FastYamux
from assay_network.safetcp import SLOT_GRACE_SECONDS

Measure = Callable[
    [bytes, bytes], float
]  # (from public key, to public key) -> seconds, bytes/s, ...

PIPE_BYTES_MAX: Final = 4 * 1024 * 1024  # in flight or unread, as the socket buffers hold
HANDSHAKE_ROUND_TRIPS: Final = 4  # TCP 1, choosing Noise 1, Noise XX 1, choosing yamux 1
RETRANSMIT_SECONDS: Final = 0.2  # TCP's first retransmission; each further one takes twice as long
RETRANSMITS_MAX: Final = 8
REFUSED_SECONDS: Final = 0.01
SECURITY: Final = "/memory"


class MemoryNetwork:
    """The wires between the hosts of one simulation. Peers are named by their public keys."""

    def __init__(
        self,
        *,
        latency: Measure = lambda a, b: 0.0,
        bandwidth: Measure = lambda a, b: math.inf,
        loss: Measure = lambda a, b: 0.0,
        reaches: Callable[[bytes, bytes], bool] = lambda a, b: True,
        seed: int = 0,
    ) -> None:
        """`latency` in seconds one way, `bandwidth` in bytes/s, `loss` a chance per message.

        `reaches` says whether anything passes from one peer to another now; call `changed` when it
        says otherwise.
        """
        self.latency, self.bandwidth, self.loss, self.reaches = latency, bandwidth, loss, reaches
        self.seed = seed
        self.bytes_sent = 0
        self.messages_sent = 0
        self.listeners: dict[str, _Listener] = {}
        self.ends: dict[_End, None] = {}  # a dict, not a set: the order must not depend on hashes
        self._frozen: set[bytes] = set()
        self._blocked: set[frozenset[bytes]] = set()
        self._addresses = 0
        self._pairs: collections.Counter[tuple[bytes, bytes]] = collections.Counter()

    def address(self) -> str:
        """A fresh multiaddress to listen on."""
        self._addresses += 1
        return f"/memory/{self._addresses}"

    def transport(self, public_key: bytes) -> MemoryTransport:
        """The transport of one host: `open_host(seed, [net.address()], transports=[...])`."""
        return MemoryTransport(self, public_key)

    def kill(self, public_key: bytes) -> None:
        """Every connection of the peer ends now, on both sides."""
        for end in [end for end in self.ends if public_key in (end.local, end.remote)]:
            end.kill()

    def gone(self, public_key: bytes) -> None:
        """The peer's process is no more: its connections end, and nobody listens in its place."""
        self.kill(public_key)
        mine = [at for at, one in self.listeners.items() if one.transport.public_key == public_key]
        for at in mine:
            del self.listeners[at]

    def freeze(self, public_key: bytes) -> None:
        """The peer neither sends nor receives; nobody is told."""
        self._frozen.add(public_key)

    def thaw(self, public_key: bytes) -> None:
        """Undo `freeze`; what was under way arrives."""
        self._frozen.discard(public_key)
        self.changed()

    def block(self, one: bytes, other: bytes) -> None:
        """Nothing passes between two peers; they are not told."""
        self._blocked.add(frozenset((one, other)))

    def unblock(self, one: bytes, other: bytes) -> None:
        """Undo `block`; what was under way arrives."""
        self._blocked.discard(frozenset((one, other)))
        self.changed()

    def changed(self) -> None:
        """What was held back may arrive now."""
        for end in self.ends:
            end.wake()

    def is_cut(self, source: bytes, target: bytes) -> bool:
        """Whether nothing passes from one to the other at present."""
        if source in self._frozen or target in self._frozen:
            return True
        if self._blocked and frozenset((source, target)) in self._blocked:
            return True
        return not self.reaches(source, target)

    def chance(self, local: bytes, remote: bytes) -> random.Random:
        """The randomness of one end of a new connection.

        Each end has its own, so that what one connection draws cannot depend on the order in which
        trio runs the tasks of the others.
        """
        self._pairs[local, remote] += 1
        number = self._pairs[local, remote]
        return random.Random(f"{self.seed}/{local.hex()}/{remote.hex()}/{number}")


def named_keys(name: bytes) -> KeyPair:
    """Keys of a host known by any 32 bytes: in memory a name is believed, and nothing is signed."""
    return KeyPair(_NameKey(name), _Name(name))


class _Name(Ed25519PublicKey):  # type: ignore[misc]  # libp2p is untyped
    def __init__(self, name: bytes) -> None:
        self._name = name

    def to_bytes(self) -> bytes:
        return self._name


class _NameKey(Ed25519PrivateKey):  # type: ignore[misc]  # libp2p is untyped
    def __init__(self, name: bytes) -> None:
        self._name = name

    def get_public_key(self) -> _Name:
        return _Name(self._name)


class MemoryTransport(ITransport):  # type: ignore[misc]  # libp2p is untyped
    """Dials and listens on /memory/<n>; skips security and muxer negotiation."""

    def __init__(self, network: MemoryNetwork, public_key: bytes) -> None:
        self.network = network
        self.public_key = public_key

    async def dial(self, maddr: Multiaddr) -> FastYamux:
        """Raises OpenConnectionError; hangs when the way is cut, as real networks do."""
        network = self.network
        listener = network.listeners.get(f"/memory/{maddr.value_for_protocol('memory')}")
        if listener is None:
            await trio.sleep(REFUSED_SECONDS)
            raise OpenConnectionError(f"nobody listens on {maddr}")
        theirs = listener.transport.public_key
        if network.is_cut(self.public_key, theirs) or network.is_cut(theirs, self.public_key):
            await trio.sleep_forever()
        if identity.peer_text(theirs) != maddr.value_for_protocol("p2p"):
            raise OpenConnectionError(f"another peer answers on {maddr}")
        rtt = network.latency(self.public_key, theirs) + network.latency(theirs, self.public_key)
        await trio.sleep(HANDSHAKE_ROUND_TRIPS * rtt)
        if listener.maddr is None:
            raise OpenConnectionError(f"nobody listens on {maddr} any more")
        dialing = _End(network, self.public_key, theirs, initiator=True)
        accepting = _End(network, theirs, self.public_key, initiator=False)
        dialing.other, accepting.other = accepting, dialing
        listener.accept(_connect(accepting))
        return _connect(dialing)

    def create_listener(self, handler_function: Callable[[Any], Awaitable[None]]) -> _Listener:
        return _Listener(self, handler_function)

    def can_dial(self, maddr: Multiaddr) -> bool:
        return any(protocol.name == "memory" for protocol in maddr.protocols())

    def can_listen(self, maddr: Multiaddr) -> bool:
        return self.can_dial(maddr)

    def protocols(self) -> list[str]:
        return ["memory"]


class _Listener(IListener):  # type: ignore[misc]  # libp2p is untyped
    background_nursery: trio.Nursery | None = None  # set by Swarm.listen()

    def __init__(
        self, transport: MemoryTransport, handler: Callable[[Any], Awaitable[None]]
    ) -> None:
        self.transport = transport
        self.maddr: Multiaddr | None = None
        self._handler = handler

    async def listen(self, maddr: Multiaddr) -> None:
        if str(maddr) in self.transport.network.listeners:
            raise OpenConnectionError(f"{maddr} is taken")
        self.maddr = maddr
        self.transport.network.listeners[str(maddr)] = self

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        return () if self.maddr is None else (self.maddr,)

    async def close(self) -> None:
        if self.maddr is not None:
            self.transport.network.listeners.pop(str(self.maddr), None)
            self.maddr = None

    def accept(self, connection: FastYamux) -> None:
        assert self.background_nursery is not None, "the swarm sets the nursery before listen()"
        self.background_nursery.start_soon(self._serve, connection)

    async def _serve(self, connection: FastYamux) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._handle, connection, nursery.cancel_scope)
            await connection.event_closed.wait()
            await trio.sleep(SLOT_GRACE_SECONDS)  # as in SafeListener
            nursery.cancel_scope.cancel()

    async def _handle(self, connection: FastYamux, scope: trio.CancelScope) -> None:
        with contextlib.suppress(Exception):
            await self._handler(connection)
        await connection.close()
        scope.cancel()


class _End:
    """One end of a pipe: what a Noise connection is to the muxer."""

    other: _End

    def __init__(
        self, network: MemoryNetwork, local: bytes, remote: bytes, *, initiator: bool
    ) -> None:
        self.local, self.remote = local, remote
        self.is_initiator = initiator
        self._network = network
        self._random = network.chance(local, remote)
        self._inbox: collections.deque[tuple[float, bytes]] = collections.deque()
        self._inbox_bytes = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()  # for who writes to this end
        self._reading: trio.CancelScope | None = None  # ends when the next message arrives
        self._closed = False
        self._sending_until = 0.0  # when the wire has taken what was written
        self._last_arrival = 0.0
        network.ends[self] = None

    async def read(self, n: int | None = None) -> bytes:
        """The next message, when it has arrived; b"" at the end."""
        waited = False
        while not self._closed:
            arrival = self._arrival()
            if arrival <= trio.current_time():
                if not waited:
                    await trio.lowlevel.checkpoint()
                    waited = True
                    continue  # the way may be cut by now
                _, data = self._inbox.popleft()
                self._inbox_bytes -= len(data)
                self._room.unpark_all()
                return data
            with trio.CancelScope(deadline=arrival) as self._reading:
                await self._changed.park()
            waited = True
        await trio.lowlevel.checkpoint()
        return b""

    def _arrival(self) -> float:
        """When the next message is here; inf while there is none, or none can come."""
        if not self._inbox or self._network.is_cut(self.remote, self.local):
            return math.inf
        return self._inbox[0][0]

    async def write(self, data: bytes) -> None:
        """Put `data` on the wire. Raises ConnectionClosedError."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.other._inbox_bytes > PIPE_BYTES_MAX and not self._closed:
            await self.other._room.park()
        if self._closed or self.other._closed:
            raise ConnectionClosedError("the pipe is closed", transport="memory")
        self._send(data)

    async def close(self) -> None:
        """The other end reads what is under way, then the end."""
        if not self._closed:
            self._send(b"")
            self._drop()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def kill(self) -> None:
        """Both ends are closed, and what is under way is lost."""
        for end in (self, self.other):
            end._drop()

    def wake(self) -> None:
        self._changed.unpark_all()
        self._room.unpark_all()

    def _sent(self, arrival: float, data: bytes) -> None:
        """Something is on its way here. Who reads is not woken before it arrives."""
        self._inbox.append((arrival, data))
        self._inbox_bytes += len(data)
        if self._reading is not None and len(self._inbox) == 1:
            self._reading.deadline = self._arrival()

    def get_remote_address(self) -> None:
        return None

    def get_transport_addresses(self) -> list[Multiaddr]:
        return []

    def get_connection_type(self) -> ConnectionType:
        return ConnectionType.DIRECT

    def _send(self, data: bytes) -> None:
        network, now = self._network, trio.current_time()
        network.bytes_sent += len(data)
        network.messages_sent += 1
        rate = network.bandwidth(self.local, self.remote)
        self._sending_until = max(self._sending_until, now) + len(data) / rate
        arrival = self._sending_until + network.latency(self.local, self.remote)
        arrival += self._retransmit_seconds()
        # TCP delivers in order: a message held up holds up what follows.
        self._last_arrival = max(self._last_arrival, arrival)
        self.other._sent(self._last_arrival, data)

    def _retransmit_seconds(self) -> float:
        probability = self._network.loss(self.local, self.remote)
        wait, pause = 0.0, RETRANSMIT_SECONDS
        for _ in range(RETRANSMITS_MAX):
            if probability <= 0.0 or self._random.random() >= probability:
                break
            wait, pause = wait + pause, pause * 2
        return wait

    def _drop(self) -> None:
        self._closed = True
        self._network.ends.pop(self, None)
        self.wake()
        self.other.wake()


def _connect(end: _End) -> FastYamux:
    connection = FastYamux(end, identity.peer_id(end.remote))
    connection.negotiated_security_protocol = SECURITY
    connection.negotiated_muxer_protocol = SECURITY
    return connection
