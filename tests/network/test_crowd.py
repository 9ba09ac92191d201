"""Connections that say nothing keep nobody out, whoever they prove to be."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import trio
from hypothesis import given
from hypothesis import strategies as st

from assay_network.crowd import SPARE_SHARE, to_cut
from assay_network.frames import Frames
from assay_network.host import open_host
from assay_protocol.errors import PeerGone
from sdk.client_world import node_key

PLACES = 16
HELLO = "/hello/1"


@dataclass(frozen=True)
class Guest:
    host: str
    idle_at: float | None


GUESTS = st.lists(
    st.builds(Guest, st.sampled_from("abc"), st.none() | st.integers(0, 9).map(float)), max_size=40
)


@given(guests=GUESTS, places=st.integers(1, 40))
def test_only_who_is_idle_is_cut_and_only_as_many_as_must_be(
    guests: list[Guest], places: int
) -> None:
    cut = to_cut(guests, places)
    over = len(guests) - (places - max(1, places // SPARE_SHARE))
    idle = [guest for guest in guests if guest.idle_at is not None]
    assert len(cut) == max(0, min(over, len(idle)))
    assert all(guest.idle_at is not None for guest in cut)


def test_the_most_crowded_address_goes_first_and_there_who_was_idle_longest() -> None:
    crowd = [Guest("crowd", float(i)) for i in range(9)]
    alone, busy = Guest("alone", 0.0), Guest("crowd", None)
    assert to_cut([alone, busy, *crowd], 10) == crowd[:2]
    assert to_cut([alone, busy, *crowd], 12) == []


async def test_silent_peers_take_no_places_from_those_who_speak() -> None:
    server, speaker, late = node_key(0), node_key(1), node_key(2)

    async def hello(peer: bytes, frames: Frames) -> None:
        with contextlib.suppress(Exception):
            while True:
                await frames.send(await frames.receive(60))

    async with contextlib.AsyncExitStack() as stack:
        loopback = ["/ip4/127.0.0.1/tcp/0"]
        host = await stack.enter_async_context(
            open_host(server.seed, loopback, connections_max=PLACES)
        )
        host.serve(HELLO, hello)
        first = await stack.enter_async_context(open_host(speaker.seed))
        kept = await stack.enter_async_context(
            first.open(server.public_key, HELLO, b"kept", addresses=host.addresses)
        )
        assert await kept.receive(5) == b"kept"
        for i in range(PLACES + 4):
            silent = await stack.enter_async_context(open_host(node_key(100 + i).seed))
            with contextlib.suppress(PeerGone):  # once they are too many for a moment
                await silent.dial(server.public_key, host.addresses, 3)
        newcomer = await stack.enter_async_context(open_host(late.seed))
        assert await _told(newcomer, server.public_key, host.addresses) == b"hello"
        await kept.send(b"still here")
        assert await kept.receive(5) == b"still here", "who speaks was not cut"


async def _told(newcomer: object, server: bytes, addresses: tuple[str, ...]) -> bytes:
    """As clients do: again, after a moment. A place is free two seconds after it was cut."""
    for _ in range(8):
        with contextlib.suppress(PeerGone):
            async with newcomer.open(server, HELLO, b"hello", addresses=addresses) as frames:  # type: ignore[attr-defined]
                return bytes(await frames.receive(5))
        await trio.sleep(0.5)
    raise AssertionError("it was kept out")
