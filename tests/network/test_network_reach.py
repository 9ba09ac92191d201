"""Being dialed from outside: what is found, whose doors are knocked at, and how often."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from assay_network import reach
from assay_network.host import Host, open_host
from assay_network.reach import ReachServer, ask_reach, ip_of
from assay_protocol.errors import AssayError
from assay_protocol.links import REACH

SERVER, DIALER, ASKER, OTHER = (bytes([number]) * 32 for number in range(1, 5))
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NOW = 1_700_000_000_000_000


@asynccontextmanager
async def serving() -> AsyncIterator[Host]:
    async with open_host(SERVER, [LOOPBACK]) as server, open_host(DIALER) as dialer:
        server.serve(REACH, ReachServer(server, dialer, lambda: NOW).handle)
        yield server


async def test_an_open_port_is_told_from_a_closed_one_and_from_somebody_elses() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening: a port that nobody answers at
        closed = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        async with (
            serving() as server,
            open_host(ASKER, [LOOPBACK]) as asker,
            open_host(OTHER, [LOOPBACK]) as other,
        ):
            mine, theirs = asker.addresses[0], other.addresses[0]
            anywhere = mine.replace("127.0.0.1", "0.0.0.0")
            stranger = "/ip4/192.0.2.1/tcp/4001"
            named = "/dns4/localhost/tcp/4001"
            own = [mine, closed, theirs, anywhere, stranger, named]
            found = await ask_reach(asker, server.public_key, server.addresses, own)
            assert not server.connected(DIALER), "the dialer dials nobody else"
    assert found.results == ("", "peer_gone", "peer_gone", "", "forbidden", "forbidden")
    assert (found.seen, found.now_at) == ("127.0.0.1", NOW)


async def test_one_address_may_not_ask_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "PAUSE_SECONDS", 60.0)  # longer than any machine takes to ask again
    async with serving() as server, open_host(ASKER) as asker, open_host(OTHER) as other:
        await ask_reach(asker, server.public_key, server.addresses, [])
        with pytest.raises(AssayError) as caught:
            await ask_reach(other, server.public_key, server.addresses, [])
    assert caught.value.code == "busy"
    assert caught.value.retry_after_ms


async def test_after_the_pause_the_address_may_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "PAUSE_SECONDS", 0.05)
    async with serving() as server, open_host(ASKER) as asker:
        for _ in range(2):
            await ask_reach(asker, server.public_key, server.addresses, [])
            await trio.sleep(0.06)


async def test_who_does_not_offer_it_says_so() -> None:
    async with open_host(SERVER, [LOOPBACK]) as server, open_host(ASKER) as asker:
        with pytest.raises(AssayError) as caught:
            await ask_reach(asker, server.public_key, server.addresses, [])
    assert caught.value.code == "unsupported_protocol"


async def test_an_ip6_caller_is_seen_too() -> None:
    async with open_host(SERVER, ["/ip6/::1/tcp/0"]) as server, open_host(DIALER) as dialer:
        server.serve(REACH, ReachServer(server, dialer, lambda: NOW).handle)
        async with open_host(ASKER, ["/ip6/::1/tcp/0"]) as asker:
            found = await ask_reach(asker, server.public_key, server.addresses, asker.addresses)
    assert (found.seen, found.results) == ("::1", ("",))


@pytest.mark.parametrize(
    ("address", "ip"),
    [
        ("/ip4/127.0.0.1/tcp/1", "127.0.0.1"),
        ("/ip6/0:0::1/tcp/1", "::1"),
        ("/dns4/localhost/tcp/1", ""),
        ("/ip4/999.0.0.1/tcp/1", ""),
        ("", ""),
    ],
)
def test_the_ip_of_an_address(address: str, ip: str) -> None:
    assert ip_of(address) == ip
