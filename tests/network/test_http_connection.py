"""What one connection may carry: requests in turn, bodies both ways, and clients that misbehave."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from assay_network.http_connection import HEAD_BYTES_MAX, PIPELINED_BYTES_MAX
from network.http_doors import (
    GET,
    Receive,
    Send,
    begin,
    eventually,
    piece,
    say,
    served,
    whole_body,
)


async def echo(scope: Any, receive: Receive, send: Send) -> None:
    """Method, path, query and body, in pieces without a length."""
    body = await whole_body(receive)
    await send(begin())
    await piece(
        send, f"{scope['method']} {scope['path']} {scope['query_string'].decode()} ".encode()
    )
    await piece(send, b"")
    await piece(send, body)
    await send({"type": "http.response.body"})


async def test_requests_are_answered_in_turn_on_one_connection() -> None:
    async with served(echo) as server, server.client() as client:
        for path in (b"/a?b=c", b"/%C3%A9", b"http://elsewhere/d"):
            await client.send(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path)
            head, body = await client.answer()
            assert head.startswith(b"HTTP/1.1 200 \r\n")
            assert b"\r\ndate: " in head.lower()
        assert body == b"GET /d  "


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with served(echo) as server, server.client() as client:
        ask = b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"
        await client.send(b"".join(ask % number for number in range(50)))
        for number in range(50):
            assert (await client.answer())[1] == b"POST /%d  abc" % number


@pytest.mark.parametrize("step", [1, 7, 1_000])
async def test_a_chunked_body_is_read_however_it_is_cut(step: int) -> None:
    body = bytes(range(256)) * 3
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:5], body[5:]))
    request = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    request += chunks + b"0\r\n\r\n"
    async with served(echo) as server, server.client() as client:
        for _ in range(2):
            for at in range(0, len(request), step):
                await client.send(request[at : at + step])
            assert (await client.answer())[1] == b"POST /  " + body


async def test_a_piece_leaves_when_it_is_there_and_the_first_with_its_head() -> None:
    go_on = trio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(begin())
        await piece(send, b"first")
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"last"})

    async with served(app) as server, server.client() as client:
        await client.send(GET)
        got = bytes(await client.tcp.receive_some(65_536))
        assert got.endswith(b"\r\n\r\n5\r\nfirst\r\n")
        go_on.set()
        assert bytes(await client.tcp.receive_some(65_536)) == b"4\r\nlast\r\n0\r\n\r\n"


async def test_http_1_0_gets_no_chunks_and_an_end() -> None:
    async with served(echo) as server, server.client() as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        head, body = await client.answer()
        assert b"transfer-encoding" not in head.lower()
        assert body == b"GET /  "


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
async def test_answers_without_a_body_have_none(method: bytes, status: int) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2")] if status != 204 else []
        await say(send, b"ok", status, headers)

    async with served(app) as server, server.client() as client:
        for _ in range(2):
            await client.send(method + b" / HTTP/1.1\r\nhost: x\r\n\r\n")
            head, _ = await client.answer(head_only=True)
            assert head.startswith(b"HTTP/1.1 %d" % status)
        assert client.held == b""


EXPECTING = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"


async def test_a_client_that_asks_first_is_told_when_its_body_is_wanted() -> None:
    async with served(echo) as server, server.client() as client:
        await client.send(EXPECTING)
        head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 100 ")
        await client.send(b"abc" + GET)
        assert (await client.answer())[1] == b"POST /  abc"
        assert (await client.answer())[1] == b"GET /  "


async def test_a_client_that_asks_first_is_refused_without_its_body() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await say(send, b"no", 413)

    async with served(app) as server, server.client() as client:
        await client.send(EXPECTING)
        head, body = await client.answer()
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in head.lower()
        assert body == b"no"
        assert await client.rest() == b""


async def test_a_refusal_is_read_by_who_sends_first_and_reads_then() -> None:
    """Bytes that were never read must not reset the connection under the answer."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await say(send, b"too large", 413)

    size = 20_000_000
    async with served(app) as server, server.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        await client.send(bytes(size))
        assert (await client.answer())[1] == b"too large"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no host
        (b"GET / HTTP/1.1\r\nhost: x\r\nbad name: y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %b\r\n\r\n" % (b"9" * 5_000), 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nno size\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: " + b"x" * (HEAD_BYTES_MAX + 1), 431),
    ],
)
async def test_what_is_no_request_is_refused(request_bytes: bytes, status: int) -> None:
    async with served(echo) as server, server.client() as client:
        await client.send(request_bytes)
        head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in head.lower()
        assert await client.rest() == b""


async def test_a_client_that_leaves_inside_its_body_gets_nothing() -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        while not told or told[-1]["type"] == "http.request":
            told.append(await receive())
        await say(send)  # to nobody

    async with served(app) as server, server.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc")
        await eventually(lambda: bool(told))
        await client.tcp.send_eof()
        assert await client.rest() == b""
    assert [message["type"] for message in told] == ["http.request", "http.disconnect"]


async def watched(scope: Any, receive: Receive, send: Send) -> None:
    """Draws until the client leaves, and goes on writing then, as applications may."""
    await send(begin())
    await piece(send, b"drawn")
    await whole_body(receive)
    assert await receive() == {"type": "http.disconnect"}
    LEFT.append(scope["path"])
    await piece(send, b"to nobody")
    await send({"type": "http.response.body"})


LEFT: list[str] = []


@pytest.mark.parametrize("how", ["closed", "half closed", "reset"])
async def test_leaving_is_noticed_while_an_answer_is_made(how: str) -> None:
    LEFT.clear()
    async with served(watched) as server, server.client() as client:
        await client.send(GET)
        await client.until(b"drawn")
        if how == "half closed":
            await client.tcp.send_eof()
        elif how == "reset":
            client.tcp.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: on, no time
            await trio.aclose_forcefully(client.tcp)
        else:
            await client.tcp.aclose()
        await eventually(lambda: LEFT == ["/"])


async def test_who_ends_its_half_after_a_quick_question_is_answered() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await say(send)

    async with served(app) as server, server.client() as client:
        await client.send(GET + GET)
        await client.tcp.send_eof()
        assert [(await client.answer())[1] for _ in range(2)] == [b"ok", b"ok"]
        assert await client.rest() == b""


async def test_a_flood_of_next_requests_is_cut_off() -> None:
    LEFT.clear()
    async with served(watched) as server, server.client() as client:
        await client.send(GET)
        await client.until(b"drawn")
        await client.send(GET)  # a few may wait their turn
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert LEFT == []
        with pytest.raises(trio.BrokenResourceError):
            for _ in range(1_000):
                await client.send(bytes(PIPELINED_BYTES_MAX))
        await eventually(lambda: LEFT == ["/"])


async def test_a_watcher_learns_that_the_answer_is_whole() -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await whole_body(receive)

        async def watch() -> None:
            told.append(await receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await wait_all_tasks_blocked()
            await say(send)
            nursery.start_soon(watch)

    async with served(app) as server, server.client() as client:
        for _ in range(2):
            await client.send(GET)
            assert (await client.answer())[1] == b"ok"
    assert told == [{"type": "http.disconnect"}] * 4


class Raising:
    """An application with a fault: before it answered, in the middle, or in a header."""

    def __init__(self, where: str) -> None:
        self._where = where

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if self._where == "begun":
            await send(begin())
            await piece(send, b"half")
        if self._where == "header":
            await say(send, b"x", headers=[(b"x", b"a\r\nset-cookie: b")])
        if self._where != "returns":
            raise ValueError("secret")


class Kept(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.mark.parametrize("where", ["before", "returns", "header", "begun"])
async def test_a_fault_of_the_application_ends_one_request(where: str) -> None:
    kept, logger = Kept(), logging.getLogger("assay.http")
    logger.addHandler(kept)
    async with served(Raising(where)) as server:
        for _ in range(2):
            async with server.client() as client:
                await client.send(GET)
                got = await client.rest()
            if where == "begun":
                assert b"half" in got
                assert not got.endswith(b"0\r\n\r\n")  # the client sees that it is cut
            else:
                assert got.startswith(b"HTTP/1.1 500 ")
            assert b"set-cookie" not in got
    logger.removeHandler(kept)
    assert len(kept.said) == (0 if where == "returns" else 2)
    assert "secret" not in "".join(kept.said)


@pytest.mark.parametrize("whole", [True, False])
def test_any_bytes_get_an_answer_or_an_end(whole: bool) -> None:
    """And the server answers the next one."""
    parts = st.sampled_from(
        [GET, b"POST / HTTP/1.1\r\n", b"host: x\r\n", b"content-length: 4\r\n", b"\r\n", b"5\r\n",
         b"transfer-encoding: chunked\r\n", b"expect: 100-continue\r\n", b"connection: close\r\n",
         b"upgrade: websocket\r\n", b"CONNECT x:1 HTTP/1.1\r\n", b"abcde", b"0\r\n\r\n"]
    )  # fmt: skip
    some = st.lists(parts | st.binary(max_size=20), max_size=12).map(b"".join)

    @settings(max_examples=60)
    @given(some)
    def check(data: bytes) -> None:
        async def ask() -> None:
            async with served(echo) as server:
                async with server.client() as client:
                    await client.send(data)
                    if whole:
                        await client.tcp.send_eof()
                        await client.rest()
                assert (await server.ask())[1] == b"GET /  "

        trio.run(ask)

    check()
