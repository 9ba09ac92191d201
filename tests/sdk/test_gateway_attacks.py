"""The gateway behind its own HTTP server, over real sockets: what clients send to harm it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from assay.gateway.api_keys import add_key
from assay.gateway.app import gateway_app
from network.http_doors import Client, Served, served
from sdk.gateway_world import World, gateway

ASK = json.dumps(
    {"model": "toy", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
).encode()
HOST = b"host: 127.0.0.1\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"content-type: application/json\r\n"
MODELS = b"GET /v1/models HTTP/1.1\r\n" + HOST + b"\r\n"


@asynccontextmanager
async def door(folder: Path, **settings: Any) -> AsyncIterator[tuple[Served, World]]:
    async with gateway(folder, **settings) as world:
        async with served(gateway_app(world.service)) as server:
            yield server, world


def told(answer: tuple[bytes, bytes]) -> tuple[int, str]:
    """Status and code of an error of OpenAI's form."""
    head, body = answer
    assert b"content-type: application/json" in head.lower(), head
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split(b" ")[1]), error["code"]


@pytest.mark.parametrize(
    ("request_line", "host", "status", "code"),
    [
        (b"GET http://evil.example/v1/models HTTP/1.1", HOST, 421, "misdirected_request"),
        (b"GET //evil.example/v1/models HTTP/1.1", HOST, 404, "not_found"),
        (b"GET /v1/models HTTP/1.1", b"host: evil.example\r\n", 421, "misdirected_request"),
        (b"GET /v1/models HTTP/1.1", b"host: \r\n", 421, "misdirected_request"),
        (
            b"GET /v1/models HTTP/1.1",
            b"host: 127.0.0.1.evil.example\r\n",
            421,
            "misdirected_request",
        ),
        (
            b"GET /v1/models HTTP/1.1",
            b"host: 127.0.0.1@evil.example\r\n",
            421,
            "misdirected_request",
        ),
        (b"GET /v1/models HTTP/1.0", b"", 421, "misdirected_request"),
        (b"OPTIONS * HTTP/1.1", HOST, 404, "not_found"),
        (b"GET /v1/models/%2e%2e%2f%00%ff HTTP/1.1", HOST, 404, "not_found"),
        (b"GET /v1/models/%00%ff HTTP/1.1", HOST, 404, "model_not_found"),
        (b"get /v1/models HTTP/1.1", HOST, 405, "method_not_allowed"),
        (b"TRACE /v1/models HTTP/1.1", HOST, 405, "method_not_allowed"),
        (b"M" * 9_000 + b" /v1/models HTTP/1.1", HOST, 405, "method_not_allowed"),
    ],
)
async def test_odd_questions_get_errors_of_openais_form(
    tmp_path: Path, request_line: bytes, host: bytes, status: int, code: str
) -> None:
    async with door(tmp_path) as (server, _):
        answer = await server.ask(request_line + b"\r\n" + host + b"\r\n")
    assert told(answer) == (status, code)


async def test_a_chat_in_chunks_of_a_byte_and_the_next_request(tmp_path: Path) -> None:
    chunks = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in ASK)
    async with door(tmp_path) as (server, world), server.client() as client:
        asked = CHAT + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\nx: y\r\n\r\n"
        await client.send(asked + MODELS)
        head, body = await client.answer()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert json.loads(body)["usage"]["completion_tokens"] == 8
        assert json.loads((await client.answer())[1])["data"][0]["id"] == "toy"
    assert len(world.network.coordinator.asked) == 1


async def test_a_smuggled_request_spends_nothing(tmp_path: Path) -> None:
    """What a proxy in front would take for a body is no second request of another's."""
    keys = tmp_path / "keys"
    bearer = b"authorization: Bearer " + add_key(keys, "alice").encode() + b"\r\n"
    inner = CHAT + bearer + b"content-length: %d\r\n\r\n" % len(ASK) + ASK
    outer = b"GET /healthz HTTP/1.1\r\n" + HOST + b"content-length: %d\r\n" % (len(inner) + 5)
    async with door(tmp_path, keys=str(keys)) as (server, world), server.client() as client:
        await client.send(outer + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + inner)
        head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 400 ")
        assert await client.rest() == b""
        assert world.network.coordinator.asked == []


async def test_half_a_body_holds_none_of_the_gateways_places(tmp_path: Path) -> None:
    async with door(tmp_path, requests=1, body_seconds=1) as (server, world):
        async with server.client() as slow:
            await slow.send(CHAT + b"content-length: 99\r\n\r\n{")
            answer = await server.ask(CHAT + b"content-length: %d\r\n\r\n" % len(ASK) + ASK)
            assert answer[0].startswith(b"HTTP/1.1 200 ")
            assert world.service.admission.running == 0
            assert told(await _dripped(slow)) == (408, "timeout")
            assert await slow.rest() == b""


async def _dripped(slow: Client) -> tuple[bytes, bytes]:
    """Its answer, while it sends a byte now and then."""
    answer: tuple[bytes, bytes] | None = None
    async with trio.open_nursery() as nursery:

        async def drip() -> None:
            for _ in range(90):
                await slow.send(b" ")
                await trio.sleep(0.05)

        nursery.start_soon(drip)
        answer = await slow.answer()
        nursery.cancel_scope.cancel()
    return answer


async def test_a_framing_that_breaks_inside_of_a_body_is_told(tmp_path: Path) -> None:
    async with door(tmp_path) as (server, world), server.client() as client:
        await client.send(CHAT + b'transfer-encoding: chunked\r\n\r\n5\r\n{"mod-1\r\n' + MODELS)
        head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 400 ")
        assert await client.rest() == b""
        assert world.service.admission.running == 0


async def test_many_requests_at_once_on_one_connection(tmp_path: Path) -> None:
    """In their order, one at a time: `at_once` and `requests` hold for them too."""
    async with door(tmp_path, requests=1) as (server, world), server.client() as client:
        one = CHAT + b"content-length: %d\r\n\r\n" % len(ASK) + ASK
        await client.send(one * 20 + b"GET /readyz HTTP/1.1\r\n" + HOST + b"\r\n")
        for _ in range(20):
            head, body = await client.answer()
            assert head.startswith(b"HTTP/1.1 200 "), body
        assert json.loads((await client.answer())[1]) == {"status": "ready"}
        assert len(world.network.coordinator.asked) == 20


@pytest.mark.parametrize("path", [b"/healthz", b"/v1/models", b"/", b"/v1/nothing"])
async def test_head_has_the_head_alone(tmp_path: Path, path: bytes) -> None:
    async with door(tmp_path) as (server, _), server.client() as client:
        await client.send(b"HEAD " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n" + MODELS)
        head, _ = await client.answer(head_only=True)
        assert head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 404 "))
        assert json.loads((await client.answer())[1])["object"] == "list"


async def test_an_upgrade_is_not_taken(tmp_path: Path) -> None:
    more = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    async with door(tmp_path) as (server, _), server.client() as client:
        await client.send(b"GET /healthz HTTP/1.1\r\n" + HOST + more + b"\r\n" + MODELS)
        assert (await client.answer())[0].startswith(b"HTTP/1.1 200 ")
        assert json.loads((await client.answer())[1])["object"] == "list"
