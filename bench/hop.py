"""What the libp2p hop costs: the same engine, called in its node's process and over the network.

A real coordinator and a real node (llama.cpp, one thread) in processes of their own; this process
is the client. The node's process also drives its own engine directly when told to. Direct and
network runs take turns, with the same greedy prompts:

- ttft_added_ms_p50: time from opening the job stream to the first token frame, less the time from
  `engine.generate` to its first chunk, median over the pairs. The ticket is fetched before.
- throughput_loss_pct: tokens per second of 8 answers at once, network against direct, median over
  the pairs, in percent of the direct rate.

Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import trio

from assay.chat_template import ChatTemplate
from assay_node.app import run_node
from assay_node.config import Settings, load_settings
from assay_node.engine.interface import Engine, Generate
from assay_node.loading import Prepared, open_engine
from assay_node.models.card import build_card
from assay_node.models.fetch import fetch_test_model
from assay_protocol.cards import ModelCard, encode_card
from assay_simnet.drivers.real import Lines, RealNetwork, real_network
from streams import GREEDY, Client, Clock, Run, client_of

STREAMS = 8
NODE = "node-a"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40, help="of single answers")
    parser.add_argument("--rounds", type=int, default=6, help="of 8 answers at once")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--node", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.node:
        trio.run(serve, dict(flag.split("=", 1) for flag in args.node))
        return
    print(json.dumps(trio.run(measure, args)))


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    model = fetch_test_model()
    made = build_card(model, name="bench", price_in=1, price_out=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        card = folder / "bench.card"
        card.write_bytes(encode_card(made))
        async with real_network(folder) as network, start(network, card, model) as direct:
            async with client_of(network) as client:
                return await compare(args, made, client, direct)


async def compare(
    args: argparse.Namespace, card: ModelCard, client: Client, direct: Direct
) -> dict[str, Any]:
    # A prompt asked twice is answered from the cache: no two runs share one.
    prompts = iter(prompts_of(card, 2 * (args.pairs + STREAMS * (args.rounds + 2))))

    async def turn(streams: int, tokens: int) -> tuple[Run, Run]:
        over, own = ([next(prompts) for _ in range(streams)] for _ in range(2))
        return await pair(client, direct, over, own, tokens)

    await turn(STREAMS, args.tokens)  # warm-up
    singles = [await turn(1, 4) for _ in range(args.pairs)]
    added = [hop.first[0] - own.first[0] for hop, own in singles]
    await turn(STREAMS, args.tokens)
    loads = [await turn(STREAMS, args.tokens) for _ in range(args.rounds)]
    rates = [(hop.rate, own.rate) for hop, own in loads]
    losses = [100 * (1 - hop / own) for hop, own in rates]
    return {
        "ttft_added_ms_p50": round(median(added) * 1e3, 2),
        "ttft_added_ms_p95": round(quantiles(added, n=20)[18] * 1e3, 2),
        "ttft_direct_ms_p50": round(median(own.first[0] for _, own in singles) * 1e3, 2),
        "throughput_loss_pct": round(median(losses), 2),
        "throughput_loss_pct_all": [round(loss, 2) for loss in losses],
        "tokens_per_s": round(median(hop for hop, _ in rates), 1),
        "tokens_per_s_direct": round(median(own for _, own in rates), 1),
        "streams": STREAMS,
    }


async def pair(
    client: Client,
    direct: Direct,
    over: list[tuple[int, ...]],
    own: list[tuple[int, ...]],
    tokens: int,
) -> tuple[Run, Run]:
    """One run over the network and one direct; which goes first alternates."""
    direct.turn = not direct.turn
    if direct.turn:
        first = await direct.run(own, tokens)
        return await client.run(over, tokens, tickets_first=True), first
    hop = await client.run(over, tokens, tickets_first=True)
    return hop, await direct.run(own, tokens)


# ---- in the node's process ----


@dataclass
class Direct:
    """The node's process, asked to call its engine itself."""

    stdin: trio.abc.SendStream
    lines: Lines
    turn: bool = False

    async def run(self, prompts: list[tuple[int, ...]], tokens: int) -> Run:
        await self.stdin.send_all(json.dumps([prompts, tokens]).encode() + b"\n")
        with trio.fail_after(120):
            return Run(**await self.lines.next())


@asynccontextmanager
async def start(network: RealNetwork, card: Path, model: Path) -> AsyncIterator[Direct]:
    await network.start_coordinator("queue_per_slot = 8\n", card, 1 << 40)
    flags = network._node_flags(NODE, card, model)
    words = [f"{key}={value}" for key, value in flags.items()]
    command = [sys.executable, __file__, "--node", *words, f"slots={STREAMS}"]
    process = await network.spawn(NODE, command, stdin=subprocess.PIPE)
    await network.wait_present([NODE])
    assert process.stdin is not None
    assert process.stdout is not None
    yield Direct(process.stdin, Lines(process.stdout))


async def serve(flags: dict[str, str]) -> None:
    """A whole node, which also answers `Direct` on stdin."""
    numbers = {name: int(flags[name]) for name in ("slots", "threads")}
    values: dict[str, object] = {**flags, **numbers, "listen": [flags["listen"]]}
    settings = load_settings(None, {}, values)
    async with trio.open_nursery() as nursery:

        @asynccontextmanager
        async def watched(settings: Settings, prepared: Prepared) -> AsyncIterator[Engine]:
            async with open_engine(settings, prepared) as engine:
                nursery.start_soon(obey, engine)
                yield engine

        await partial(run_node, settings, engine_factory=watched)()
        nursery.cancel_scope.cancel()


async def obey(engine: Engine) -> None:
    buffer, source = b"", trio.lowlevel.FdStream(0)
    while chunk := await source.receive_some(1 << 20):
        buffer += chunk
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            prompts, tokens = json.loads(line)
            print(json.dumps(asdict(await run_direct(engine, prompts, tokens))), flush=True)


async def run_direct(engine: Engine, prompts: list[list[int]], tokens: int) -> Run:
    clock = Clock()

    async def one(number: int, prompt: list[int]) -> None:
        clock.opened(number)
        request = Generate(tuple(prompt), 0, tokens, GREEDY, bytes(32))
        async with engine.generate(request) as chunks:
            async for chunk in chunks:
                clock.arrived(number, len(chunk.tokens))

    async with trio.open_nursery() as nursery:
        for number, prompt in enumerate(prompts):
            nursery.start_soon(one, number, prompt)
    return clock.run()


def prompts_of(card: ModelCard, count: int) -> list[tuple[int, ...]]:
    """Chats of one length that differ from the first word of the question on."""
    template = ChatTemplate(card)
    asked = [f"{i:04} times I asked: tell me a long story of the sea." for i in range(count)]
    return [template.render([{"role": "user", "content": text}]) for text in asked]


if __name__ == "__main__":
    main()
