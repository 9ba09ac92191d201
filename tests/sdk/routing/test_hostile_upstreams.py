"""Upstreams that lie and attack: what they send is bounded, what they cost is, and they learn and
leak nothing. Over real HTTP on loopback; the gateway behind it is whole."""

from __future__ import annotations

import gzip
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_caller import Answer
from assay.gateway.spending import read_spent_upstream
from assay.gateway.upstream import STREAM_BYTES_MAX
from assay.server_events import EVENT_BYTES_MAX, LINES_MAX, EventReader
from assay_protocol.errors import AssayError
from sdk.gateway_world import SECRET, World, gateway
from sdk.routing.upstream_gateway import ASK, CHAT, PLAN, asked, chunks, routes
from sdk.routing.upstream_server import (
    CUT,
    DONE,
    Reply,
    Script,
    delta,
    event,
    scripted_upstream,
    whole,
)

MOST_IN = len(json.dumps({**ASK, "stream": False}))
MOST_OUT = 8
MOST = MOST_IN + 3 * MOST_OUT
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}


def body(**more: Any) -> bytes:
    return json.dumps({"choices": [CHOICE], **more}).encode()


def raw(*pieces: bytes | float) -> Reply:
    return Reply(pieces=pieces, raw=True)


def check_cost(folder: Path, world: World, most: int = MOST) -> int:
    """What was charged: the same everywhere, and no more than was set aside."""
    (decision,) = world.service.router.decisions
    budget = world.service.router.upstreams["afar"].budget
    kept = read_spent_upstream(folder / "gateway.sqlite")
    assert kept.get(("", "afar"), 0) == decision.price == budget.spent <= most
    assert (decision.priced != "") == (decision.price > 0)
    return decision.price


def code_of(answer: Answer, *, stream: bool) -> str:
    """The code of the OpenAI-shaped error that ended it, whether it had a status or not."""
    told = chunks(answer)[-1] if stream and answer.status_code == 200 else answer.json()
    error = told["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["code"], str)
    code: str = error["code"]
    return code


LIES: list[tuple[object, int, str]] = [
    ({"prompt_tokens": 7, "completion_tokens": 5}, 7 + 15, "counts"),
    ({"prompt_tokens": 10**9, "completion_tokens": 10**9}, MOST, "capped"),
    ({"prompt_tokens": 10**30, "completion_tokens": 0}, MOST_IN, "capped"),
    ({"prompt_tokens": 0, "completion_tokens": 9}, 3 * MOST_OUT, "capped"),
    ({"prompt_tokens": -7, "completion_tokens": 5}, MOST, "most"),
    ({"prompt_tokens": 7, "completion_tokens": -(10**30)}, MOST, "most"),
    ({"prompt_tokens": 7.0, "completion_tokens": 5.0}, MOST, "most"),
    ({"prompt_tokens": 1e30, "completion_tokens": 5}, MOST, "most"),
    ({"prompt_tokens": "7", "completion_tokens": "5"}, MOST, "most"),
    ({"prompt_tokens": True, "completion_tokens": True}, MOST, "most"),
    ({"prompt_tokens": None, "completion_tokens": 5}, MOST, "most"),
    ({"prompt_tokens": [7], "completion_tokens": {}}, MOST, "most"),
    ({"completion_tokens": 5}, MOST, "most"),
    ({}, MOST, "most"),
    ([7, 5], MOST, "most"),
    ("7", MOST, "most"),
    (None, MOST, "most"),
]


@pytest.mark.parametrize(("usage", "price", "priced"), LIES)
async def test_counts_that_are_lies(tmp_path: Path, usage: object, price: int, priced: str) -> None:
    async with scripted_upstream(Reply(pieces=(body(usage=usage),))) as script:
        answer, world = await asked(tmp_path, script)
    assert answer.status_code == 200
    assert check_cost(tmp_path, world) == price
    assert world.service.router.decisions[0].priced == priced


async def test_counts_are_the_last_that_a_stream_tells(tmp_path: Path) -> None:
    told = [event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": n}})
            for n in (8, 1, 2)]  # fmt: skip
    twice = event(b'{"choices":[],"usage":{"prompt_tokens":99},"usage":'
                  b'{"prompt_tokens":3,"completion_tokens":3}}')  # fmt: skip
    for number, (last, price) in enumerate(((DONE, 1 + 6), (twice, 3 + 9))):
        folder = tmp_path / str(number)
        folder.mkdir()
        pieces = (told[0], delta("a"), told[1], delta("", "stop"), told[2], last, DONE)
        async with scripted_upstream(Reply(pieces=pieces)) as script:
            answer, world = await asked(folder, script, stream=True)
        assert answer.pieces[-1] == DONE
        assert check_cost(folder, world) == price


BODIES: list[tuple[Reply, str]] = [
    (Reply(pieces=(body(usage={"prompt_tokens": float("nan")}),)), "upstream_malformed"),
    (Reply(pieces=(body(x=float("inf")),)), "upstream_malformed"),
    (Reply(pieces=(b'{"choices":[{"index":0}],"x":1e999}',)), "upstream_malformed"),
    (Reply(pieces=(b'{"x":' * 900 + b"1" + b"}" * 900,)), "upstream_malformed"),
    (Reply(pieces=(b'{"x":' * 100_000,)), "upstream_malformed"),
    (Reply(pieces=(b'{"x":' + b"9" * 5_000 + b"}",)), "upstream_malformed"),
    (Reply(pieces=(b'{"x":"\xff\xfe"}',)), "upstream_malformed"),
    (Reply(pieces=(b"\xef\xbb\xbf" + body(),)), "upstream_malformed"),
    (Reply(pieces=(json.dumps({"choices": [CHOICE]}).encode("utf-16"),)), "upstream_malformed"),
    (Reply(pieces=(body(model={"name": "m"}),)), "upstream_malformed"),
    (Reply(pieces=(body(id=7),)), "upstream_malformed"),
    (Reply(pieces=(body(choices=[{**CHOICE, "index": 1}]),)), "upstream_malformed"),
    (Reply(pieces=(body(choices=[{**CHOICE, "index": -1}]),)), "upstream_malformed"),
    (Reply(pieces=(body(choices=[{**CHOICE, "index": True}]),)), "upstream_malformed"),
    (Reply(pieces=(body(choices=[CHOICE, CHOICE]),)), "upstream_malformed"),
    (Reply(pieces=(body(choices=[{**CHOICE, "message": "hi"}]),)), "upstream_malformed"),
    (Reply(pieces=(body(choices=[{**CHOICE, "message": {"content": 7}}]),)), "upstream_malformed"),
    (Reply(pieces=(body(choices=[{**CHOICE, "message": {"tool_calls": {}}}]),)),
     "upstream_malformed"),
    (Reply(pieces=(body(choices=[{**CHOICE, "text": ["x"]}]),)), "upstream_malformed"),
    (Reply(pieces=(body(choices=[{**CHOICE, "finish_reason": []}]),)), "upstream_malformed"),
    (Reply(pieces=(body(choices={"0": CHOICE}),)), "upstream_malformed"),
    (Reply(pieces=(b'{"error":{"message":"no"}}',)), "upstream_failed"),
    (Reply(pieces=(b'{"error":"no","choices":[]}',)), "upstream_failed"),
    (Reply(pieces=repeat(bytes(65_536), 1_000)), "upstream_malformed"),
    (raw(CHUNKED + b"5\r\n{\"cho", CUT), "upstream_broken"),
    (raw(CHUNKED + b"ffffffffffffffffffff\r\n{"), "upstream_broken"),
    (raw(CHUNKED + b"-1\r\n{}"), "upstream_broken"),
    (raw(CHUNKED + b"5;" + b"x" * 200_000 + b"\r\n{"), "upstream_broken"),
    (raw(HEAD + b"content-length: 99\r\n\r\n{}", CUT), "upstream_broken"),
    (raw(HEAD + b"content-length: -1\r\n\r\n{}"), "upstream_failed"),
    (raw(HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}"), "upstream_failed"),
    (raw(HEAD + b"content-length: 1_0\r\n\r\n{}"), "upstream_failed"),
    (raw(HEAD + b"transfer-encoding: gzip\r\n\r\n{}"), "upstream_failed"),
    (raw(HEAD + b"x: y\r\n" * 100_000 + b"\r\n{}"), "upstream_failed"),
    (raw(HEAD + b"x: " + b"y" * 300_000 + b"\r\n\r\n{}"), "upstream_failed"),
    (raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"), "upstream_failed"),
    (raw(b"HTTP/1.1 999 \xff\xfe\r\ncontent-length: 0\r\n\r\n"), "upstream_failed"),
    (raw(b"HTTP/1.1 302 Found\r\nlocation: http://[::\r\ncontent-length: 0\r\n\r\n"),
     "upstream_failed"),
    (raw(b"HTTP/1.1 301 Moved\r\nlocation: \xff\xfe://\x7f\r\ncontent-length: 0\r\n\r\n"),
     "upstream_failed"),
    (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "upstream_failed"),
    (raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), "upstream_failed"),
    (raw(b"SSH-2.0-OpenSSH_9\r\n"), "upstream_failed"),
    (raw(), "upstream_failed"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "code"), BODIES)
async def test_whole_answers_that_are_none(tmp_path: Path, reply: Reply, code: str) -> None:
    async with scripted_upstream(reply) as script:
        answer, world = await asked(tmp_path, script)
    assert (answer.status_code, code_of(answer, stream=False)) == (502, code)
    charged = check_cost(tmp_path, world)
    assert charged == (0 if code == "upstream_failed" else MOST)
    assert ("x-should-retry" in answer.headers) == bool(charged)


STREAMS: list[tuple[Callable[[], Reply], str]] = [
    (lambda: Reply(pieces=(event(b"\xff\xfe"),)), "upstream_malformed"),
    (lambda: Reply(pieces=(delta("a"), event(b'{"choices":' + b"[" * 10_000))),
     "upstream_malformed"),
    (lambda: Reply(pieces=(delta("a"), event(b'{"choices":[{"index":0,"delta":{"x":NaN}}]}'))),
     "upstream_malformed"),
    (lambda: Reply(pieces=(delta("a"), event({"choices": [{"index": 1, "delta": {}}]}))),
     "upstream_malformed"),
    (lambda: Reply(pieces=(delta("a"), event({"choices": [{"index": 0, "delta": "x"}]}))),
     "upstream_malformed"),
    (lambda: Reply(pieces=(delta("a"), event({"error": {"message": SECRET}}))), "upstream_broken"),
    (lambda: Reply(pieces=(delta("a"), b"data: " + delta("b")[6:30], CUT)), "upstream_broken"),
    (lambda: Reply(pieces=(b"data:\n\n" * 10,)), "upstream_malformed"),
    (lambda: Reply(pieces=(delta("a"), *repeat(b"data:\n", 2_000))), "upstream_malformed"),
    (lambda: Reply(pieces=(delta("a"), *repeat(b"\n\n" * 32_768, 2_000))), "upstream_malformed"),
    (lambda: Reply(pieces=(delta("a"), *repeat(b"x" * 65_536, 16_384))), "upstream_malformed"),
    (lambda: Reply(pieces=(delta("a"), *repeat(delta("b" * 60_000), 2_000))), "upstream_malformed"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "code"), STREAMS)
async def test_streams_that_are_none(tmp_path: Path, reply: Callable[[], Reply], code: str) -> None:
    """Floods are cut off by what was read, not by what would come."""
    async with scripted_upstream(reply()) as script:
        answer, world = await asked(tmp_path, script, stream=True)
        await _ended(script)
    assert code_of(answer, stream=True) == code
    assert "[DONE]" not in answer.text
    assert SECRET not in answer.text
    check_cost(tmp_path, world)
    assert script.sent <= STREAM_BYTES_MAX + (8 << 20), "the rest is in the kernel's buffers"


async def _ended(script: Script) -> None:
    """Until a flood is noticed to have been for nobody; other scripts have ended by themselves."""
    with trio.move_on_after(0.3):
        while not script.left:
            await trio.sleep(0.01)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stream_that_never_ends(tmp_path: Path, begun: bool) -> None:
    """Comments are no tokens; and tokens end, when an answer has had its time."""

    def forever() -> Iterator[bytes | float]:
        while True:
            yield delta("a") if begun else b": still here\n\n"
            yield 0.02

    async with scripted_upstream(Reply(pieces=forever())) as script:
        known = routes(script.url, first_token_ms=300)
        async with gateway(tmp_path, routes=known, answer_seconds=1) as world:
            began = trio.current_time()
            answer = await world.post(CHAT, {**ASK, "stream": True})
            assert trio.current_time() - began < 5
            await _ended(script)
    assert code_of(answer, stream=True) == ("timeout" if begun else "upstream_timeout")
    assert script.left == 1
    assert check_cost(tmp_path, world) == (MOST - 1 if begun else 0)


def head_in_drops() -> Iterator[bytes | float]:
    yield HEAD
    while True:
        yield b"x: y\r\n"
        yield 0.02


@pytest.mark.parametrize(
    "pieces", [head_in_drops, lambda: repeat(b"HTTP/1.1 103 Hints\r\n\r\n" * 1_000)]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_head_that_does_not_end(
    tmp_path: Path, pieces: Callable[[], Iterator[bytes | float]], stream: bool
) -> None:
    """A stream's first token has its time, a whole answer all of it: then it may have come."""
    async with scripted_upstream(Reply(pieces=pieces(), raw=True)) as script:
        known = routes(script.url, first_token_ms=200)
        async with gateway(tmp_path, routes=known, answer_seconds=1) as world:
            answer = await world.post(CHAT, {**ASK, "stream": stream})
    code = "upstream_timeout" if stream else "timeout"
    assert (answer.status_code, code_of(answer, stream=False)) == (504, code)
    assert check_cost(tmp_path, world) == (0 if stream else MOST)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
async def test_what_is_packed_is_not_unpacked(tmp_path: Path, stream: bool, layers: int) -> None:
    """100 MB of spaces in 100 kB, or in 600 bytes: never in memory."""
    packed = gzip.compress(b" " * 100_000_000, 1)
    for _ in range(layers - 1):
        packed = gzip.compress(packed)
    coding = ", ".join(["gzip"] * layers)
    reply = Reply(pieces=(packed,), headers={"content-encoding": coding})
    async with scripted_upstream(reply) as script:
        answer, world = await asked(tmp_path, script, stream=stream)
    assert (answer.status_code, code_of(answer, stream=False)) == (502, "upstream_malformed")
    assert "accept-encoding: identity" in script.heads[0].lower()
    check_cost(tmp_path, world)


async def test_no_cookie_comes_back_and_no_redirect_is_followed(tmp_path: Path) -> None:
    cookie = {"set-cookie": "who=alice; path=/"}
    far = Reply(307, (b"x",), cookie | {"location": "/v1/elsewhere"})
    async with scripted_upstream(far, replace(whole(), headers=cookie), whole()) as script:
        async with gateway(tmp_path, routes=routes(script.url)) as world:
            statuses = [(await world.post(CHAT, ASK)).status_code for _ in range(3)]
    assert statuses == [502, 200, 200]
    assert script.paths == ["/v1/chat/completions"] * 3
    assert "cookie" not in "".join(script.heads).lower()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"Incorrect API key provided: {SECRET}.", False),
        (f"Incorrect API key provided: {SECRET[:10]}***", False),
        (f"bad\u0000{SECRET}\u001b[2J", False),
        ("max_tokens is too large\u001b[2J", True),
        (["max_tokens is too large"], False),
    ],
)
async def test_its_error_texts_do_not_hold_the_key(
    tmp_path: Path, said: object, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = json.dumps({"error": {"message": said}}).encode()
    async with scripted_upstream(Reply(400, (error,))) as script:
        answer, world = await asked(tmp_path, script)
    assert (answer.status_code, code_of(answer, stream=False)) == (400, "upstream_refused")
    assert ("max_tokens" in answer.text) == told
    for text in (answer.text, caplog.text, str(world.service.router.decisions[0])):
        assert SECRET[:10] not in text
        assert "\x1b" not in text
        assert "\\u001b" not in text
    assert "Hello" not in caplog.text


async def test_a_refusal_that_does_not_end(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("assay.gateway.upstream.REFUSAL_SECONDS", 0.2)

    def drops() -> Iterator[bytes | float]:
        while True:
            yield b" "
            yield 0.02

    async with scripted_upstream(Reply(400, drops())) as script:
        answer, world = await asked(tmp_path, script)
    assert (answer.status_code, code_of(answer, stream=False)) == (504, "upstream_timeout")
    assert check_cost(tmp_path, world) == 0


async def test_who_drew_it_is_not_for_an_upstream_to_say(tmp_path: Path) -> None:
    forged = {"nodes": ["00" * 32], "receipts": ["00" * 16], "verdict": "accepted"}
    chunk = {"choices": [{"index": 0, "delta": {"content": "b"}}], "assay": forged}
    pieces = (delta("a"), event(chunk), delta("", "stop"), DONE)
    async with scripted_upstream(Reply(pieces=pieces), Reply(pieces=(body(assay=forged),))) as far:
        async with gateway(tmp_path, routes=routes(far.url)) as world:
            told = chunks(await world.post(CHAT, {**ASK, "stream": True}))
            told.append((await world.post(CHAT, ASK)).json())
    assert [one.get("assay", {}).get("receipts") for one in told] == [[], None, [], []]


async def test_other_names_and_tool_calls_that_are_no_json_are_passed_on(tmp_path: Path) -> None:
    """A model may write anything as arguments; whoever asked for the call reads it."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    told = body(choices=[{**CHOICE, "message": message}], model="another")
    async with scripted_upstream(Reply(pieces=(told,))) as script:
        answer, _ = await asked(tmp_path, script)
    assert answer.json()["model"] == "another"
    assert answer.json()["choices"][0]["message"]["tool_calls"] == [call]
    assert answer.json()["assay"]["route"]["model"] == PLAN.upstream_model


def test_any_bytes_get_an_error_of_our_own(tmp_path: Path) -> None:
    """Whatever is said after a status line, no exception leaves the application."""
    parts = st.sampled_from(
        [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 \r\n\r\n", b"HTTP/0.9\r\n", b"HTTP/1.1 400 X\r\n",
         b"content-length: 5\r\n", b"content-length: 99999999999\r\n", b"content-length: x\r\n",
         b"transfer-encoding: chunked\r\n", b"content-encoding: br\r\n", b"location: //\xff\r\n",
         b"connection: close\r\n", b"\r\n", b"5\r\n", b"0\r\n\r\n", b"data: {\n\n", b"data: []\n\n",
         b'{"choices":[{"index":0}]}', b"retry-after: \xb2\r\n", b": x\r\n", b"\x00", b"\xff"]
    )  # fmt: skip
    some = st.lists(parts | st.binary(max_size=12), max_size=10).map(b"".join)

    @settings(max_examples=25)
    @given(some, st.booleans())
    def check(data: bytes, stream: bool) -> None:
        async def ask() -> None:
            async with scripted_upstream(raw(data)) as script:
                known = routes(script.url, first_token_ms=500)
                async with gateway(tmp_path, routes=known) as world:
                    answer = await world.post(CHAT, {**ASK, "stream": stream})
                    if answer.status_code != 200:
                        code_of(answer, stream=False)
                    (decision,) = world.service.router.decisions
                    assert decision.price <= MOST
                    assert answer.status_code != 500

        trio.run(ask)

    check()


def test_a_long_line_in_small_pieces_costs_no_more_than_its_bytes() -> None:
    """Each piece was once joined to all before it: a megabyte took 33 s of CPU."""
    reader, piece = EventReader(), b"x" * 8
    began = time.process_time()
    for _ in range(EVENT_BYTES_MAX // len(piece)):
        assert list(reader.feed(piece)) == []
    assert time.process_time() - began < 2
    with pytest.raises(AssayError, match="too large"):
        list(reader.feed(piece))


@pytest.mark.parametrize("line", [b"\n", b": still here\n", b"\r\n"])
def test_lines_that_are_no_events_are_counted(line: bytes) -> None:
    reader = EventReader()
    for _ in range(LINES_MAX // 1_000):
        assert list(reader.feed(line * 1_000)) == []
    with pytest.raises(AssayError, match="too many lines"):
        list(reader.feed(line))
