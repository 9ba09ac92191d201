"""A real HTTP server on loopback that answers by a script: well, badly, late, in half."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

CUT = b""  # as a piece: the connection ends here, in the middle of the answer


@dataclass(frozen=True, slots=True)
class Reply:
    """`pieces` are sent one by one; a number is a pause in seconds. `raw`: they are all that is
    sent, head and framing among them."""

    status: int = 200
    pieces: Iterable[bytes | float] = ()
    headers: dict[str, str] = field(default_factory=dict)
    raw: bool = False


@dataclass(slots=True)
class Script:
    """Replies in turn, the last one again and again; and what was asked."""

    url: str
    replies: list[Reply] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0  # connections that the gateway ended before the answer was sent
    sent: int = 0  # bytes of answers that were taken

    async def serve(self, stream: trio.SocketStream) -> None:
        head, rest = await _head(stream)
        size = int(head.lower().split("content-length:")[1].split("\r\n")[0])
        while len(rest) < size:
            rest += await stream.receive_some()
        self.paths.append(head.split(" ")[1])
        self.heads.append(head)
        self.bodies.append(json.loads(rest))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        try:
            await self._answer(stream, reply)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.left += 1
        await stream.aclose()

    async def _answer(self, stream: trio.SocketStream, reply: Reply) -> None:
        told = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        head = f"HTTP/1.1 {reply.status} X\r\ntransfer-encoding: chunked\r\n{told}\r\n".encode()
        begun = reply.raw
        for piece in reply.pieces:
            if isinstance(piece, float):
                await trio.sleep(piece)
                continue
            if not begun:
                begun = True
                await stream.send_all(head)
            if piece == CUT:
                return
            framed = piece if reply.raw else f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
            await stream.send_all(framed)
            self.sent += len(piece)
        if not reply.raw:
            await stream.send_all((b"" if begun else head) + b"0\r\n\r\n")


async def _head(stream: trio.SocketStream) -> tuple[str, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some()
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode() + "\r\n", rest


@asynccontextmanager
async def scripted_upstream(*replies: Reply) -> AsyncIterator[Script]:
    """A server of these replies."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        script = Script(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1", list(replies))
        nursery.start_soon(trio.serve_listeners, script.serve, [listener])
        yield script
        nursery.cancel_scope.cancel()


def whole(text: str = "from afar") -> Reply:
    """A whole chat answer of 7 + 5 tokens."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "closed-1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }
    return Reply(pieces=(json.dumps(body).encode(),))


def event(body: object) -> bytes:
    return b"data: " + (body if isinstance(body, bytes) else json.dumps(body).encode()) + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return event({"object": "chat.completion.chunk", "model": "closed-1", "choices": [choice]})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}})
DONE = event(b"[DONE]")
