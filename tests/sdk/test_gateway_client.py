"""The HTTP client against a gateway that answers well, badly and not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assay.http import GatewayClient, GatewayError
from assay.server_events import EVENT_BYTES_MAX

ASK = [{"role": "user", "content": "hello"}]


def client(answer: Callable[[httpx.Request], httpx.Response]) -> GatewayClient:
    return GatewayClient("http://gateway", "secret", transport=httpx.MockTransport(answer))


def serving(content: bytes, status: int = 200, **headers: str) -> GatewayClient:
    return client(lambda _: httpx.Response(status, content=content, headers=headers))


def event(**body: object) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def delta(text: str) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])


def test_a_whole_answer() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        body = {
            "choices": [{"message": {"content": "hi"}, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1},
        }
        return httpx.Response(200, json=body)

    with client(answer) as gateway:
        result = gateway.chat(ASK, model="m", max_tokens=5)
    assert (result.text, result.finish_reason) == ("hi", "length")
    assert (result.prompt_tokens, result.completion_tokens) == (3, 1)
    assert str(seen[0].url) == "http://gateway/v1/chat/completions"
    assert seen[0].headers["authorization"] == "Bearer secret"
    assert json.loads(seen[0].content)["max_tokens"] == 5


def test_models() -> None:
    with serving(b'{"data": [{"id": "a"}, {"id": "b"}]}') as gateway:
        assert gateway.models() == ("a", "b")


def test_a_streamed_answer_in_any_pieces() -> None:
    usage = event(choices=[], usage={"completion_tokens": 2})
    role = event(choices=[{"delta": {"role": "assistant"}}])
    data = b": ping\r\n\r\n" + role + delta("h\u00e9") + delta("llo") + usage + b"data: [DONE]\n\n"

    def pieces() -> Iterator[bytes]:
        for at in range(len(data)):
            yield data[at : at + 1]

    with client(lambda _: httpx.Response(200, content=pieces())) as gateway:
        assert list(gateway.stream_chat(ASK, model="m")) == ["h\u00e9", "llo"]


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        (b"", "peer_gone"),
        (b"data: [DONE", "peer_gone"),
        (b"data: {not json\n\n", "malformed"),
        (b"data: [1]\n\n", "malformed"),
        (b'data: {"choices": 3}\n\n', "malformed"),
        (b'data: {"choices": [{"delta": {"content": 3}}]}\n\n', "malformed"),
        (event(error={"code": "engine_failed", "message": "m"}), "engine_failed"),
        (event(error="broken"), "internal"),
        (b"data: " + b"x" * (EVENT_BYTES_MAX + 1), "oversized"),
    ],
)
def test_a_stream_that_is_not_whole_is_an_error(tail: bytes, code: str) -> None:
    got: list[str] = []
    with serving(delta("a") + tail) as gateway, pytest.raises(GatewayError) as caught:
        got.extend(gateway.stream_chat(ASK, model="m"))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (402, b"", "insufficient_credit"),
        (429, b"<html>", "rate_limited"),
        (500, b"{}", "internal"),
        (503, b'{"error": {"code": "no_capacity", "message": "all busy"}}', "no_capacity"),
        (400, b'{"error": {"code": "not ours", "message": 3}}', "malformed"),
        (302, b"", "internal"),
    ],
)
def test_refusals_keep_their_code(status: int, body: bytes, code: str) -> None:
    with serving(body, status, **{"retry-after": "2"}) as gateway:
        with pytest.raises(GatewayError) as caught:
            gateway.chat(ASK, model="m")
        assert (caught.value.code, caught.value.status) == (code, status)
        assert caught.value.retry_after_ms == 2_000
        with pytest.raises(GatewayError):
            list(gateway.stream_chat(ASK, model="m"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_an_answer_that_is_none_is_malformed(body: bytes) -> None:
    with serving(body) as gateway, pytest.raises(GatewayError) as caught:
        gateway.chat(ASK, model="m")
    assert caught.value.code == "malformed"


def test_a_gateway_that_cannot_be_reached() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    def silent(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("silent")

    with client(refuse) as gateway, pytest.raises(GatewayError, match="peer_gone"):
        gateway.models()
    with client(silent) as gateway, pytest.raises(GatewayError, match="timeout"):
        gateway.models()


@example(b"data:[DONE]\n\n")
@given(st.binary(max_size=200))
def test_any_bytes_give_text_or_a_gateway_error(data: bytes) -> None:
    with serving(data) as gateway:
        try:
            list(gateway.stream_chat(ASK, model="m"))
        except GatewayError:
            return
    assert b"[DONE]" in data, "a stream that does not say it is whole is an error"
