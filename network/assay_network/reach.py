"""Can I be reached, and is my clock right? Asked by whoever will listen, answered from outside.

A machine behind a firewall or NAT cannot tell this itself. So it asks a peer it can dial (REACH),
and that one dials back, from a key of its own for nothing else: a live connection to the asker is
not mistaken for a reachable address. The Noise handshake proves that the asker answered.

What an asker could do with it is bounded: only the very address its own connection comes from is
dialed, so nobody is made to knock at a stranger's door; one check at a time for each such address,
with a pause after it; few at a time in all. Spec: protocol/spec/03-control.md, CheckReach.
"""

from __future__ import annotations

import collections
import ipaddress
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import trio

from assay_protocol.codec import decode, decode_as, encode
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.limits import ADDRESSES_PER_NODE_MAX
from assay_protocol.links import REACH
from assay_protocol.messages import CheckReach, Error, Reach
from assay_protocol.streams import remote_error

if TYPE_CHECKING:
    from assay_network.frames import Frames
    from assay_network.host import Host

CHECKS_MAX: Final = 8  # at once
PAUSE_SECONDS: Final = 2.0  # between two checks of one address
CALLERS_MAX: Final = 4_096  # whose last check is remembered; the oldest is forgotten first
REQUEST_SECONDS_MAX: Final = 10.0
DIAL_SECONDS_MAX: Final = 4.0  # for each address
ASK_SECONDS_MAX: Final = REQUEST_SECONDS_MAX + ADDRESSES_PER_NODE_MAX * DIAL_SECONDS_MAX


class ReachServer:
    """Give `handle` to Host.serve(REACH, ...). `clock` gives microseconds since the epoch."""

    def __init__(self, host: Host, dialer: Host, clock: Callable[[], int]) -> None:
        """`dialer` is a host of another key that nothing else uses."""
        assert dialer.public_key != host.public_key, "its connections would be taken for the host's"
        self._host, self._dialer, self._clock = host, dialer, clock
        self._running = 0
        self._next_at: collections.OrderedDict[str, float] = collections.OrderedDict()

    async def handle(self, peer: bytes, frames: Frames) -> None:
        """One question, one answer."""
        request = decode_as(CheckReach, await frames.receive(REQUEST_SECONDS_MAX))
        seen = self._host.remote_ip(peer)
        wait = self._next_at.get(seen, 0.0) - trio.current_time()
        if self._running >= CHECKS_MAX or wait > 0:
            wait_ms = round(1_000 * max(wait, PAUSE_SECONDS))
            await frames.send(encode(Error(code="busy", detail="", retry_after_ms=wait_ms)))
            return
        self._note(seen, trio.current_time() + ASK_SECONDS_MAX)
        self._running += 1
        try:
            results = [await self._dial(peer, address, seen) for address in request.addresses]
        finally:
            self._running -= 1
            self._note(seen, trio.current_time() + PAUSE_SECONDS)
        answer = Reach(now_at=self._clock(), seen=seen, results=tuple(results))
        await frames.send(encode(answer))

    async def _dial(self, peer: bytes, address: str, seen: str) -> str:
        """Empty if `peer` answers at `address`, else a code."""
        if not _is_own(address, seen):
            return "forbidden"
        try:
            await self._dialer.dial(peer, [address], DIAL_SECONDS_MAX)
        except AssayError as error:
            return error.code
        finally:
            await self._dialer.disconnect(peer)
        return ""

    def _note(self, seen: str, next_at: float) -> None:
        self._next_at.pop(seen, None)
        self._next_at[seen] = next_at
        if len(self._next_at) > CALLERS_MAX:
            self._next_at.popitem(last=False)


async def ask_reach(
    host: Host, public_key: bytes, peer_addresses: Iterable[str], own: Iterable[str]
) -> Reach:
    """What the peer finds when it dials the addresses `own`, at most ADDRESSES_PER_NODE_MAX.

    Raises PeerGone, AssayError("timeout"), AssayError("unsupported_protocol") if the peer does not
    offer it, RemoteError("busy"), ProtocolError.
    """
    asked = tuple(own)[:ADDRESSES_PER_NODE_MAX]
    request = encode(CheckReach(addresses=asked))
    answer = decode(await host.call(public_key, REACH, request, ASK_SECONDS_MAX, peer_addresses))
    if isinstance(answer, Error):
        raise remote_error(answer)
    if not isinstance(answer, Reach) or len(answer.results) != len(asked):
        raise ProtocolError("unexpected_message", "not an answer to what was asked")
    return answer


def ip_of(address: str) -> str:
    """The IP address that a multiaddress begins with; "" if it names none."""
    parts = address.split("/")
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
        return ""
    try:
        return str(ipaddress.ip_address(parts[2]))
    except ValueError:
        return ""


def _is_own(address: str, seen: str) -> bool:
    """Whether `address` is the caller's: as it was seen, or, on this machine, not specified."""
    ip = ip_of(address)
    if not ip or not seen:
        return False
    here = ipaddress.ip_address(seen).is_loopback
    return ip == seen or (here and ipaddress.ip_address(ip).is_unspecified)
