"""What a call and a token frame cost: fast muxer, stock muxer and plain trio TCP, in one run.

Both ends run in this process, so the figures are CPU time of client and server together. The last
line is one JSON object. Run: python bench/frames.py [calls] [frames]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import trio

from assay_network.frames import EndOfFrames, Frames
from assay_network.host import open_host
from assay_network.session import OnFrame, Session, open_session, serve_sessions

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
CALL = bytes(200)
TOKEN = bytes(20)
Measured = dict[str, float]


async def serve_calls(peer: bytes, frames: Frames) -> None:
    await frames.send(await frames.receive(10.0))


async def serve_tokens(peer: bytes, frames: Frames) -> None:
    for _ in range(int.from_bytes(await frames.receive(10.0), "big")):
        await frames.send(TOKEN)
        await trio.lowlevel.checkpoint()


async def cpu_us(times: int, work: Callable[[], Awaitable[None]]) -> float:
    """CPU microseconds of `work`, divided by `times`."""
    start = time.process_time()
    await work()
    return round((time.process_time() - start) / times * 1e6, 1)


async def measure_libp2p(muxer: Literal["fast", "stock"], calls: int, tokens: int) -> Measured:
    async with (
        open_host(bytes(31) + b"\x01", [LOOPBACK], muxer=muxer) as server,
        open_host(bytes(31) + b"\x02", muxer=muxer) as client,
    ):
        key = server.public_key
        server.serve("/call", serve_calls)
        server.serve("/tokens", serve_tokens)
        serve_sessions(server, "/session", lambda session: _reply, lambda session: None)
        await client.dial(key, server.addresses)

        async def call() -> None:
            for _ in range(calls):
                await client.call(key, "/call", CALL)

        async def stream() -> None:
            async with client.open(key, "/tokens", tokens.to_bytes(4, "big")) as frames:
                try:
                    while True:
                        await frames.receive()
                except EndOfFrames:
                    return

        await call()  # warm up
        measured = {"call_us": await cpu_us(calls, call)}
        measured["token_frame_us"] = await cpu_us(tokens, stream)
        ignore: OnFrame = lambda session, request_id, body: None  # noqa: E731 - one word
        async with open_session(client, key, (), "/session", ignore) as session:

            async def request() -> None:
                for _ in range(calls):
                    await session.request(CALL)

            measured["session_request_us"] = await cpu_us(calls, request)
    return measured


def _reply(session: Session, request_id: int, body: bytes) -> None:
    session.reply(request_id, body)


@asynccontextmanager
async def plain_tcp(
    handler: Callable[[trio.SocketStream], Awaitable[None]],
) -> AsyncIterator[trio.SocketStream]:
    """A connection to `handler`, with nothing in between."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            yield stream
        nursery.cancel_scope.cancel()


async def measure_tcp(calls: int, tokens: int) -> Measured:
    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def pour(stream: trio.SocketStream) -> None:
        for _ in range(tokens):
            await stream.send_all(TOKEN)
            await trio.lowlevel.checkpoint()
        await stream.send_eof()

    async with plain_tcp(echo) as stream:

        async def call() -> None:
            for _ in range(calls):
                await stream.send_all(CALL)
                await stream.receive_some()

        call_us = await cpu_us(calls, call)
    start = time.process_time()
    async with plain_tcp(pour) as stream:
        async for _ in stream:
            continue
    frame_us = round((time.process_time() - start) / tokens * 1e6, 1)
    return {"call_us": call_us, "token_frame_us": frame_us}


async def main(calls: int, tokens: int) -> None:
    results = {
        "fast": await measure_libp2p("fast", calls, tokens),
        "stock": await measure_libp2p("stock", calls, tokens),
        "tcp": await measure_tcp(calls, tokens),
    }
    for name, measured in results.items():
        print(f"{name:6}", "  ".join(f"{key} {value:8.1f}" for key, value in measured.items()))
    print(json.dumps({"bench": "frames", "calls": calls, "frames": tokens, "cpu_us": results}))


if __name__ == "__main__":
    sizes = [int(word) for word in sys.argv[1:3]]
    trio.run(main, *(sizes + [500, 3000][len(sizes) :]))
