"""What strangers can do to a gateway by connecting: its memory, and how others are served.

The network of bench/gateway.py: a real coordinator, real nodes and a real gateway, each a process,
over loopback. After each part everything is closed again. Memory is the gateway's resident set,
more than before the part; `served_ms` is the slowest of ten short answers asked meanwhile, each on
a connection of its own.

- idle: connections that send nothing.
- half_heads, half_bodies: connections that each send half a request, its head or its body.
- unread: streams of 2,000 tokens whose client does not read them. `cut_seconds`: until the gateway
  has ended them all.
- large: a body of 100 MB, said to be that long; then one in chunks. The client sends all it can
  before it reads, as most do; `status` is what it then reads.

Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import trio

from assay_simnet.drivers.real import real_network
from gateway import FAST, MESSAGES, Gateway, started

HEAD: Final = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
KINDS: Final = {
    "idle": b"",
    "half_heads": HEAD,
    "half_bodies": HEAD + b"content-type: application/json\r\ncontent-length: 4000\r\n\r\n{",
}
LARGE_BYTES: Final = 100_000_000
SEND_BYTES: Final = 1 << 16
UNREAD_SECONDS_MAX: Final = 120.0
UNREAD_TOKENS: Final = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--unread", type=int, default=64, help="streams nobody reads")
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    args.profile = False
    print(json.dumps(trio.run(measure, args)))


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        async with real_network(Path(temporary)) as network, started(network, args) as gateway:
            await gateway.requests(200)  # warm-up
            figures: dict[str, Any] = {"memory_mb": round(memory(gateway) / 1e6, 1)}
            for kind, sent in KINDS.items():
                figures[kind] = await crowd(gateway, args.connections, sent)
            figures["large"] = [await large(gateway, chunked) for chunked in (False, True)]
            figures["unread"] = await unread(gateway, args.unread)
            return figures


async def crowd(gateway: Gateway, count: int, sent: bytes) -> dict[str, Any]:
    """So many connections that each send `sent` and nothing more."""
    before, began = memory(gateway), time.perf_counter()
    with ExitStack() as stack:
        socks = []
        for number in range(count):
            socks.append(stack.enter_context(connected(gateway)))
            socks[-1].sendall(sent)
            if number % 100 == 0:
                await trio.lowlevel.checkpoint()
        seconds = time.perf_counter() - began
        slowest = await served(gateway)
        grown = memory(gateway) - before
        left = sum(is_open(sock) for sock in socks)
    return {
        "connections": count,
        "still_open": left,
        "seconds": round(seconds, 1),
        "memory_mb": round(grown / 1e6, 1),
        "served_ms": round(slowest * 1e3),
    }


async def unread(gateway: Gateway, count: int) -> dict[str, Any]:
    """Streams that are asked for and not read."""
    before = memory(gateway)
    asked = {"model": "bench", "messages": MESSAGES, "max_tokens": UNREAD_TOKENS, "stream": True}
    body = json.dumps({**asked, "node": gateway.nodes[FAST]}).encode()
    told = HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    with ExitStack() as stack:
        for _ in range(count):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            stack.enter_context(sock).connect(("127.0.0.1", gateway.port))
            sock.sendall(told + body)
        began, sizes = time.perf_counter(), [before]

        async def watch() -> None:
            while True:
                sizes.append(memory(gateway))
                await trio.sleep(0.25)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.sleep(15)  # the buffers are full, and the gateway waits
            slowest = await served(gateway)
            while (left := gateway_connections(gateway)) and (
                time.perf_counter() - began < UNREAD_SECONDS_MAX
            ):
                await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        seconds = time.perf_counter() - began
    return {
        "streams": count,
        "memory_mb": round((max(sizes) - before) / 1e6, 1),
        "served_ms": round(slowest * 1e3),
        "cut_seconds": round(seconds),
        "still_open": left,
    }


async def large(gateway: Gateway, chunked: bool) -> dict[str, Any]:
    """One body of LARGE_BYTES."""
    before = memory(gateway)
    size = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % LARGE_BYTES
    head = HEAD + b"content-type: application/json\r\n" + size + b"\r\n\r\n"
    piece = bytes(SEND_BYTES)
    if chunked:
        piece = b"%x\r\n%b\r\n" % (len(piece), piece)
    sent, data, began = 0, b"", time.perf_counter()
    async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as tcp:
        try:
            await tcp.send_all(head)
            while sent < LARGE_BYTES:
                await tcp.send_all(piece)
                sent += SEND_BYTES
        except trio.BrokenResourceError:
            pass
        try:
            data = bytes(await tcp.receive_some(4_096))
        except trio.BrokenResourceError:
            data = b"HTTP/1.1 cut"
    return {
        "chunked": chunked,
        "status": data[9:12].decode(),
        "sent_mb": round(sent / 1e6),
        "seconds": round(time.perf_counter() - began, 1),
        "memory_mb": round((memory(gateway) - before) / 1e6, 1),
    }


async def served(gateway: Gateway) -> float:
    """Seconds of the slowest of ten short answers."""
    slowest = 0.0
    for _ in range(10):
        began = time.perf_counter()
        await gateway.first()
        slowest = max(slowest, time.perf_counter() - began)
    return slowest


@contextmanager
def connected(gateway: Gateway) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
        yield sock


def is_open(sock: socket.socket) -> bool:
    """Whether the other end has not ended it."""
    sock.setblocking(False)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def gateway_connections(gateway: Gateway) -> int:
    """Clients the gateway has now."""
    return sum(
        connection.status == "ESTABLISHED" and connection.laddr.port == gateway.port
        for connection in gateway.process.net_connections("tcp")
    )


def memory(gateway: Gateway) -> int:
    return int(gateway.process.memory_info().rss)


if __name__ == "__main__":
    main()
