"""Requests' bodies, each gathered whole before its request takes one of the gateway's places.

So a client that sends half a body, and thousands of them, keep nobody from being answered: what
they hold is a connection (http_server.py cuts the oldest when it needs one) and bytes, of which all
unfinished and unanswered bodies together have BODIES_BYTES_MAX. Beyond that a large body is refused
as "busy"; small ones, which chats are, need no share of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from assay.gateway.event_stream import Receive
from assay.gateway.exchange import Gone, header
from assay.gateway.refusal import Refusal
from assay_network.frames import ByteBudget

BODIES_BYTES_MAX: Final = 64 << 20  # of all requests together, beyond UNSHARED_BYTES_MAX of each
UNSHARED_BYTES_MAX: Final = 8_192
LENGTH_DIGITS_MAX: Final = 20


class Bodies:
    """`bytes_max` and `seconds` are what one body may have."""

    def __init__(self, bytes_max: int, seconds: float) -> None:
        self._most, self._seconds = bytes_max, seconds
        self._budget = ByteBudget(max(BODIES_BYTES_MAX, bytes_max))

    @asynccontextmanager
    async def gathered(self, scope: Any, receive: Receive) -> AsyncIterator[Receive]:
        """A `receive` that gives the body in one piece; its bytes count until this is left.

        Raises Refusal: too large, too slow, too much at once. Gone if the client left.
        """
        taken = _Taken(self._budget)
        try:
            body = await self._read(scope, receive, taken)
            told = False

            async def again() -> Any:
                nonlocal told
                if told:
                    return await receive()
                told = True
                return {"type": "http.request", "body": body, "more_body": False}

            yield again
        finally:
            taken.give_back()

    async def _read(self, scope: Any, receive: Receive, taken: _Taken) -> bytes:
        if announced_bytes(scope) > self._most:
            raise self._too_large()  # before it is sent, to who waits to be told (100-continue)
        data = bytearray()
        with trio.move_on_after(self._seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                data += message.get("body", b"")
                if len(data) > self._most:
                    raise self._too_large()
                taken.cover(len(data))
                if not message.get("more_body", False):
                    return bytes(data)
        raise Refusal(408, "timeout", "the body did not arrive in time")

    def _too_large(self) -> Refusal:
        return Refusal(413, "request_too_large", f"a body has at most {self._most} bytes")


def announced_bytes(scope: Any) -> int:
    """What the request's head says of its body; 0 where it does not say."""
    said = header(scope, b"content-length")
    return int(said) if said.isdecimal() and len(said) <= LENGTH_DIGITS_MAX else 0


class _Taken:
    """One body's share of what all may hold."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget, self._count = budget, 0

    def cover(self, size: int) -> None:
        """Have a share for `size` bytes; AssayError("busy")."""
        if (more := size - UNSHARED_BYTES_MAX - self._count) > 0:
            self._budget.take(more)
            self._count += more

    def give_back(self) -> None:
        self._budget.give_back(self._count)
        self._count = 0
