"""The in-memory network: exact virtual timings, faults, and the same run twice."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from nacl.signing import SigningKey

from assay_network import fastyamux
from assay_network.frames import Frames
from assay_network.host import Host, open_host
from assay_network.memory import HANDSHAKE_ROUND_TRIPS, MemoryNetwork
from assay_protocol.errors import AssayError, PeerGone
from assay_simnet.determinism import run_virtual

SEEDS = [bytes([number]) * 32 for number in range(1, 6)]
KEYS = [bytes(SigningKey(seed).verify_key) for seed in SEEDS]
LATENCY = 0.04


@asynccontextmanager
async def hosts(network: MemoryNetwork, count: int) -> AsyncIterator[list[Host]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_host(seed, [network.address()], transports=[network.transport(key)])
            )
            for seed, key in zip(SEEDS[:count], KEYS[:count], strict=True)
        ]


async def echo(peer: bytes, frames: Frames) -> None:
    await frames.send(await frames.receive(10.0))


async def count_up(peer: bytes, frames: Frames) -> None:
    for number in range(int.from_bytes(await frames.receive(10.0), "big")):
        await frames.send(number.to_bytes(4, "big"))
        await trio.sleep(0.05)


async def timings() -> list[tuple[str, float]]:
    """A scenario with latency, bandwidth and loss; what happened when."""
    network = MemoryNetwork(
        latency=lambda a, b: LATENCY,
        bandwidth=lambda a, b: 1e6,
        loss=lambda a, b: 0.2,
        seed=7,
    )
    seen: list[tuple[str, float]] = []
    async with hosts(network, 3) as (a, b, c):
        for host in (b, c):
            host.serve("/echo", echo)
            host.serve("/count", count_up)

        async def client(name: str, server: Host) -> None:
            await a.dial(server.public_key, server.addresses)
            seen.append((f"{name} dialed", trio.current_time()))
            await a.call(server.public_key, "/echo", bytes(50_000))
            seen.append((f"{name} called", trio.current_time()))
            async with a.open(server.public_key, "/count", (20).to_bytes(4, "big")) as frames:
                with contextlib.suppress(PeerGone):
                    while True:
                        await frames.receive()
            seen.append((f"{name} counted", trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client, "b", b)
            await trio.sleep(0.001)
            nursery.start_soon(client, "c", c)
    return sorted(seen)


def test_two_runs_have_the_same_timings() -> None:
    first = run_virtual(timings, seed=1)
    assert first == run_virtual(timings, seed=1)
    assert len(first) == 6


async def test_a_call_takes_one_round_trip(autojump_clock: trio.abc.Clock) -> None:
    network = MemoryNetwork(latency=lambda a, b: LATENCY)
    async with hosts(network, 2) as (a, b):
        b.serve("/echo", echo)
        start = trio.current_time()
        await a.dial(b.public_key, b.addresses)
        assert trio.current_time() - start == pytest.approx(2 * LATENCY * HANDSHAKE_ROUND_TRIPS)
        start = trio.current_time()
        assert await a.call(b.public_key, "/echo", b"x") == b"x"
        assert trio.current_time() - start == pytest.approx(2 * LATENCY)
        assert network.messages_sent > 0


async def test_bandwidth_holds_bytes_back(autojump_clock: trio.abc.Clock) -> None:
    network = MemoryNetwork(bandwidth=lambda a, b: 1e5)
    async with hosts(network, 2) as (a, b):
        b.serve("/echo", echo)
        await a.dial(b.public_key, b.addresses)
        start = trio.current_time()
        await a.call(b.public_key, "/echo", bytes(200_000))
        assert trio.current_time() - start == pytest.approx(4.0, rel=0.01)


async def test_loss_only_delays(autojump_clock: trio.abc.Clock) -> None:
    network = MemoryNetwork(loss=lambda a, b: 0.2, seed=3)
    async with hosts(network, 2) as (a, b):
        b.serve("/echo", echo)
        await a.dial(b.public_key, b.addresses)
        start = trio.current_time()
        for number in range(20):
            assert await a.call(b.public_key, "/echo", bytes([number])) == bytes([number])
        assert trio.current_time() - start > 1.0


async def test_a_killed_peer_is_gone_at_once(autojump_clock: trio.abc.Clock) -> None:
    network = MemoryNetwork(latency=lambda a, b: LATENCY)
    async with hosts(network, 2) as (a, b):
        b.serve("/count", count_up)
        request = (1000).to_bytes(4, "big")
        async with a.open(b.public_key, "/count", request, addresses=b.addresses) as frames:
            await frames.receive()
            network.kill(b.public_key)
            start = trio.current_time()
            with pytest.raises(PeerGone):
                while True:
                    await frames.receive()
            assert trio.current_time() - start < 0.01
        assert not a.connected(b.public_key)


async def test_a_frozen_peer_is_noticed_by_pings(autojump_clock: trio.abc.Clock) -> None:
    network = MemoryNetwork()
    async with hosts(network, 2) as (a, b):
        b.serve("/count", count_up)
        request = (10_000).to_bytes(4, "big")
        async with a.open(b.public_key, "/count", request, addresses=b.addresses) as frames:
            await frames.receive()
            network.freeze(b.public_key)
            start = trio.current_time()
            with pytest.raises(PeerGone):
                while True:
                    await frames.receive()
            waited = trio.current_time() - start
            assert waited > fastyamux.DEAD_SECONDS - 1
            assert waited < fastyamux.DEAD_SECONDS + 2 * fastyamux.PING_SECONDS


async def test_a_partition_hangs_and_heals(autojump_clock: trio.abc.Clock) -> None:
    network = MemoryNetwork(latency=lambda a, b: LATENCY)
    async with hosts(network, 3) as (a, b, c):
        for host in (b, c):
            host.serve("/echo", echo)
        await a.dial(b.public_key, b.addresses)
        network.block(a.public_key, b.public_key)
        with pytest.raises(AssayError) as caught:
            await a.call(b.public_key, "/echo", b"x", timeout=2.0)
        assert caught.value.code == "timeout"
        assert await a.call(c.public_key, "/echo", b"x", addresses=c.addresses) == b"x"
        network.unblock(a.public_key, b.public_key)
        assert await a.call(b.public_key, "/echo", b"y", timeout=1.0) == b"y"
        network.freeze(c.public_key)
        await a.disconnect(c.public_key)
        with pytest.raises(PeerGone):
            await a.dial(c.public_key, c.addresses, timeout=1.0)
        network.thaw(c.public_key)
        await a.dial(c.public_key, c.addresses, timeout=1.0)


async def test_dialing_nobody_or_somebody_else(autojump_clock: trio.abc.Clock) -> None:
    network = MemoryNetwork()
    async with hosts(network, 2) as (a, b):
        theirs = b.addresses[0].split("/p2p/")[0]
        for addresses in ([], ["/memory/99"], ["nonsense"], [theirs]):
            with pytest.raises(PeerGone):
                await a.dial(KEYS[3], addresses, timeout=1.0)
        with pytest.raises(AssayError) as caught:
            async with open_host(SEEDS[3], [theirs], transports=[network.transport(KEYS[3])]):
                pytest.fail("two hosts on one address")
        assert caught.value.code == "port_in_use"
