"""What stops a stock py-libp2p 0.8.1 host and must not stop ours, one test per defect.

Where it is quick, the stock host is shown to fail: when a later version no longer does, the test
says so and our own code for it can be reconsidered.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.keys import KeyPair
from libp2p.network.config import ConnectionConfig
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from assay_network import identity, safetcp
from assay_network.frames import Frames
from assay_network.host import Host, open_host, silence_libp2p
from assay_network.memory import MemoryNetwork
from assay_network.safetcp import SafeTCP
from assay_network.swarm import build_swarm
from assay_protocol.errors import AssayError, PeerGone
from assay_protocol.limits import STREAMS_PER_PEER_MAX

SEEDS = [bytes([number]) * 32 for number in range(1, 7)]
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NOT_UTF8 = b"\x13/multistream/1.0.0\n\x05\xff\xfe\xfd\xfc\n"


async def echo(peer: bytes, frames: Frames) -> None:
    await frames.send(await frames.receive(10.0))


async def whoami(peer: bytes, frames: Frames) -> None:
    await frames.receive(10.0)
    await frames.send(peer)


@asynccontextmanager
async def stock_host(**options: Any) -> AsyncIterator[Any]:
    silence_libp2p()
    host = new_host(key_pair=identity.keypair(SEEDS[0]), **options)
    async with host.run([Multiaddr(LOOPBACK)]):
        yield host


@asynccontextmanager
async def attacker(seed: bytes = SEEDS[5], upgrader: Any = None) -> AsyncIterator[Any]:
    """A swarm with its bare streams, for bytes our hosts would never send."""
    swarm = build_swarm(
        identity.keypair(seed), muxer="fast", transports=[SafeTCP(100)], connections_max=100
    )
    if upgrader is not None:
        swarm.upgrader = upgrader
    async with background_trio_service(swarm):
        yield swarm


async def works(host: Host) -> None:
    """A fresh peer is served."""
    async with open_host(SEEDS[4]) as client:
        assert await client.call(host.public_key, "/echo", b"x", 5.0, host.addresses) == b"x"


async def dies(scenario: Callable[[Any], Awaitable[None]], **options: Any) -> bool:
    """Whether the stock host is stopped by the scenario."""
    try:
        with trio.fail_after(5):
            async with stock_host(**options) as host:
                await scenario(host)
    except BaseException as error:
        return not isinstance(error, trio.TooSlowError)
    return False


async def test_1_a_public_key_alone_is_no_identity() -> None:
    victim = identity.keypair(SEEDS[1])

    class NoPrivateKey:
        def get_public_key(self) -> Any:
            return victim.public_key

    def plaintext() -> Any:
        claim = InsecureTransport(KeyPair(NoPrivateKey(), victim.public_key))
        upgrader = TransportUpgrader({PLAINTEXT_PROTOCOL_ID: claim}, {})
        upgrader.muxer_multistream = build_swarm(
            identity.keypair(SEEDS[5]), muxer="fast", transports=[SafeTCP(9)], connections_max=9
        ).upgrader.muxer_multistream
        return upgrader

    accepted: list[str] = []

    async def spoof(address: Multiaddr, peer: Any, connections: Callable[[], list[Any]]) -> None:
        async with attacker(upgrader=plaintext()) as swarm:
            with contextlib.suppress(Exception), trio.move_on_after(20):
                await swarm.dial_addr(address, peer)
                while not connections():  # the other end is a moment behind
                    await trio.sleep(0.01)
            accepted.extend(str(c.muxed_conn.peer_id) for c in connections())

    async with stock_host() as stock:
        network = stock.get_network()
        address = stock.get_transport_addrs()[0]
        await spoof(address, stock.get_id(), network.get_connections)
    victim_name = identity.peer_text(victim.public_key.to_bytes())
    assert accepted == [victim_name], "the stock host no longer takes plaintext"
    accepted.clear()
    async with open_host(SEEDS[0], [LOOPBACK]) as host:
        peer = identity.peer_id(host.public_key)
        await spoof(Multiaddr(host.addresses[0]), peer, host._swarm.get_connections)
        assert accepted == []


async def test_2_bytes_and_faults_stay_in_their_stream() -> None:
    async def attack(address: Any, peer: Any) -> None:
        async with attacker() as swarm:
            connection = await swarm.dial_addr(Multiaddr(str(address)), peer)
            for data in (NOT_UTF8, b"\xff" * 30, b"\x00", b"\x13/multistream/1.0.0\n\x01\n"):
                stream = await connection.muxed_conn.open_stream()
                await stream.write(data)
                await trio.sleep(0.05)
                await stream.reset()
            await trio.sleep(0.1)

    async def on_stock(host: Any) -> None:
        await attack(host.get_transport_addrs()[0], host.get_id())

    assert await dies(on_stock), "the stock host now survives a non-UTF-8 line"

    async def fault(peer: bytes, frames: Frames) -> None:
        raise RuntimeError("our own")

    async with open_host(SEEDS[0], [LOOPBACK]) as host:
        host.serve("/echo", echo)
        host.serve("/fault", fault)
        await attack(host.addresses[0], identity.peer_id(host.public_key))
        async with open_host(SEEDS[1]) as client:
            with pytest.raises(PeerGone):
                await client.call(host.public_key, "/fault", b"", 5.0, host.addresses)
            assert client.connected(host.public_key)
        await works(host)


async def test_2_garbage_on_the_bare_socket() -> None:
    noise = b"\x13/multistream/1.0.0\n\x07/noise\n"
    chaos = random.Random(1)
    async with open_host(SEEDS[0], [LOOPBACK]) as host:
        host.serve("/echo", echo)
        port = int(host.addresses[0].split("/")[4])
        for data in (
            chaos.randbytes(5000),
            b"GET / HTTP/1.1\r\n\r\n",
            noise + chaos.randbytes(300),
            noise + b"\0\0",
            b"\xff" * 20,
            NOT_UTF8,
        ):
            socket = await trio.open_tcp_stream("127.0.0.1", port)
            await socket.send_all(data)
            await trio.sleep(0.02)
            await socket.aclose()
        await works(host)


@pytest.mark.parametrize("muxer", ["fast", "stock"])
async def test_3_cancellation_storm(muxer: Any) -> None:
    """300 calls, each cancelled at a random moment: no connection lost, no stream left."""
    chance = random.Random(42)
    async with (
        open_host(SEEDS[0], [LOOPBACK], muxer=muxer) as server,
        open_host(SEEDS[1], muxer=muxer) as client,
    ):
        server.serve("/echo", echo)
        await client.dial(server.public_key, server.addresses)
        connection = client._connection(server.public_key)
        outcomes: list[str] = []

        async def call() -> None:
            with trio.move_on_after(chance.uniform(0, 0.015)) as scope:
                await client.call(server.public_key, "/echo", bytes(200))
            outcomes.append("cancelled" if scope.cancelled_caught else "done")

        for _ in range(15):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(call)
        assert len(outcomes) == 300
        assert "cancelled" in outcomes
        assert client._connection(server.public_key) is connection
        await works(server)
        if muxer == "fast":
            await trio.sleep(0.3)
            assert not connection.muxed_conn.streams
            assert not server._inbound
            assert server._connection(client.public_key).muxed_conn.streams == {}


async def test_4_inbound_slots_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetcp, "SLOT_GRACE_SECONDS", 0.05)

    async def connect_in_turn(address: str, key: bytes, times: int) -> int:
        for count in range(times):
            try:
                async with open_host(SEEDS[2]) as client:
                    await client.dial(key, [address], timeout=2.0)
            except PeerGone:
                return count
            await trio.sleep(0.2)
        return times

    config = ConnectionConfig(
        min_connections=0, low_watermark=0, high_watermark=3, max_connections=3
    )
    async with stock_host(connection_config=config) as stock:
        address = str(stock.get_transport_addrs()[0])
        key = identity.public_key(stock.get_id())
        assert await connect_in_turn(address, key, 5) == 3, "the stock host frees its slots now"
    async with open_host(SEEDS[0], [LOOPBACK], connections_max=3) as host:
        assert await connect_in_turn(host.addresses[0], host.public_key, 8) == 8


async def test_5_streams_nobody_closed_are_refused_not_hung() -> None:
    async with open_host(SEEDS[0], [LOOPBACK]) as host, open_host(SEEDS[1]) as client:
        host.serve("/echo", echo)
        await client.dial(host.public_key, host.addresses)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(STREAMS_PER_PEER_MAX):
                await stack.enter_async_context(client.open(host.public_key, "/echo", b"x"))
            with pytest.raises(PeerGone):
                with trio.fail_after(20):
                    await client.call(host.public_key, "/echo", b"y")
        assert await client.call(host.public_key, "/echo", b"y", 5.0) == b"y"


async def test_6_a_slow_reader_is_waited_for(autojump_clock: trio.abc.Clock) -> None:
    network = MemoryNetwork(latency=lambda a, b: 0.01)
    sent: list[float] = []

    async def pour(peer: bytes, frames: Frames) -> None:
        await frames.receive(1.0)
        for _ in range(4):
            await frames.send(bytes(1_000_000))
        sent.append(trio.current_time())

    hosts = [
        open_host(
            seed,
            [network.address()],
            transports=[network.transport(identity.keypair(seed).public_key.to_bytes())],
        )
        for seed in SEEDS[:2]
    ]
    async with hosts[0] as server, hosts[1] as client:
        server.serve("/pour", pour)
        start = trio.current_time()
        async with client.open(
            server.public_key, "/pour", b"", addresses=server.addresses
        ) as frames:
            await trio.sleep(120)  # the stock muxer ends the stream after 5 s without window
            for _ in range(4):
                assert len(await frames.receive(10.0)) == 1_000_000
        assert sent[0] - start > 120


async def test_7_a_good_address_wins_whatever_the_others_do() -> None:
    async with open_host(SEEDS[0], [LOOPBACK]) as host, open_host(SEEDS[1]) as client:
        host.serve("/echo", echo)
        mute = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = mute[0].socket.getsockname()[1]
        bad = ["nonsense", "/ip4/127.0.0.1/tcp/9", f"/ip4/127.0.0.1/tcp/{port}"]
        with pytest.raises(PeerGone):
            await client.dial(host.public_key, bad, timeout=0.5)
        start = trio.current_time()
        # The failure before did not blacklist the peer, and the mute address costs 250 ms.
        await client.dial(host.public_key, [*bad, host.addresses[0]])
        assert trio.current_time() - start < 2.0
        assert await client.call(host.public_key, "/echo", b"x", 5.0) == b"x"
        await mute[0].aclose()


async def test_7_another_identity_at_the_address_is_nobody() -> None:
    async with open_host(SEEDS[0], [LOOPBACK]) as host, open_host(SEEDS[1]) as client:
        address = host.addresses[0].split("/p2p/")[0]
        wrong = identity.keypair(SEEDS[3]).public_key.to_bytes()
        with pytest.raises(PeerGone):
            await client.dial(wrong, [address], timeout=2.0)
        assert not client.connected(wrong)


async def test_8_a_taken_or_foreign_address_is_an_error() -> None:
    async with open_host(SEEDS[0], [LOOPBACK]) as host:
        taken = host.addresses[0].split("/p2p/")[0]
        for address in (taken, "/ip4/203.0.113.7/tcp/4001"):
            with pytest.raises(AssayError) as caught:
                async with open_host(SEEDS[1], [address]):
                    pytest.fail("listening there cannot work")
            assert caught.value.code == "port_in_use"
        with pytest.raises(AssayError) as caught:
            async with open_host(SEEDS[1], ["not an address"]):
                pytest.fail("that is no address")
        assert caught.value.code == "config_invalid"
    async with stock_host() as stock:
        async with new_host(key_pair=identity.keypair(SEEDS[1])).run(
            [stock.get_transport_addrs()[0]]
        ):
            pass  # the stock host shares the port, silently
