"""Logprobs of a prompt: what they cost in prefill, and how far honest classes tell them apart.

    python bench/prompt_logprobs.py [MODEL.gguf] [--threads 1] [--tokens 384] [--rounds 5]

Through the engine's own process, with pages of this repository as prompts. Cost: CPU seconds of
that process for one prompt and one token, without logprobs and with them, in turns; `ratio` is the
median over the rounds of with / without, for no, one and five likeliest beside each token. Drift:
every prompt is told of by each road this machine has, and compared with that of the first;
`own_max` and `top_max` are the largest difference of a token's own logprob and of a likeliest one's
of the same rank, `own_mean` the largest mean of a prompt, in nats. `alike` says whether a cold
engine of the first road that reads smaller pieces tells the same bytes. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

import trio

from assay.tokenizer import Tokenizer
from assay_node.engine.interface import Generate
from assay_node.engine.profiles import FAST_SPLIT, FLASH, FLASH_PORTABLE, PLAIN, Profile
from assay_node.engine.supervisor import LlamaEngine, open_llama_engine
from assay_node.models.card import build_card
from assay_node.models.fetch import TEST_MODEL_PATH
from assay_protocol.logprobs import TokenLogprobs
from assay_protocol.messages import Sampler
from assay_protocol.prompt_logprobs import read_told

PAGES: Final = ("verification", "engine", "gateway", "simnet", "credit", "governance")
ROADS: Final = (FLASH, PLAIN, FLASH_PORTABLE, FAST_SPLIT)
RIVALS: Final = (0, 1, 5)
PLAIN_SAMPLER: Final = Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=TEST_MODEL_PATH)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=384, help="of a prompt")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    prompts = pages(options.model, options.tokens)
    cost = trio.run(costs, options, prompts)
    print(json.dumps({"bench": "prompt_logprobs", **cost, **trio.run(drift, options, prompts)}))


def pages(model: Path, tokens: int) -> list[tuple[int, ...]]:
    """The first `tokens` tokens of each page."""
    tokenizer = Tokenizer.from_card(build_card(model, name="bench", price_in=1, price_out=1))
    docs = Path(__file__).parents[1] / "docs"
    texts = [(docs / f"{name}.md").read_text() for name in PAGES]
    return [tuple(tokenizer.encode(text)[:tokens]) for text in texts]


async def costs(options: argparse.Namespace, prompts: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    room = options.tokens + 1
    ratios: dict[int, list[float]] = {rivals: [] for rivals in RIVALS}
    base = []
    async with open_llama_engine(
        options.model, bytes(32), slots=1, context=room, threads=options.threads
    ) as engine:
        await spent(engine, prompts[0], None)
        for number in range(options.rounds):
            prompt = prompts[number % len(prompts)]
            base.append(await spent(engine, prompt, None))
            for rivals in RIVALS:
                ratios[rivals].append(await spent(engine, prompt, rivals) / base[-1])
    return {
        "tokens": options.tokens,
        "prefill_ms_per_token": round(1_000 * median(base) / options.tokens, 3),
        **{f"ratio_{rivals}": round(median(ratios[rivals]), 3) for rivals in RIVALS},
    }


async def spent(engine: LlamaEngine, prompt: tuple[int, ...], rivals: int | None) -> float:
    """CPU seconds of the engine's process. A tenant of its own, so that nothing is reused."""
    before = _cpu(engine)
    await told(engine, prompt, rivals, tenant=os.urandom(8))
    return _cpu(engine) - before


async def told(
    engine: LlamaEngine, prompt: tuple[int, ...], rivals: int | None, tenant: bytes = b""
) -> bytes:
    sampler = replace(PLAIN_SAMPLER, prompt_logprobs=rivals)
    found = b""
    async with engine.generate(Generate(prompt, 0, 1, sampler, bytes(32), tenant)) as chunks:
        async for chunk in chunks:
            found += chunk.prompt_logprobs
    return found


async def drift(options: argparse.Namespace, prompts: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    async def by(profile: Profile) -> list[bytes]:
        async with open_llama_engine(
            options.model,
            bytes(32),
            slots=1,
            context=options.tokens + 1,
            threads=options.threads,
            profile=profile,
        ) as engine:
            return [await told(engine, prompt, 1) for prompt in prompts]

    roads = [road for road in ROADS if road.available]
    first = await by(roads[0])
    again = await by(replace(roads[0], chunk=20, total=20))
    apart = {f"{road.road}{road.library}": await by(road) for road in roads[1:]}
    return {
        "alike": first == again,
        "drift": {name: _apart(first, found, prompts) for name, found in apart.items()},
    }


def _apart(
    first: Sequence[bytes], second: Sequence[bytes], prompts: Sequence[tuple[int, ...]]
) -> dict[str, float]:
    sampler = replace(PLAIN_SAMPLER, prompt_logprobs=1)
    own, top = [], []
    for one, other, prompt in zip(first, second, prompts, strict=True):
        pairs = list(
            zip(read_told(one, sampler, prompt), read_told(other, sampler, prompt), strict=True)
        )
        own.append([abs(a.logprob - b.logprob) for a, b in pairs])
        top.append([_top(a, b) for a, b in pairs])
    return {
        "own_max": round(max(map(max, own)), 4),
        "top_max": round(max(map(max, top)), 4),
        "own_mean": round(max(map(mean, own)), 4),
    }


def _top(one: TokenLogprobs, other: TokenLogprobs) -> float:
    return abs(one.top[0][1] - other.top[0][1])


def _cpu(engine: LlamaEngine) -> float:
    """Seconds of processor time of the engine's process so far."""
    fields = Path(f"/proc/{engine.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    main()
