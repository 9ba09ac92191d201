"""What the prefix cache saves: 16 chats at once that share a system prompt of 500 tokens.

    python bench/prefix_cache.py [MODEL.gguf] [--threads 1] [--chats 16] [--tokens 16] [--rounds 3]

Through the engine's own process, cold: no round's system prompt was seen before. Once as chats of
one client, which share what is cached, once as chats of 16 clients, which may not. Figures: median
time to the first token in seconds; `ttft_ratio` is the median over the rounds of with / without.
`identical` says whether every answer's tokens and raw logits were the same both times, bit for bit.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import trio

from assay_node.engine.interface import Engine, Generate
from assay_node.engine.quantize import requantize
from assay_node.engine.supervisor import open_llama_engine
from assay_node.models.fetch import TEST_MODEL_PATH
from assay_protocol.messages import Sampler

SYSTEM_TOKENS: Final = 500
QUESTION_TOKENS: Final = 12
CONTEXT: Final = 640
SAMPLER: Final = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)

Answer = tuple[tuple[int, ...], bytes]  # tokens, logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=TEST_MODEL_PATH)
    parser.add_argument("--format", default="Q4_0", help="MODEL is rewritten in it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chats", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.gguf"
        requantize(options.model, file, options.format, threads=options.threads)
        figures = trio.run(measure, file, options)
    print(json.dumps({"bench": "prefix_cache", "format": options.format} | figures))


async def measure(file: Path, options: argparse.Namespace) -> dict[str, Any]:
    shared, apart, same = [], [], True
    async with open_llama_engine(
        file, bytes(32), slots=options.chats, context=CONTEXT, threads=options.threads
    ) as engine:
        for number in range(options.rounds):
            asked = chats(number, options.chats, options.tokens)
            one_client = await run(engine, asked, [f"{number}".encode()] * len(asked))
            tenants = [f"{number}/{chat}".encode() for chat in range(len(asked))]
            strangers = await run(engine, asked, tenants)
            shared.append(median(one_client[0]))
            apart.append(median(strangers[0]))
            same = same and one_client[1] == strangers[1]
            print(f"first token: shared {shared[-1]:.2f} s, apart {apart[-1]:.2f} s", flush=True)
    return {
        "ttft_shared_s": round(median(shared), 3),
        "ttft_apart_s": round(median(apart), 3),
        "ttft_ratio": round(median(a / b for a, b in zip(shared, apart, strict=True)), 3),
        "identical": same,
        "chats": options.chats,
    }


def chats(number: int, count: int, tokens: int) -> list[Generate]:
    """Arbitrary tokens: one system prompt for the round, one question for each chat."""
    system = tuple(500 + (7919 * i + 104_729 * number) % 40_000 for i in range(SYSTEM_TOKENS))
    questions = [
        tuple(
            500 + (6007 * i + 911 * (count * number + chat)) % 40_000
            for i in range(QUESTION_TOKENS)
        )
        for chat in range(count)
    ]
    return [Generate(system + question, 0, tokens, SAMPLER, bytes(32)) for question in questions]


async def run(
    engine: Engine, asked: list[Generate], tenants: list[bytes]
) -> tuple[list[float], list[Answer]]:
    """Seconds to each chat's first token, and the answers."""
    first: dict[int, float] = {}
    answers: dict[int, Answer] = {}
    began = time.perf_counter()

    async def one(number: int) -> None:
        what, logits = asked[number], b""
        tokens: tuple[int, ...] = ()
        request = Generate(
            what.prompt, 0, what.max_tokens, what.sampler, what.seed, tenant=tenants[number]
        )
        async with engine.generate(request) as chunks:
            async for chunk in chunks:
                first.setdefault(number, time.perf_counter() - began)
                tokens, logits = (*tokens, *chunk.tokens), logits + chunk.logits
        answers[number] = (tokens, logits)

    async with trio.open_nursery() as nursery:
        for number in range(len(asked)):
            nursery.start_soon(one, number)
    return list(first.values()), [answers[number] for number in range(len(asked))]


if __name__ == "__main__":
    main()
