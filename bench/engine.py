"""Tokens per second of the llama.cpp engine: in this process, and through the supervisor.

    python bench/engine.py [MODEL.gguf] [--threads 1] [--tokens 64] [--rounds 3]

n prompts of 40 tokens at once, `tokens` tokens each, the prompts' time included; the best of
`rounds`, which alternate. The last line is one JSON object; `cost` is the share of the rate lost
to the second process and its pipe, and node_us_per_token the processor time the node's side of
the pipe takes (the figure to trust on a busy machine).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Final

import trio

from assay_node.engine.interface import Chunk, Engine, Generate
from assay_node.engine.loop import DecodeLoop
from assay_node.engine.supervisor import open_llama_engine
from assay_node.models.fetch import TEST_MODEL_PATH
from assay_protocol.messages import Sampler

SEQUENCES: Final = (1, 4, 8)
PROMPT_TOKENS: Final = 40
CONTEXT: Final = 512


SAMPLER = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=TEST_MODEL_PATH)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    alone, served = dict.fromkeys(SEQUENCES, 0.0), dict.fromkeys(SEQUENCES, 0.0)
    for _ in range(options.rounds):
        keep_best(alone, in_process(options.model, options.threads, options.tokens))
        rates, node_us = trio.run(supervised, options.model, options.threads, options.tokens)
        keep_best(served, rates)
    figures = {
        str(count): {
            "in_process": round(alone[count], 1),
            "supervised": round(served[count], 1),
            "cost": round(1 - served[count] / alone[count], 3),
            "node_us_per_token": round(node_us[count]),
        }
        for count in SEQUENCES
    }
    print(
        json.dumps(
            {
                "bench": "engine",
                "unit": "tokens/s",
                "model": options.model.name,
                "threads": options.threads,
                "sequences": figures,
            }
        )
    )


def keep_best(best: dict[int, float], rates: dict[int, float]) -> None:
    for count, rate in rates.items():
        best[count] = max(best[count], rate)


def in_process(path: Path, threads: int, tokens: int) -> dict[int, float]:
    """The decode loop itself, no pipe and no other process."""
    loop = DecodeLoop(path, bytes(32), slots=max(SEQUENCES), context=CONTEXT, threads=threads)
    rates = {}
    for count in SEQUENCES:
        for number in range(count):
            loop.generate(number, request(100 * count + number, tokens))
        began, drawn = time.perf_counter(), 0
        while not loop.idle:
            drawn += sum(len(e.tokens) for _, e in loop.step() if isinstance(e, Chunk))
        rates[count] = drawn / (time.perf_counter() - began)
    loop.close()
    return rates


async def supervised(
    path: Path, threads: int, tokens: int
) -> tuple[dict[int, float], dict[int, float]]:
    """The same prompts through the engine's own process, each stream read by a task.

    Rates, and microseconds of this process's processor time per token.
    """
    rates, node_us = {}, {}
    async with open_llama_engine(
        path, bytes(32), slots=max(SEQUENCES), context=CONTEXT, threads=threads
    ) as engine:
        for count in SEQUENCES:
            drawn: list[int] = []
            began, busy = time.perf_counter(), time.process_time()
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    nursery.start_soon(read, engine, request(100 * count + number, tokens), drawn)
            rates[count] = len(drawn) / (time.perf_counter() - began)
            node_us[count] = (time.process_time() - busy) * 1e6 / len(drawn)
    return rates, node_us


async def read(engine: Engine, what: Generate, drawn: list[int]) -> None:
    async with engine.generate(what) as chunks:
        async for chunk in chunks:
            drawn.extend(chunk.tokens)


def request(number: int, tokens: int) -> Generate:
    prompt = tuple(500 + (37 * i + 911 * number) % 40_000 for i in range(PROMPT_TOKENS))
    return Generate(prompt, 0, tokens, SAMPLER, number.to_bytes(32, "little"))


if __name__ == "__main__":
    main()
