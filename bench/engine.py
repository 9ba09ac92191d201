"""The engine and the whole node, in turns with the servers an owner could run instead.

    python bench/engine.py [--formats Q4_0,F16] [--large Q4_0] [--streams 1,2,4,8,16,32]
                           [--threads 1] [--rounds 3]

n chats at once, each with its own question, 96 greedy tokens each; the same chats to every server,
in turns that rotate. Every server has its model loaded, as many sequences, context and threads.

- node: coordinator, node and this client in processes of their own, over libp2p with tickets and
  receipts. The ticket's time counts.
- engine: our engine's process alone, asked by this one.
- llama-server: HTTP, tokens in. llama-batched-bench: its decode loop without a server (rate only).
- llama-cpp-python's server and mycellm serve one request at a time: at 1 and 8 streams, one round.

Figures: tokens per second of all answers together, prompts' time included; first token p50 and p95
and time between arrivals p99 in ms; resident MB of the server's processes. `bandwidth_share_1` is
the rate of one stream times the file's size, over what one thread reads from memory.

The last line is one JSON object. Its ratios are those of the first format: medians over the rounds
of node / llama-server in the same round. `engine_vs_c_16` is engine / llama-batched-bench at the
same number of prompt tokens. Goals: ratio_1 and ratio_4 >= 1.0, ratio_16 >= 1.1, ttft_ratio_16 <=
0.8, engine_vs_c_16 >= 0.97, mycellm_ttft_ratio_8 <= 0.2.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import trio

from assay.chat_template import ChatTemplate
from assay_node.config import PROFILES
from assay_node.engine.interface import Engine, Generate
from assay_node.engine.library import engines
from assay_node.engine.profiles import Profile
from assay_node.engine.quantize import requantize
from assay_node.engine.supervisor import open_llama_engine
from assay_node.engine.trials import choose
from assay_node.models.card import build_card, file_sha256
from assay_node.models.fetch import TEST_MODEL_PATH
from assay_protocol.cards import encode_card
from assay_simnet.drivers.real import real_network
from rivals import (
    Question,
    Shape,
    batched_bench,
    llama_cpp_python,
    llama_server,
    memory_of,
    mycellm,
)
from shapes import NAME, write_random_model
from streams import GREEDY, Client, Clock, Run, client_of

TOKENS: Final = 96
CONTEXT: Final = 256
SLOW_STREAMS: Final = (1, 8)  # at which those are asked who serve one request at a time
READ_BYTES: Final = 1 << 29
TRIAL_SECONDS_MAX: Final = 900.0  # a node tries a new model out before it serves

Ask = Callable[[list[Question], int], Awaitable[Run]]


@dataclass(frozen=True)
class Contestant:
    name: str
    ask: Ask
    memory: Callable[[], int]
    slow: bool = False


Runs = dict[tuple[str, int], list[Run]]  # by contestant and number of streams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=TEST_MODEL_PATH, help="rewritten per format")
    parser.add_argument("--formats", type=_words, default=["Q4_0", "F16"])
    parser.add_argument("--large", type=_words, default=["Q4_0"], help="of the model of shapes.py")
    parser.add_argument("--streams", type=lambda s: list(map(int, _words(s))), default=_STREAMS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", default="exact", choices=PROFILES, help="the node's")
    parser.add_argument("--no-peers", action="store_true", help="leave the slow ones out")
    options = parser.parse_args()
    tables = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in options.formats:
            file = Path(scratch) / f"{kind}.gguf"
            requantize(options.model, file, kind, threads=options.threads)
            tables[kind] = measured(file, kind, options)
            file.unlink()
        for kind in options.large:
            whole, file = Path(scratch) / "whole.gguf", Path(scratch) / "large.gguf"
            write_random_model(options.model, whole)
            requantize(whole, file, kind, threads=options.threads)
            whole.unlink()
            tables[f"{NAME} {kind}"] = measured(file, f"{NAME} {kind}", options)
            file.unlink()
    head = ratios(next(iter(tables.values())))
    about = {"bench": "engine", "threads": options.threads, "profile": options.profile}
    print(json.dumps(about | head | {"formats": tables}))


def measured(file: Path, title: str, options: argparse.Namespace) -> dict[str, Any]:
    folder = file.with_suffix("")
    folder.mkdir()
    table = trio.run(measure, file, title, profile_of(file, options), folder, options)
    rate = table["rows"]["node"][str(min(options.streams))]["tps"]
    share = rate * file.stat().st_size / read_bandwidth()
    return table | {"bandwidth_share_1": round(share, 3)}


def profile_of(file: Path, options: argparse.Namespace) -> Profile:
    """What a node chooses on this machine."""
    return choose(
        file, file_sha256(file), options.profile, threads=options.threads, directory=engines()
    )


async def measure(
    file: Path, title: str, profile: Profile, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """The table of one format: a row by contestant and number of streams."""
    shape = Shape(file, max(options.streams), CONTEXT, options.threads, profile)
    card = build_card(file, name="bench", price_in=1, price_out=1)
    (folder / "bench.card").write_bytes(encode_card(card))
    asked = questions(ChatTemplate(card))
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        contestants = [
            await enter(our_node(folder, shape, options.profile)),
            await enter(our_engine(shape)),
            *[await enter(one) for one in rivals(shape, slow=not options.no_peers)],
        ]
        for one in contestants:  # warm: connections, pages of the file, allocations
            await one.ask([next(asked)], 8)
        runs = await take_turns(contestants, options.streams, options.rounds, asked)
        memory = {one.name: one.memory() for one in contestants}
    prompt = len(next(asked).tokens)
    c = batched_bench(shape, options.streams, prompt, TOKENS)
    table = rows(runs, memory) | {"llama-batched-bench": {str(n): {"tps": r} for n, r in c.items()}}
    show(title, table)
    used = f"{profile.road} {profile.library or 'wheel'} {profile.variant}".strip()
    return {"library": used, "rows": table, "runs": paired(runs)}


async def take_turns(
    contestants: list[Contestant], streams: list[int], rounds: int, asked: Any
) -> Runs:
    runs: Runs = defaultdict(list)
    for count in streams:
        for number in range(rounds):
            chats = [next(asked) for _ in range(count)]
            turn = number % len(contestants)
            for one in contestants[turn:] + contestants[:turn]:
                if one.slow and (number > 0 or count not in SLOW_STREAMS):
                    continue
                with trio.fail_after(600):
                    runs[one.name, count].append(await one.ask(chats, TOKENS))
    return runs


# ---- who is asked ----


@asynccontextmanager
async def our_node(folder: Path, shape: Shape, profile: str) -> AsyncIterator[Contestant]:
    limits = {"slots": shape.streams, "context": shape.context, "threads": shape.threads}
    async with real_network(folder) as network:
        await network.start_coordinator("queue_per_slot = 8\n", folder / "bench.card", 1 << 40)
        card = folder / "bench.card"
        await network.start_node("node", card, shape.model, profile=profile, **limits)
        await network.wait_present(["node"], TRIAL_SECONDS_MAX)
        async with client_of(network) as client:
            memory = partial(memory_of, network.processes["node"].pid)
            yield Contestant("node", partial(ask_node, client), memory)


async def ask_node(client: Client, questions: list[Question], tokens: int) -> Run:
    return await client.run([one.tokens for one in questions], tokens, tickets_first=False)


@asynccontextmanager
async def our_engine(shape: Shape) -> AsyncIterator[Contestant]:
    async with open_llama_engine(
        shape.model,
        bytes(32),
        slots=shape.streams,
        context=shape.context,
        threads=shape.threads,
        profile=shape.profile,
    ) as engine:
        yield Contestant("engine", partial(ask_engine, engine), lambda: 0)


async def ask_engine(engine: Engine, questions: list[Question], tokens: int) -> Run:
    clock = Clock()

    async def one(number: int, question: Question) -> None:
        clock.opened(number)
        request = Generate(question.tokens, 0, tokens, GREEDY, bytes(32))
        async with engine.generate(request) as chunks:
            async for chunk in chunks:
                clock.arrived(number, len(chunk.tokens))

    async with trio.open_nursery() as nursery:
        for number, question in enumerate(questions):
            nursery.start_soon(one, number, question)
    return clock.run()


def rivals(shape: Shape, *, slow: bool) -> list[Any]:
    found = [_rival(llama_server(shape), slow=False)]
    if slow:
        found += [_rival(llama_cpp_python(shape), slow=True), _rival(mycellm(shape), slow=True)]
    return found


@asynccontextmanager
async def _rival(scope: Any, *, slow: bool) -> AsyncIterator[Contestant]:
    async with scope as rival:
        yield Contestant(rival.name, rival.run, lambda: rival.memory, slow)


def questions(template: ChatTemplate) -> Any:
    """Chats of one length whose answers are long, for ever; no two alike."""
    number = 0
    while True:
        number += 1
        text = f"Write a long story about {number:05} lighthouse keepers and a whale."
        yield Question(template.render([{"role": "user", "content": text}]), text)


# ---- figures ----


def rows(runs: Runs, memory: dict[str, int]) -> dict[str, dict[str, dict[str, float]]]:
    table: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for (name, count), found in runs.items():
        table[name][str(count)] = {
            "tps": round(median(run.rate for run in found), 1),
            "ttft_p50_ms": round(median(run.first_p50 for run in found) * 1e3, 1),
            "ttft_p95_ms": round(median(run.first_p95 for run in found) * 1e3, 1),
            "gap_p99_ms": round(median(run.gap_p99 for run in found) * 1e3, 1),
            "tokens": found[0].tokens,
            "rss_mb": round(memory[name] / 1e6),
        }
    return dict(table)


def paired(runs: Runs) -> dict[str, dict[str, float]]:
    """Node over llama-server, in the same round: medians of rate and of first token."""
    found = {}
    for count in sorted({count for _, count in runs}):
        pairs = list(zip(runs["node", count], runs["llama-server", count], strict=True))
        found[str(count)] = {
            "ratio": round(median(ours.rate / its.rate for ours, its in pairs), 3),
            "ttft_ratio": round(median(ours.first_p50 / its.first_p50 for ours, its in pairs), 3),
        }
    return found


def ratios(table: dict[str, Any]) -> dict[str, float]:
    """The figures with a goal, as far as these streams and servers were asked for."""
    pairs, by_name, head = table["runs"], table["rows"], {}
    for count in ("1", "4", "16"):
        if count in pairs:
            head[f"ratio_{count}"] = pairs[count]["ratio"]
    if "16" in pairs:
        head["ttft_ratio_16"] = pairs["16"]["ttft_ratio"]
        c = by_name["llama-batched-bench"]["16"]["tps"]
        head["engine_vs_c_16"] = round(by_name["engine"]["16"]["tps"] / c, 3)
    if "8" in by_name.get("mycellm", {}):
        its = by_name["mycellm"]["8"]["ttft_p50_ms"]
        head["mycellm_ttft_ratio_8"] = round(by_name["node"]["8"]["ttft_p50_ms"] / its, 3)
    return head


def show(title: str, table: dict[str, dict[str, dict[str, float]]]) -> None:
    print(f"{title:22}{'streams':>8}{'tok/s':>9}{'TTFT p50':>10}{'p95':>9}{'gap p99':>9}{'MB':>7}")
    for name, by_count in table.items():
        for count, row in by_count.items():
            cells = [row.get(key, float("nan")) for key in ("ttft_p50_ms", "ttft_p95_ms")]
            cells += [row.get("gap_p99_ms", float("nan")), row.get("rss_mb", float("nan"))]
            shown = f"{cells[0]:10.0f}{cells[1]:9.0f}{cells[2]:9.1f}{cells[3]:7.0f}"
            print(f"{name:22}{count:>8}{row['tps']:9.1f}{shown}", flush=True)


def read_bandwidth() -> float:
    """Bytes per second one thread reads from memory: the best of five sums of 512 MB."""
    page = np.ones(READ_BYTES // 8, np.int64)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        page.sum()
        seconds.append(time.perf_counter() - began)
    return READ_BYTES / min(seconds)


_STREAMS: Final = [1, 2, 4, 8, 16, 32]


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


if __name__ == "__main__":
    main()
