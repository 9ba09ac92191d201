"""One HTTP answer as server-sent events: begun with its first event, kept alive, cancelled at once.

The status line waits for the first event, so what fails before it gets a status of its own. A
silent stream gets a comment now and then. When the client leaves, everything that draws for it is
cancelled; so is an answer that takes longer than it may. A client that does not read holds the
drawing back and, after UNREAD_SECONDS of the server's, is cut off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import trio

from assay.gateway.refusal import Refusal
from assay_network.scopes import single_errors

KEEP_ALIVE: Final = b": keep-alive\n\n"
_HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class EventStream:
    """The client's end of one answer: `send` whole events."""

    def __init__(self, send: Send) -> None:
        self.begun = False
        self._send = send
        self._headers = dict(_HEADERS)
        self._silent = True

    def header(self, name: str, value: str) -> None:
        """What header `name` (lower case) says; after the first event it is too late, and nothing
        changes."""
        self._headers[name] = value

    async def send(self, events: bytes) -> None:
        self._silent = False
        if not self.begun:
            self.begun = True
            told = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in self._headers.items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": told})
        await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def finish(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def keep_alive(self, seconds: float) -> None:
        """A comment whenever nothing was sent for so long; until cancelled."""
        while True:
            self._silent = True
            await trio.sleep(seconds)
            if self._silent:
                await self.send(KEEP_ALIVE)


async def serve_events(
    receive: Receive,
    send: Send,
    write: Callable[[EventStream], Awaitable[None]],
    failed: Callable[[Refusal], bytes],
    *,
    keep_alive: float,
    headers: Mapping[str, str],
) -> None:
    """Answer with what `write` sends. A Refusal before the first event is raised; after it, it is
    told in the stream, in the words of `failed`."""
    stream = EventStream(send)
    for name, value in headers.items():
        stream.header(name, value)
    written = False
    with single_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
            nursery.start_soon(stream.keep_alive, keep_alive)
            try:
                await write(stream)
            except Refusal as refusal:
                if not stream.begun:
                    raise
                await stream.send(failed(refusal))
            written = True
            nursery.cancel_scope.cancel()
    # Nobody watches any more: a server tells of the end as if the client had left, and a
    # cancellation then would keep it from making the connection free again.
    if written:
        await stream.finish()


async def until_gone(receive: Receive, work: Callable[[], Awaitable[Any]]) -> Any:
    """What `work` returns; None if the client leaves before, and `work` is then cancelled."""
    found: Any = None
    with single_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
            found = await work()
            nursery.cancel_scope.cancel()
    return found


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    scope.cancel()
