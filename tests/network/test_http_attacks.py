"""Requests that are meant to be read in two ways, to be endless, or to take all of the time.

What h11 takes and what it refuses is held here too, so that another version of it is noticed.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from assay_network.http_connection import HEAD_BYTES_MAX, PIECES_AT_A_TIME
from assay_network.http_server import IDLE_SECONDS
from network.http_doors import GET, Client, Receive, Send, begin, piece, say, served, whole_body

POST = b"POST /a HTTP/1.1\r\nhost: x\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
LENGTH = b"content-length: %d\r\n" % len(SMUGGLED)


class Seen:
    """Answers with the body; keeps what it was asked."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.hosts: list[bytes] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        self.hosts += [value for name, value in scope["headers"] if name == b"host"]
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                break  # and answers all the same, as applications may
            body += message["body"]
            if not message["more_body"]:
                break
        await say(send, b"got " + body)


TWO_WAYS: list[tuple[bytes, int]] = [
    # Two framings, whichever comes first: a proxy may believe the other one.
    (POST + LENGTH + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    (POST + b"transfer-encoding: chunked\r\n" + LENGTH + b"\r\n0\r\n\r\n" + SMUGGLED, 400),
    (POST + b"transfer-encoding:\r\n chunked\r\n" + LENGTH + b"\r\n0\r\n\r\n" + SMUGGLED, 400),
    (POST + b"content-length: 0\r\n" + LENGTH + b"\r\n" + SMUGGLED, 400),
    (POST + b"content-length: 0, 5\r\n\r\n" + SMUGGLED, 400),
    # Chunks where HTTP/1.0 has none.
    (b"POST /a HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    # Codings that are nearly "chunked".
    (POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    (POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    (POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 501),
    (POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED, 501),
    (POST + b"transfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n" + SMUGGLED, 501),
    # Lengths that some read as numbers.
    (POST + b"content-length: +0\r\n\r\n" + SMUGGLED, 400),
    (POST + b"content-length: 0x0\r\n\r\n" + SMUGGLED, 400),
    (POST + b"content-length: 0_0\r\n\r\n" + SMUGGLED, 400),
    (POST + b"content-length: \xb2\r\n\r\n" + SMUGGLED, 400),
    (POST + b"content-length: \r\n\r\n" + SMUGGLED, 400),
    # Chunks whose sizes or ends are not what they should be.
    (CHUNKED + b"0x0\r\n\r\n" + SMUGGLED, 400),
    (CHUNKED + b"-0\r\n\r\n" + SMUGGLED, 400),
    (CHUNKED + b"+0\r\n\r\n" + SMUGGLED, 400),
    (CHUNKED + b"f" * 21 + b"\r\n" + SMUGGLED, 400),
    (CHUNKED + b"0;\n\r\n" + SMUGGLED, 400),
    (CHUNKED + b"3\r\nabcXX0\r\n\r\n" + SMUGGLED, 400),
    (CHUNKED + b"3\r\nabc\n\r0\r\n\r\n" + SMUGGLED, 400),
    (CHUNKED + b"1" * (HEAD_BYTES_MAX + 1) + SMUGGLED, 400),
    (CHUNKED + b"3;" + b"x" * (4 * HEAD_BYTES_MAX) + SMUGGLED, 431),
    (CHUNKED + b"0\r\n" + b"x: y\r\n" * HEAD_BYTES_MAX + SMUGGLED, 431),
    # Heads with lines inside of lines, no host or two.
    (b"GET /a HTTP/1.1\r\nhost: x\r\nx: y\rGET /smuggled HTTP/1.1\r\n\r\n", 400),
    (b"GET /a HTTP/1.1\r\nhost: x\r\nx: y\x00z\r\n\r\n" + SMUGGLED, 400),
    (b"GET /a HTTP/1.1\r\n host: x\r\n\r\n" + SMUGGLED, 400),
    (b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n" + SMUGGLED, 400),
    (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n" + SMUGGLED, 400),
    (b"GET /a HTTP/1.1\r\nx: y\r\n\r\n" + SMUGGLED, 400),
    (b"GET /a HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n" + SMUGGLED, 400),
    # Other protocols.
    (b"GET /a HTTP/2.0\r\nhost: x\r\n\r\n" + SMUGGLED, 505),
    (b"GET /a HTTP/0.9\r\nhost: x\r\n\r\n" + SMUGGLED, 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED, 505),
    (b"GET /a\r\n" + SMUGGLED, 400),
    (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n" + SMUGGLED, 501),
    # More than a head may be.
    (b"GET /a HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 100_000 + b"\r\n" + SMUGGLED, 431),
    (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n" + SMUGGLED, 431),
]


@pytest.mark.parametrize(("data", "status"), TWO_WAYS)
async def test_what_can_be_read_in_two_ways_is_refused_and_the_end(
    data: bytes, status: int
) -> None:
    seen = Seen()
    async with served(seen) as server, server.client() as client:
        await client.send(data)
        head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in head.lower()
        assert await client.rest() == b"", "nothing after it is taken for a request"
    assert "/smuggled" not in seen.paths


ONE_WAY: list[tuple[bytes, bytes]] = [
    (CHUNKED + b'3;a=b;c="d"\r\nabc\r\n0;x\r\n\r\n', b"abc"),
    (CHUNKED + b"00000000000000000003\r\nabc\r\n0\r\n\r\n", b"abc"),
    (CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n", b"abc"),
    (CHUNKED + b"3\r\nabc\r\n0\r\ncontent-length: 9\r\nhost: evil\r\n\r\n", b"abc"),
    (POST + b"Transfer-ENCODING:\r\n ChUnKeD\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
    (POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc", b"abc"),
    (POST + b"content-length: 3, 3\r\n\r\nabc", b"abc"),
    (POST + b"content-length: 0000000000003\r\n\r\nabc", b"abc"),
    (b"POST /a HTTP/1.1\nhost: x\ncontent-length: 3\n\nabc", b"abc"),
    (POST + b"expect: miracles\r\ncontent-length: 3\r\n\r\nabc", b"abc"),
    (POST + b"connection: upgrade\r\nupgrade: h2c, websocket\r\n\r\n", b""),
    (POST + b"x:\r\n" * 4_000 + b"\r\n", b""),
    (POST + b"\r\n", b""),
]


@pytest.mark.parametrize(("data", "body"), ONE_WAY)
async def test_what_is_odd_and_means_one_thing_is_answered(data: bytes, body: bytes) -> None:
    """And what follows it is the next request, byte for byte."""
    seen = Seen()
    async with served(seen) as server, server.client() as client:
        await client.send(data + GET.replace(b"GET /", b"GET /next"))
        assert (await client.answer())[1] == b"got " + body
        assert (await client.answer())[1] == b"got "
    assert seen.paths == ["/a", "/next"]
    assert set(seen.hosts) == {b"x"}, "a trailer is no header"


async def test_bytes_after_a_body_are_the_next_request_or_none() -> None:
    seen = Seen()
    async with served(seen) as server, server.client() as client:
        await client.send(POST + b"content-length: 3\r\n\r\nabcdef\r\n\r\n")
        assert (await client.answer())[1] == b"got abc"
        head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 400 ")
        assert await client.rest() == b""
    assert seen.paths == ["/a"]


@pytest.mark.parametrize("more", [b"", b"connection: keep-alive\r\n", b"expect: 100-continue\r\n"])
async def test_http_1_0_gets_one_answer_and_no_promises(more: bytes) -> None:
    seen = Seen()
    async with served(seen) as server, server.client() as client:
        await client.send(b"POST /a HTTP/1.0\r\n" + more + b"content-length: 3\r\n\r\nabc" + GET)
        head, body = await client.answer()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert body == b"got abc"
        assert b"connection: close" in head.lower()
        assert await client.rest() == b""
    assert seen.paths == ["/a"]


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://evil.example:8/a", "/a", b"evil.example:8"),
        (b"HTTPS://me:secret@evil.example/a/b", "/a/b", b"evil.example"),
        (b"http://evil.example", "/", b"evil.example"),
        (b"//evil.example/a", "//evil.example/a", b"x"),
        (b"/a/%2e%2e/%2fb%00%ff", "/a/..//b\x00\ufffd", b"x"),
        (b"*", "*", b"x"),
        (b"evil.example:443", "evil.example:443", b"x"),
    ],
)
async def test_a_target_names_the_host_if_it_names_one(
    target: bytes, path: str, host: bytes
) -> None:
    """RFC 9112, 3.2.2: `Host` does not count then, so a check of it cannot be led around."""
    seen = Seen()
    async with served(seen) as server:
        await server.ask(b"OPTIONS " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (seen.paths, seen.hosts) == ([path], [host])


async def test_a_thousand_requests_at_once_are_answered_in_their_order() -> None:
    seen = Seen()
    async with served(seen) as server, server.client() as client:
        asked = b"".join(GET.replace(b"GET /", b"GET /%d" % n) for n in range(1_000))
        await client.send(asked)
        for _ in range(1_000):
            assert (await client.answer())[1] == b"got "
    assert seen.paths == [f"/{n}" for n in range(1_000)]


async def test_a_body_that_breaks_under_an_answer_ends_both() -> None:
    """The answer has begun, so it cannot be told: the client sees that it is cut."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(begin())
        await piece(send, b"half")
        while (await receive())["type"] == "http.request":
            continue
        await send({"type": "http.response.body", "body": b"all"})

    async with served(app) as server, server.client() as client:
        await client.send(CHUNKED + b"3\r\nabc\r\nno size\r\n")
        got = await client.rest()
    assert b"half" in got
    assert b"all" not in got
    assert not got.endswith(b"0\r\n\r\n")


async def test_small_chunks_leave_others_their_turn() -> None:
    """A byte a chunk, as fast as the kernel takes it: once nobody else ran until its end."""
    taken = [0]

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            taken[0] += len(message["body"])
            if not message["more_body"]:
                break
        await say(send)

    most = 0
    async with served(app) as server, server.client() as client, trio.open_nursery() as nursery:

        async def watch() -> None:
            nonlocal most
            while True:
                before = taken[0]
                await trio.lowlevel.checkpoint()
                most = max(most, taken[0] - before)

        nursery.start_soon(watch)
        nursery.start_soon(client.send, CHUNKED + b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n")
        assert (await client.answer())[1] == b"ok"
        nursery.cancel_scope.cancel()
    assert taken == [50_000]
    assert 0 < most <= 2 * PIECES_AT_A_TIME, (
        "trio may run a task twice between two turns of another"
    )


async def test_a_body_that_comes_in_drops_is_the_applications_to_end(
    mock_clock: MockClock,
) -> None:
    """The server does not: it cuts one only to make room. The application's patience counts."""
    told: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        with trio.move_on_after(5):
            await whole_body(receive)
            told.append("whole")
        await say(send, b"late", 408)

    async with served(app) as server, server.client() as client:
        await client.send(POST + b"content-length: 100\r\n\r\n")
        for _ in range(6):
            await wait_all_tasks_blocked()
            await client.send(b"x")
            mock_clock.jump(1)
        head, body = await client.answer()
        assert (body, told) == (b"late", [])
        assert b"connection: close" in head.lower()


async def test_drops_of_next_heads_do_not_keep_a_connection(mock_clock: MockClock) -> None:
    async with served(Seen()) as server, server.client() as client:
        await client.send(GET + b"GET /")
        assert (await client.answer())[1] == b"got "
        await _drops(client, mock_clock)
        assert await client.rest() == b""


async def _drops(client: Client, clock: MockClock) -> None:
    for _ in range(4):
        await wait_all_tasks_blocked()
        try:
            await client.send(b"a")
        except trio.BrokenResourceError:
            return
        clock.jump(IDLE_SECONDS / 3)
    await wait_all_tasks_blocked()
