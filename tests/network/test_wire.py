"""A socket's sends: whole, in one piece each, and ended by whoever does not read."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from assay_network.wire import UNREAD_SECONDS, Wire
from network.http_doors import eventually

LARGE = 3_000_000  # more than two sockets' buffers hold


@pytest.fixture
def ends() -> Iterator[tuple[Wire, Wire]]:
    one, other = socket.socketpair()
    with one, other:
        yield Wire(one), Wire(other)


async def all_of(wire: Wire, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := await wire.read()):
        data += more
    return data


async def test_what_several_tasks_send_stays_in_one_piece_each(ends: tuple[Wire, Wire]) -> None:
    here, there = ends
    parts = [bytes([65 + number]) * (LARGE // (number + 1)) for number in range(4)]
    async with trio.open_nursery() as nursery:
        for part in parts:
            nursery.start_soon(here.send, part)
        await wait_all_tasks_blocked()
        data = await all_of(there, sum(map(len, parts)))
    assert len(data) == sum(map(len, parts))
    assert sorted(re.findall(rb"A+|B+|C+|D+", data)) == parts


async def test_a_stalled_send_does_not_look_like_an_end(ends: tuple[Wire, Wire]) -> None:
    here, there = ends
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send, bytes(LARGE))
        await wait_all_tasks_blocked()
        await there.send(b"still here")
        assert await here.read() == b"still here"
        assert len(await all_of(there, LARGE)) == LARGE
    assert not here.broke


async def test_who_reads_slowly_but_reads_is_not_cut(
    ends: tuple[Wire, Wire], mock_clock: MockClock
) -> None:
    here, there = ends
    got = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send, bytes(LARGE))
        while got < LARGE and not here.broke:
            await wait_all_tasks_blocked()
            mock_clock.jump(UNREAD_SECONDS * 0.9)
            for _ in range(8):  # a socket has room again when a part of its buffer is free
                if got < LARGE:
                    got += len(await there.read())
    assert not here.broke


@pytest.mark.parametrize("how", ["time", "cancelled", "left", "cut"])
async def test_a_send_that_does_not_end_breaks_the_wire(
    ends: tuple[Wire, Wire], mock_clock: MockClock, how: str
) -> None:
    here, there = ends
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send, bytes(LARGE))
        nursery.start_soon(here.send, b"behind it")
        await wait_all_tasks_blocked()
        if how == "time":
            mock_clock.jump(UNREAD_SECONDS + 1)
        elif how == "cancelled":
            nursery.cancel_scope.cancel()
        elif how == "left":
            there.cut()
        else:
            here.cut()
    assert here.broke
    assert await here.read() == b""
    await here.send(b"to nobody")
    here.cut()
    here.cut()


async def test_a_reader_learns_of_a_cut(ends: tuple[Wire, Wire]) -> None:
    here, there = ends
    told: list[bytes] = []

    async def read() -> None:
        told.append(await here.read())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        here.cut()
        await eventually(lambda: told == [b""])
    assert await there.read() == b""
