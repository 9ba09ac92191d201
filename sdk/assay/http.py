"""A gateway's OpenAI-compatible HTTP, called from the base install.

A gateway is an SDK client in a process of its own: what it gives is trusted as far as the gateway
is. Nothing it sends is believed to be well formed: any answer gives a value or `GatewayError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx

from assay.server_events import EventReader
from assay_protocol.errors import CODES, AssayError

BODY_BYTES_MAX: Final = 8 << 20
RETRY_AFTER_DIGITS_MAX: Final = 6
CONNECT_SECONDS: Final = 10.0
_DONE: Final = "[DONE]"
# What an HTTP status says when the body has no code of ours.
_STATUS_CODES: Final = {
    400: "malformed",
    401: "forbidden",
    402: "insufficient_credit",
    403: "forbidden",
    404: "model_unknown",
    413: "oversized",
    429: "rate_limited",
    503: "busy",
    504: "timeout",
}

Message = Mapping[str, str]


class GatewayError(AssayError):
    """The gateway refused, or answered with something that is not an answer. `status` 0: none."""

    def __init__(
        self, code: str, message: str = "", *, status: int = 0, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(code, message, retry_after_ms=retry_after_ms)
        self.status = status


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A whole answer. Counts are the gateway's, None if it gave none."""

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None


class GatewayClient:
    """Calls one gateway. `base_url` ends where `/v1` would begin or with it; use as a context."""

    def __init__(
        self,
        base_url: str,
        api_key: str = "",
        *,
        timeout_seconds: float = 120.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        root = base_url.rstrip("/").removesuffix("/v1")
        self._http = httpx.Client(
            base_url=f"{root}/v1/",
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
            transport=transport,
        )

    def models(self) -> tuple[str, ...]:
        """The ids of the models the gateway offers."""
        body = self._call("GET", "models", None)
        entries = body.get("data")
        if not isinstance(entries, list):
            raise GatewayError("malformed", "no list of models")
        names = [entry.get("id") if isinstance(entry, dict) else None for entry in entries]
        if not all(isinstance(name, str) for name in names):
            raise GatewayError("malformed", "a model without a name")
        return tuple(str(name) for name in names)

    def chat(self, messages: Sequence[Message], *, model: str, **options: Any) -> ChatAnswer:
        """One whole answer. `options` are the API's own: max_tokens, temperature, top_p, ..."""
        request = {"model": model, "messages": [dict(m) for m in messages], **options}
        body = self._call("POST", "chat/completions", {**request, "stream": False})
        choice = _first_choice(body)
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str):
            raise GatewayError("malformed", "an answer without text")
        usage = body.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        return ChatAnswer(
            text=text,
            finish_reason=str(choice.get("finish_reason") or "stop"),
            prompt_tokens=_count(counts.get("prompt_tokens")),
            completion_tokens=_count(counts.get("completion_tokens")),
        )

    def stream_chat(
        self, messages: Sequence[Message], *, model: str, **options: Any
    ) -> Iterator[str]:
        """The answer's text as it comes. Closing the iterator cancels the job.

        Raises GatewayError if the stream ends without saying that it is whole.
        """
        request = {"model": model, "messages": [dict(m) for m in messages], **options}
        with self._open("POST", "chat/completions", {**request, "stream": True}) as response:
            for event in _events(response):
                if event == _DONE:
                    return
                text = _delta_text(event)
                if text:
                    yield text
        raise GatewayError("peer_gone", "the stream ended before the answer did")

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        with self._open(method, path, body) as response:
            return _json_object(_read_bounded(response))

    @contextmanager
    def _open(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> Iterator[httpx.Response]:
        try:
            with self._http.stream(method, path, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(response)
                yield response
        except httpx.TimeoutException as error:
            raise GatewayError("timeout", "the gateway did not answer in time") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise GatewayError("peer_gone", type(error).__name__) from error


def _events(response: httpx.Response) -> Iterator[str]:
    """The data of each server-sent event."""
    reader = EventReader()
    for part in response.iter_bytes():
        try:
            yield from reader.feed(part)
        except AssayError as error:
            raise GatewayError(error.code, error.message) from error


def _delta_text(event: str) -> str:
    """The text an event adds; raises if the event is an error or is none we know."""
    body = _json_object(event.encode())
    if "error" in body:
        raise _body_error(body, 200)
    choices = body.get("choices")
    if choices == []:
        return ""  # the usage chunk
    delta = _first_choice(body).get("delta")
    text = delta.get("content") if isinstance(delta, dict) else None
    if text is not None and not isinstance(text, str):
        raise GatewayError("malformed", "text that is not text")
    return text or ""


def _refusal(response: httpx.Response) -> GatewayError:
    try:
        body = _json_object(_read_bounded(response))
    except GatewayError:
        body = {}
    return _body_error(body, response.status_code, response.headers.get("retry-after"))


def _body_error(
    body: Mapping[str, Any], status: int, retry_after: str | None = None
) -> GatewayError:
    error = body.get("error")
    error = error if isinstance(error, dict) else {}
    code = error.get("code")
    if not (isinstance(code, str) and code in CODES):
        code = _STATUS_CODES.get(status, "internal")
    detail = error.get("message")
    detail = detail if isinstance(detail, str) else f"HTTP status {status}"
    wait = (
        int(retry_after) * 1_000
        if retry_after
        and len(retry_after) <= RETRY_AFTER_DIGITS_MAX
        and retry_after.isascii()
        and retry_after.isdigit()
        else None
    )
    return GatewayError(code, detail, status=status, retry_after_ms=wait)


def _read_bounded(response: httpx.Response) -> bytes:
    data = bytearray()
    for part in response.iter_bytes():
        data += part
        if len(data) > BODY_BYTES_MAX:
            raise GatewayError("oversized", "the gateway's answer is too large")
    return bytes(data)


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise GatewayError("malformed", "the gateway's answer is not JSON") from error
    if not isinstance(body, dict):
        raise GatewayError("malformed", "the gateway's answer is not a JSON object")
    return body


def _first_choice(body: Mapping[str, Any]) -> dict[str, Any]:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    raise GatewayError("malformed", "an answer without choices")


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
