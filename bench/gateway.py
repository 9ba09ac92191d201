"""What the gateway costs: CPU of its process for a token, a stream and a request, and time added.

A real coordinator, two real nodes and a real gateway, each a process, over libp2p and loopback; the
nodes' engine is scripted: one draws as fast as it can, one a token every 50 ms. This process asks,
with sockets and no HTTP library, so that its own cost is small.

- cpu_us_per_token: CPU time of the gateway's process for 64 answers at once from the fast node,
  over their tokens; the cost of their requests is in it.
- core_share_100_streams: its CPU time for 100 answers at once from the paced node, over the time
  they take at 20 tokens a second each. (On a busy machine they take longer, and no less CPU.)
- ttft_added_ms_p50: from the request to its first token through the gateway, less the same by the
  SDK in this process, median over pairs that take turns.
- memory_growth_mb: resident memory of the gateway after the requests, less that after a tenth.

Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import psutil
import trio

from assay import AsyncClient
from assay_node.app import run_node
from assay_node.config import ENVIRONMENT_PREFIX, Settings, load_settings
from assay_node.engine.interface import Engine
from assay_node.engine.scripted import Script, open_scripted_engine
from assay_node.loading import Prepared
from assay_protocol.cards import ModelCard, encode_card
from assay_simnet.drivers.real import Lines, RealNetwork, real_network

FAST, PACED = "fast", "paced"
PACE_SECONDS: Final = 0.05
SLOTS: Final = 128
POLICY: Final = "probation_audits = 0\naudit_bps_min = 0\ngain_bps = 0\nqueue_per_slot = 8\n"
_COMPLETION: Final = re.compile(rb'"completion_tokens": (\d+)')
READ_BYTES: Final = 1 << 16
MESSAGES: Final = [{"role": "user", "content": "hello"}]
APIS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES}),
    "completions": ("/v1/completions", {"prompt": "hello"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=64, help="at once, from the fast node")
    parser.add_argument("--tokens", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of 100 paced streams")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--api", choices=sorted(APIS), default="chat", help="of the streams")
    parser.add_argument("--profile", action="store_true", help="the gateway's, to profile.out")
    parser.add_argument("--node", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.node:
        serve(float(args.node[0]), dict(flag.split("=", 1) for flag in args.node[1:]))
        return
    print(json.dumps(trio.run(measure, args)))


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        async with real_network(folder) as network, started(network, args) as gateway:
            figures: dict[str, Any] = {}
            await gateway.burst(FAST, 8, 32)  # warm-up
            rounds = [
                await gateway.burst(FAST, args.streams, args.tokens) for _ in range(args.rounds)
            ]
            figures["cpu_us_per_token"] = round(median(cpu / n * 1e6 for cpu, _, n in rounds), 1)
            figures["cpu_us_per_token_all"] = [round(c / n * 1e6, 1) for c, _, n in rounds]
            figures["tokens_per_s"] = round(median(n / wall for _, wall, n in rounds))
            paced = round(args.seconds / PACE_SECONDS)
            cpu, wall, n = await gateway.burst(PACED, 100, paced)
            figures["core_share_100_streams"] = round(cpu / (n / 100 * PACE_SECONDS), 3)
            figures["paced_tokens_per_s"] = round(n / wall)
            figures["cpu_us_per_paced_token"] = round(cpu / n * 1e6, 1)
            figures |= await added(args.pairs, network, gateway)
            figures |= await growth(args.requests, gateway)
            return figures


async def added(pairs: int, network: RealNetwork, gateway: Gateway) -> dict[str, float]:
    """Time to the first token, through the gateway and without it."""
    found: list[float] = []
    direct: list[float] = []
    only = (network.key_of(FAST),)
    async with AsyncClient.connect(network.address) as client:
        model = await client.model()
        prompt = (await model.prompt_of_chat(MESSAGES)).tokens

        async def own() -> float:
            began = time.perf_counter()
            async with client.draw(model, prompt, max_tokens=4, nodes=only) as stream:
                async for _ in stream:
                    return time.perf_counter() - began
            raise AssertionError("no token")

        for turn in range(pairs + 4):
            first, second = (own, gateway.first) if turn % 2 else (gateway.first, own)
            times = {first: await first(), second: await second()}
            if turn >= 4:
                found.append(times[gateway.first] - times[own])
                direct.append(times[own])
    return {
        "ttft_added_ms_p50": round(median(found) * 1e3, 2),
        "ttft_added_ms_p95": round(quantiles(found, n=20)[18] * 1e3, 2),
        "ttft_direct_ms_p50": round(median(direct) * 1e3, 2),
    }


async def growth(requests: int, gateway: Gateway) -> dict[str, float]:
    """Resident memory over many short requests, 16 at once, after a tenth of them as warm-up."""
    await gateway.requests(max(1, requests // 10))
    before = gateway.process.memory_info().rss
    cpu = sum(gateway.process.cpu_times()[:2])
    await gateway.requests(requests)
    grown = gateway.process.memory_info().rss - before
    cpu = sum(gateway.process.cpu_times()[:2]) - cpu
    return {
        "memory_growth_mb": round(grown / 1e6, 1),
        "memory_mb": round(before / 1e6, 1),
        "requests": requests,
        "cpu_ms_per_request": round(cpu / requests * 1e3, 2),
    }


@dataclass
class Gateway:
    """The process under test, as its client sees it."""

    port: int
    process: psutil.Process
    nodes: dict[str, str]
    api: str

    async def burst(self, node: str, streams: int, tokens: int) -> tuple[float, float, int]:
        """CPU seconds of the gateway, wall seconds, and tokens of so many answers at once."""
        counts: list[int] = []

        async def one() -> None:
            last = b""
            async for data in self.ask(node, tokens, stream=True):
                last = data
            counts.append(int(_COMPLETION.findall(last)[-1]))

        cpu, wall = sum(self.process.cpu_times()[:2]), time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(streams):
                nursery.start_soon(one)
        cpu = sum(self.process.cpu_times()[:2]) - cpu
        return cpu, time.perf_counter() - wall, sum(counts)

    async def first(self) -> float:
        """Seconds until the first token's event is here."""
        began, seconds = time.perf_counter(), 0.0
        async for data in self.ask(FAST, 4, stream=True):
            if not seconds and b"data: " in data:
                seconds = time.perf_counter() - began
        return seconds

    async def requests(self, count: int) -> None:
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                async for _ in self.ask(FAST, 2, stream=False):
                    continue

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(some)

    async def ask(self, node: str, tokens: int, *, stream: bool) -> AsyncIterator[bytes]:
        """The bytes of one answer's body as they come, headers and chunk sizes among them."""
        path, question = APIS[self.api if stream else "chat"]
        asked: dict[str, Any] = {
            **question,
            "model": "bench",
            "max_tokens": tokens,
            "node": self.nodes[node],
            "stream": stream,
        }
        if stream:
            asked["stream_options"] = {"include_usage": True}
        body = json.dumps(asked).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as tcp:
            await tcp.send_all(head.encode() + body)
            status = b""
            tail = b""
            while data := await tcp.receive_some(READ_BYTES):
                status = status or data[:12]
                assert status == b"HTTP/1.1 200", data
                tail = (tail + data)[-2_048:] if stream else data
                yield tail if stream else data


@asynccontextmanager
async def started(network: RealNetwork, args: argparse.Namespace) -> AsyncIterator[Gateway]:
    card = network.folder / "bench.card"
    card.write_bytes(encode_card(bench_card()))
    await network.start_coordinator(POLICY, card, 1 << 50)
    for name, pace in ((FAST, 0.0), (PACED, PACE_SECONDS)):
        flags = {
            "coordinator": network.address,
            "data_dir": network.folder / name,
            "listen": "/ip4/127.0.0.1/tcp/0",
            "engine": "scripted",
            "slots": SLOTS,
        }
        words = [f"{key}={value}" for key, value in flags.items()]
        await network.spawn(name, [sys.executable, __file__, "--node", str(pace), *words])
    await network.wait_present([FAST, PACED])
    profiler = ["-m", "cProfile", "-o", "profile.out"] if args.profile else []
    command = [sys.executable, *profiler, "-m", "assay", "gateway", "--listen", "127.0.0.1:0"]
    command += ["--coordinator", network.address, "--key", str(network.folder / "client.key")]
    process = await network.spawn(
        "gateway", [*command, "--data-dir", str(network.folder / "gateway")]
    )
    assert process.stdout is not None
    url = (await Lines(process.stdout).next())["ready"]
    nodes = {name: network.key_of(name).hex() for name in (FAST, PACED)}
    yield Gateway(int(url.rpartition(":")[2]), psutil.Process(process.pid), nodes, args.api)
    for name in (FAST, PACED):  # they would look for their coordinator while it ends
        network.kill(name)


def serve(pace: float, flags: dict[str, str]) -> None:
    """A whole node; its engine never ends an answer by itself."""
    settings = load_settings(
        None, {ENVIRONMENT_PREFIX + k.upper(): v for k, v in flags.items()}, {}
    )

    @asynccontextmanager
    async def engine(settings: Settings, prepared: Prepared) -> AsyncIterator[Engine]:
        script = Script(seconds_per_token=pace, end_bias=-100.0)
        async with open_scripted_engine(
            script, slots=settings.slots, context=settings.context
        ) as opened:
            yield opened

    async def run() -> None:
        await run_node(settings, engine_factory=engine)

    trio.run(run)


def bench_card() -> ModelCard:
    """The scripted model's, with tokens that each have whole characters: an event for each."""
    script = Script()
    letters = range(32, 127)
    pieces = tuple(
        bytes([i]) if i in letters else f" w{i}".encode() if i else b""
        for i in range(script.n_vocab)
    )
    return ModelCard(
        name="bench",
        digest=script.model,
        size_bytes=4096,
        architecture="scripted",
        quantization="none",
        context=2048,
        n_vocab=script.n_vocab,
        bos=None,
        eos=0,
        add_bos=False,
        eog=(0,),
        tokenizer_model="gpt2",
        tokenizer_pre="smollm",
        pieces=pieces,
        token_types=bytes([3, *[1] * (script.n_vocab - 1)]),
        merges=(),
        texts=((0, "<|end|>"),),
        chat_template="{% for m in messages %}{{ m.content }}{% endfor %}",
        license="none",
        source=None,
        price_in=1,
        price_out=1,
    )


if __name__ == "__main__":
    main()
