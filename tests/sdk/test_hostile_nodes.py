"""What nodes and gateways may not do to a client that has finished with them."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import httpx
import pytest
import trio

from assay import Client
from assay.cli import printable
from assay.http import GatewayClient, GatewayError
from assay.job_run import LAST_FRAMES_SECONDS, _Stream
from assay.server_events import EVENT_LINES_MAX
from assay_protocol.errors import AssayError


class NeverReads:
    """Frames to a node that grants no window."""

    async def send(self, frame: bytes) -> None:
        await trio.sleep_forever()

    async def finish(self) -> None:
        raise AssertionError("the frame before is still waiting")


async def test_a_node_that_reads_no_acknowledgement_keeps_no_task(autojump_clock: object) -> None:
    stream, frames = _Stream(), NeverReads()
    stream.send(b"the last acknowledgement")
    with trio.fail_after(2 * LAST_FRAMES_SECONDS):
        with stream.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.carry, frames, nursery.cancel_scope)
                stream.close(clean=True)
    assert stream.scope.cancelled_caught


def test_a_call_while_the_client_closes_is_refused_and_does_not_hang() -> None:
    """Its nursery is gone, its thread still flushes."""
    closed: Future[Any] = Future()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            client = Client.__new__(Client)
            client._thread = threading.current_thread()
            client._nursery, client._token = nursery, trio.lowlevel.current_trio_token()

        async def never() -> None:
            raise AssertionError("nothing may start")

        def call() -> None:
            try:
                client._call(never)
            except AssayError as error:
                closed.set_result(error.code)

        with trio.fail_after(20):
            thread = threading.Thread(target=call, daemon=True)
            thread.start()
            while thread.is_alive():
                await trio.sleep(0.001)

    trio.run(main)
    assert closed.result(0) == "cancelled"


def gateway(status: int, content: bytes, **headers: str) -> GatewayClient:
    answer = httpx.Response(status, content=content, headers=headers)
    return GatewayClient("http://gateway", transport=httpx.MockTransport(lambda _: answer))


def test_a_wait_of_thousands_of_digits_is_no_wait() -> None:
    with gateway(503, b"{}", **{"retry-after": "9" * 5_000}) as client:
        with pytest.raises(GatewayError) as caught:
            client.models()
    assert caught.value.retry_after_ms is None


def test_an_event_of_empty_lines_does_not_fill_the_memory() -> None:
    with gateway(200, b"data:\n" * (EVENT_LINES_MAX + 1)) as client:
        with pytest.raises(GatewayError, match="oversized"):
            list(client.stream_chat([{"role": "user", "content": "x"}], model="m"))


def test_what_a_peer_writes_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b]52;c;cm0=\x07b\r\x9b2Jc\td\ne") == "a]52;c;cm0=b2Jc\td\ne"
    assert printable("naïve 日本 👩‍👩‍👧") == "naïve 日本 👩‍👩‍👧"
