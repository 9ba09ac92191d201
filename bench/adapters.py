"""What LoRA adapters cost a step: the same answers in one decode, or in one for each adapter.

    python bench/adapters.py [MODEL.gguf] --adapter A.gguf --adapter B.gguf [--streams 8]

The decode loop of one process, by the road `fa-split48` on one thread, n answers at once, in turns:
all without an adapter, all with the first one, half with it and half without, and, with a second
adapter, half with each. Prompts are fed before the clock starts; medians over the steps of all
rounds, in ms. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Final

from assay_node.engine.interface import Generate
from assay_node.engine.loop import DecodeLoop
from assay_node.hardware import detect
from assay_node.models.fetch import TEST_MODEL_PATH
from assay_protocol.messages import Sampler

PROMPT_TOKENS: Final = 40
CONTEXT: Final = 256
SAMPLER: Final = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=TEST_MODEL_PATH)
    parser.add_argument("--adapter", type=Path, action="append", required=True)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    names = [bytes([number]) * 32 for number in range(len(options.adapter))]
    files = list(zip(options.adapter, names, strict=True))
    ways: dict[str, tuple[bytes | None, ...]] = {
        "none": (None,),
        "one adapter": (names[0],),
        "half with, half without": (names[0], None),
    }
    if len(names) > 1:
        ways["half with each of two"] = (names[0], names[1])
    loop = DecodeLoop(
        options.model,
        bytes(32),
        slots=options.streams,
        context=CONTEXT,
        threads=1,
        adapters=files,
    )
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(options.rounds):
        for turn, (way, adapters) in enumerate(ways.items()):
            first = options.streams * (number * len(ways) + turn)
            seconds[way] += run(loop, adapters, options.streams, options.tokens, first)
    loop.close()
    rows = {way: round(1000 * median(steps), 2) for way, steps in seconds.items()}
    for way, milliseconds in rows.items():
        print(f"{way:26}{milliseconds:8.2f} ms a step")
    about = {"cpu": detect(Path()).cpu, "streams": options.streams, "class_id": loop.info.class_id}
    print(json.dumps({"bench": "adapters", "unit": "ms", **about, "steps": rows}))


def run(
    loop: DecodeLoop, adapters: tuple[bytes | None, ...], streams: int, tokens: int, first: int
) -> list[float]:
    """Seconds of every step in which all streams decode; the stream's number picks its adapter.

    `first`: number of the first prompt; no two begin alike, so nothing that was kept is used.
    """
    for stream in range(streams):
        prompt = tuple(
            500 + (37 * i + 911 * (first + stream)) % 40_000 for i in range(PROMPT_TOKENS)
        )
        adapter = adapters[stream % len(adapters)]
        seed = stream.to_bytes(32, "little")
        loop.generate(stream, Generate(prompt, 0, tokens, SAMPLER, seed, adapter=adapter))
    steps = []
    while not loop.idle:
        began = time.perf_counter()
        events = loop.step()
        if len(events) == streams:
            steps.append(time.perf_counter() - began)
    return steps


if __name__ == "__main__":
    main()
