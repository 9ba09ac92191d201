"""A small HTTP server that computes like the scripted engine, and misbehaves as it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import trio

from assay_node.engine.scripted import ScriptedEngine
from assay_protocol.adjustments import logprobs_of

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@dataclass
class FakeServer:
    """`mode` is what it does with the next requests; `asked` are the bodies it got."""

    engine: ScriptedEngine
    mode: str = "llama"
    url: str = ""
    props: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    closed: trio.Event = field(default_factory=trio.Event)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Requests of one connection, one after the other."""
        data = b""
        with trio.CancelScope():
            while True:
                while b"\r\n\r\n" not in data:
                    more = await stream.receive_some(65_536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                lines = head.decode().lower().split("\r\n")
                named = dict(line.split(": ", 1) for line in lines[1:])
                size = int(named.get("content-length", "0"))
                while len(data) < size:
                    data += await stream.receive_some(65_536)
                body, data = json.loads(data[:size] or b"{}"), data[size:]
                self.authorizations.append(named.get("authorization", ""))
                self.asked.append(body)
                if not await self._answer(stream, lines[0].split()[1], body):
                    return

    async def _answer(self, stream: trio.SocketStream, path: str, body: dict[str, Any]) -> bool:
        """Whether the connection stays open."""
        sized = b"content-length: %d\r\n\r\n"
        match self.mode:
            case "hang":
                await stream.receive_some(1)
                self.closed.set()
                return False
            case "cut":
                await stream.send_all(HEAD + sized % 5_000 + b'{"completion_proba')
                return False
            case "garbage":
                await stream.send_all(b"\x00\xff\x16\x03" * 500)
                return False
            case "huge line":
                await stream.send_all(HEAD + b"x-line: " + b"x" * 2_000_000 + b"\r\n")
                return False
            case "huge":
                await stream.send_all(HEAD + sized % (1 << 40))
                piece = b"[" * 65_536
                for _ in range(1_000):
                    await stream.send_all(piece)
                return False
            case "429" | "503" | "401" | "500":
                retry = b"retry-after: 7\r\ncontent-length: 0\r\n\r\n"
                await stream.send_all(b"HTTP/1.1 " + self.mode.encode() + b" No\r\n" + retry)
                return True
        if path == "/props":
            text = json.dumps(self.props).encode()
            await stream.send_all(HEAD + sized % len(text) + text)
            return True
        if path.endswith("completion") == (self.mode == "vllm"):
            await stream.send_all(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")
            return True
        text = json.dumps(self._body(body)).encode()
        await stream.send_all(HEAD + sized % len(text) + text)
        return True

    def _body(self, body: dict[str, Any]) -> Any:
        pairs = self._ranked(body["prompt"], body.get("n_probs") or body.get("logprobs"))
        match self.mode:
            case "vllm":
                top = {f"token_id:{token}": value for token, value in pairs}
                return {"choices": [{"text": "?", "logprobs": {"top_logprobs": [top]}}]}
            case "text only":
                return {"completion_probabilities": [{"token": "a", "logprob": -0.1}]}
            case "deep":
                return {"completion_probabilities": [[[[[[[[]]]]]]]]}
            case "wrong ids":
                pairs = [(token + 100_000, value) for token, value in pairs]
            case "raw logits":
                pairs = [(token, value + 30) for token, value in pairs]
            case "too few":
                pairs = pairs[:1]
        listed = [{"id": token, "token": "?", "logprob": value} for token, value in pairs]
        return {"completion_probabilities": [{"id": listed[0]["id"], "top_logprobs": listed}]}

    def _ranked(self, prompt: list[int], count: int) -> list[tuple[int, float]]:
        row = self.engine.logits(prompt)
        order = np.argsort(-row, kind="stable")[:count].tolist()
        values = logprobs_of(np.stack([row] * len(order)), order).tolist()
        return list(zip(order, values, strict=True))


@asynccontextmanager
async def open_fake_server(engine: ScriptedEngine) -> AsyncIterator[FakeServer]:
    fake = FakeServer(engine)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await fake.serve(stream)
        except trio.BrokenResourceError:
            fake.closed.set()

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        fake.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield fake
        nursery.cancel_scope.cancel()
