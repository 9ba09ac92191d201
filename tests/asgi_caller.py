"""Calls an ASGI application as a server would: bodies in pieces, clients that leave."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import trio


@dataclass(slots=True)
class Answer:
    """What was sent. `whole`: the application ended it; `pieces` are its body as it came."""

    status_code: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    whole: bool = False

    @property
    def text(self) -> str:
        return b"".join(self.pieces).decode()

    def json(self) -> Any:
        return json.loads(self.text)


class Caller:
    """One client of `app`. Raises what leaves the application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.request("GET", path, **more)

    async def post(self, path: str, **more: Any) -> Answer:
        return await self.request("POST", path, **more)

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | AsyncIterator[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        leave: Callable[[Answer], bool] = lambda answer: False,
        patience: float = math.inf,
    ) -> Answer:
        """`leave`: after which piece the client is gone; `patience`: after how many seconds."""
        if json is not None:
            content = _encoded(json)
            headers = {"content-type": "application/json", **(headers or {})}
        sent = {"host": "127.0.0.1", **(headers or {})}
        parts = urlsplit(path)
        scope = {
            "type": "http",
            "method": method,
            "path": parts.path,
            "query_string": parts.query.encode(),
            "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in sent.items()],
        }
        exchange = _Exchange(content, leave, trio.current_time() + patience)
        await self._app(scope, exchange.receive, exchange.send)
        names = exchange.names
        assert len(set(names)) == len(names), f"a header is told once: {names}"
        return exchange.answer


class _Exchange:
    def __init__(
        self,
        content: bytes | AsyncIterator[bytes],
        leave: Callable[[Answer], bool],
        leaves_at: float,
    ) -> None:
        self.answer = Answer()
        self.names: list[str] = []  # of the headers
        self._leaves_at = leaves_at
        self._content, self._leave = content, leave
        self._asked = False
        self._gone = trio.Event()

    async def receive(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if not self._asked and isinstance(self._content, bytes):
            self._asked = True
            return {"type": "http.request", "body": self._content, "more_body": False}
        if not self._asked and not isinstance(self._content, bytes):
            piece = await anext(self._content, None)
            self._asked = piece is None
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}
        with trio.CancelScope(deadline=self._leaves_at):
            await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.answer.status_code = message["status"]
            told = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message["headers"]]
            self.answer.headers = dict(told)
            self.names = [name for name, _ in told]
            assert len(self.answer.headers) == len(told), "a header is told once"
            return
        if message["body"]:
            self.answer.pieces.append(message["body"])
        if self._leave(self.answer):
            self._gone.set()
        if not message.get("more_body", False):
            self._gone.set()  # as servers do; what they do then must not be cancelled
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            self.answer.whole = True


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()
