"""Python's share of a decode step: planning, batch filling, drawing and events around llama.cpp.

    python bench/python_cost.py [MODEL.gguf] [--threads 1] [--tokens 64] [--rounds 3]

The decode loop of one process, n answers at once, prompts fed before the clock starts. `share` is
the time of a step outside `llama_decode` in percent of the time inside it, `us_per_token` the same
time for one token; medians over the steps, so a neighbour's burst does not count. `sketch_us` is
how much of that one step's sketches took, `sketch_pct` in percent of `llama_decode`. The formats
are made from MODEL (the test model). The last line is one JSON object: `share_max_pct` and
`sketch_max_pct` are the worst.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from assay_node.engine import loop as decode_loop
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
    """Stands in for a function, an attribute of `owner`, and times its last call."""

    def __init__(self, owner: object, name: str) -> None:
        self._timed: Callable[..., Any] = getattr(owner, name)
        self.seconds = 0.0
        setattr(owner, name, self)

    def __call__(self, *given: Any) -> Any:
        began = time.perf_counter()
        made = self._timed(*given)
        self.seconds = time.perf_counter() - began
        return made


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds inside `llama_decode`, around it, and of these for the sketches."""

    decode: float
    around: float
    sketch: float


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
            | {"sketch_max_pct": max(row["sketch_pct"] for row in rows)}
        )
    )


def measure(file: Path, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    loop = DecodeLoop(file, bytes(32), slots=max(STREAMS), context=CONTEXT, threads=options.threads)
    decode, sketch = Stopwatch(loop._context, "decode"), Stopwatch(decode_loop, "sketch_rows")
    rows = []
    for streams in STREAMS:
        for name, sampler in SAMPLERS.items():
            steps = [
                step
                for number in range(options.rounds)
                for step in run(loop, (decode, sketch), streams, sampler, options.tokens, number)
            ]
            row = {"format": kind, "streams": streams, "sampler": name} | summary(steps, streams)
            print(row, flush=True)
            rows.append(row)
    loop.close()
    return rows


def summary(steps: list[Step], streams: int) -> dict[str, float]:
    inside, around, sketch = (
        median(getattr(step, name) for step in steps) for name in ("decode", "around", "sketch")
    )
    return {
        "decode_us": round(inside * 1e6),
        "us_per_token": round(around * 1e6 / streams, 1),
        "share_pct": round(100 * around / inside, 2),
        "sketch_us": round(sketch * 1e6, 1),
        "sketch_pct": round(100 * sketch / inside, 3),
    }


def run(
    loop: DecodeLoop,
    watches: tuple[Stopwatch, Stopwatch],
    streams: int,
    sampler: Sampler,
    tokens: int,
    number: int,
) -> list[Step]:
    """Every step in which all streams decode. `watches`: on decode and on the sketches."""
    for stream in range(streams):
        start = 911 * (streams * number + stream)
        prompt = tuple(500 + (37 * i + start) % 40_000 for i in range(PROMPT_TOKENS))
        loop.generate(stream, Generate(prompt, 0, tokens, sampler, start.to_bytes(32, "little")))
    decode, sketch = watches
    steps = []
    while not loop.idle:
        began = time.perf_counter()
        events = loop.step()
        whole = time.perf_counter() - began
        if len(events) == streams:
            steps.append(Step(decode.seconds, whole - decode.seconds, sketch.seconds))
    return steps


if __name__ == "__main__":
    main()
