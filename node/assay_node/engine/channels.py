"""The stream of one job's results, between whoever computes them and whoever awaits them.

Bounded by construction: a job has at most as many chunks as tokens, those of a prompt that is told
of among them, and its channel has room for
all of them, so the engine never waits for a slow consumer and never drops anything.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

from assay_protocol.errors import AssayError

T = TypeVar("T")


class Results(Generic[T]):
    """An async iterator of up to `count` results, ended by `finish` or by `fail`."""

    def __init__(self, count: int) -> None:
        self._send, self._receive = trio.open_memory_channel[T](count)
        self._error: AssayError | None = None

    def put(self, result: T) -> None:
        self._send.send_nowait(result)

    def finish(self) -> None:
        self._send.close()

    def fail(self, error: AssayError) -> None:
        """Raise `error` in the consumer once it has read what came before."""
        self._error = error
        self._send.close()

    def close(self) -> None:
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> Results[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self._error is not None:
                raise self._error from None
            raise StopAsyncIteration from None
