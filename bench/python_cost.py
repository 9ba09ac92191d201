"""Python's share of a decode step: planning, batch filling, drawing and events around llama.cpp.

    python bench/python_cost.py [MODEL.gguf] [--threads 1] [--tokens 64] [--rounds 3]

The decode loop of one process, n answers at once, prompts fed before the clock starts. `share` is
the time of a step outside `llama_decode` in percent of the time inside it, `us_per_token` the same
time for one token; medians over the steps, so a neighbour's burst does not count. The formats are
made from MODEL (the test model). The last line is one JSON object: `share_max_pct` is the worst.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from assay_node.engine.interface import Generate
from assay_node.engine.loop import DecodeLoop
from assay_node.engine.quantize import requantize
from assay_node.models.fetch import TEST_MODEL_PATH
from assay_protocol.messages import Sampler

STREAMS: Final = (1, 16)
PROMPT_TOKENS: Final = 40
CONTEXT: Final = 256
SAMPLERS: Final = {
    "greedy": Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0),
    "seeded": Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05),
}


class Stopwatch:
    """Times every call of a context's `decode`."""

    def __init__(self, loop: DecodeLoop) -> None:
        self._decode = loop._context.decode
        self.seconds = 0.0
        setattr(loop._context, "decode", self)  # noqa: B010 - a method, replaced for the clock

    def __call__(self) -> NDArray[np.float32]:
        began = time.perf_counter()
        logits = self._decode()
        self.seconds = time.perf_counter() - began
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=TEST_MODEL_PATH)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", type=lambda text: text.split(","), default=["Q4_0", "F16"])
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind in options.formats:
            file = Path(scratch) / f"{kind}.gguf"
            requantize(options.model, file, kind, threads=options.threads)
            rows += measure(file, kind, options)
    print(
        json.dumps(
            {"bench": "python_cost", "threads": options.threads, "rows": rows}
            | {"share_max_pct": max(row["share_pct"] for row in rows)}
        )
    )


def measure(file: Path, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    loop = DecodeLoop(file, bytes(32), slots=max(STREAMS), context=CONTEXT, threads=options.threads)
    watch, rows = Stopwatch(loop), []
    for streams in STREAMS:
        for name, sampler in SAMPLERS.items():
            steps = [
                step
                for number in range(options.rounds)
                for step in run(loop, watch, streams, sampler, options.tokens, number)
            ]
            inside = median(decode for decode, _ in steps)
            around = median(rest for _, rest in steps)
            row = {
                "format": kind,
                "streams": streams,
                "sampler": name,
                "decode_us": round(inside * 1e6),
                "us_per_token": round(around * 1e6 / streams, 1),
                "share_pct": round(100 * around / inside, 2),
            }
            print(row, flush=True)
            rows.append(row)
    loop.close()
    return rows


def run(
    loop: DecodeLoop, watch: Stopwatch, streams: int, sampler: Sampler, tokens: int, number: int
) -> list[tuple[float, float]]:
    """Seconds inside and around `llama_decode` of every step in which all streams decode."""
    for stream in range(streams):
        start = 911 * (streams * number + stream)
        prompt = tuple(500 + (37 * i + start) % 40_000 for i in range(PROMPT_TOKENS))
        loop.generate(stream, Generate(prompt, 0, tokens, sampler, start.to_bytes(32, "little")))
    steps = []
    while not loop.idle:
        began = time.perf_counter()
        events = loop.step()
        whole = time.perf_counter() - began
        if len(events) == streams:
            steps.append((watch.seconds, whole - watch.seconds))
    return steps


if __name__ == "__main__":
    main()
