"""Peers that ask and do not read the answers: what waits for them ends in bounded time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from nacl.signing import SigningKey

from assay_network import host as host_module
from assay_network import kept_stream
from assay_network.host import open_host
from assay_network.kept_stream import NOTICE, PING, PONG, REQUEST, Session, session_frame
from assay_network.memory import MemoryNetwork
from assay_network.session import serve_sessions

SEEDS = [b"\x01" * 32, b"\x02" * 32]
KEYS = [bytes(SigningKey(seed).verify_key) for seed in SEEDS]


async def test_a_session_whose_peer_does_not_read_ends(autojump_clock: trio.abc.Clock) -> None:
    network = MemoryNetwork()
    opened: list[Session] = []

    def echo(session: Session, request_id: int, body: bytes) -> None:
        if request_id:
            session.reply(request_id, body)

    def on_open(session: Session) -> Any:
        opened.append(session)
        return echo

    async with (
        open_host(SEEDS[0], [network.address()], transports=[network.transport(KEYS[0])]) as server,
        open_host(SEEDS[1], transports=[network.transport(KEYS[1])]) as client,
    ):
        serve_sessions(server, "/session", on_open, lambda session: None)
        hello = session_frame(PING, 0, b"")
        async with client.open(KEYS[0], "/session", hello, addresses=server.addresses) as frames:
            assert await frames.receive(5) == session_frame(PONG, 0, b"")
            await frames.send(session_frame(REQUEST, 1, bytes(500_000)))  # more than one window
            with trio.move_on_after(2 * kept_stream.SEND_SECONDS_MAX):
                while not opened[0].closed.is_set():
                    await trio.sleep(5)
                    if not opened[0].closed.is_set():  # lively, but never reading
                        await frames.send(session_frame(NOTICE, 0, b""))
            assert opened[0].closed.is_set()


async def test_a_ping_whose_echo_is_not_read_ends(autojump_clock: trio.abc.Clock) -> None:
    class NeverReads:
        async def write(self, data: bytes) -> None:
            await trio.sleep_forever()

        async def read(self, n: int | None = None) -> bytes:
            return bytes(32)

    stalled: Any = NeverReads()
    with trio.fail_after(2 * host_module.PING_IDLE_SECONDS_MAX):
        with pytest.raises(trio.TooSlowError):
            await host_module._answer_pings(stalled, bytes(32))
    assert trio.current_time() < 2 * host_module.PING_IDLE_SECONDS_MAX
