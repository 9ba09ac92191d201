"""What drafts gain, and what they cost where there is nothing to gain.

    python bench/drafts.py [MODEL.gguf] [--format Q4_0] [--streams 1,8] [--tokens 64] [--rounds 5]

The decode loop of one process by the road `fa-split48`, one thread; the format is made from MODEL
(the test model). Every round writes other answers, without drafts and with them, who is first
changes, and the clock runs while all streams do: from when their prompts are fed until the first
answer ends, as what a gap in their row costs then is no matter of drafts. `repeat` asks for a text
again, whose first words are given; `free` for stories. Tokens per second of all streams; `ratio` is
with / without, the median over the rounds' pairs, `cpu_ratio` the same of this process's CPU time,
which neighbours disturb less, and `cpu_ratio_all` that of all rounds together. `accepted`: the
share of the drafts that were drawn; `drafted`: the share of the decodes that had any. What decodes
cost is learned in a round before the first. Both ways' answers are compared, bit for bit. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from assay.tokenizer import Tokenizer
from assay_node.engine.interface import Chunk, Generate
from assay_node.engine.loop import DecodeLoop
from assay_node.engine.quantize import requantize
from assay_node.hardware import detect
from assay_node.models.card import build_card
from assay_node.models.fetch import TEST_MODEL_PATH
from assay_protocol.messages import Sampler

CONTEXT: Final = 512
BEGUN: Final = 12  # words of the text that is asked for again
SAMPLERS: Final = {
    "greedy": Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0),
    "seeded": Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05),
}
SENTENCES: Final = (
    "The harbour office keeps a register of every vessel that enters.",
    "Each entry names the master, the port of origin, the cargo and its weight in tonnes.",
    "When a vessel leaves, the clerk writes the hour of departure beside the entry and signs it.",
    "Entries are never erased; an error is struck through once, so that it can still be read.",
    "The right words are written above it in another ink.",
    "At the end of each month the register is copied on the office's own paper.",
    "The copy is sent to the customs house, where it is kept for ten years.",
    "Nobody may take the register itself out of the building.",
)
SUBJECTS: Final = (
    "a girl who finds a lighthouse",
    "a boat that two brothers borrowed",
    "the last day of a small railway",
    "a cook who cannot taste",
    "a winter without snow",
    "the man who repaired clocks",
    "a letter that came too late",
    "an orchard at the edge of town",
)


@dataclass
class Run:
    """One way's answers and what they took."""

    said: dict[int, list[tuple[tuple[int, ...], bytes]]] = field(default_factory=dict)
    tokens: int = 0  # while all streams ran
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    decodes: int = 0
    drafted: int = 0  # decodes
    drafts: int = 0  # tokens
    accepted: int = 0

    @property
    def answers(self) -> dict[int, tuple[tuple[int, ...], bytes]]:
        return {
            job: (
                tuple(token for tokens, _ in chunks for token in tokens),
                b"".join(logits for _, logits in chunks),
            )
            for job, chunks in self.said.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=TEST_MODEL_PATH)
    parser.add_argument("--format", default="Q4_0")
    parser.add_argument(
        "--streams", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8]
    )
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tokenizer = Tokenizer.from_card(
        build_card(options.model, name="drafts", price_in=0, price_out=0)
    )
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.gguf"
        requantize(options.model, file, options.format)
        loop = DecodeLoop(file, bytes(32), slots=max(options.streams), context=CONTEXT, threads=1)
        rows = [
            measure(loop, tokenizer, task, name, streams, options)
            for streams in options.streams
            for task in ("repeat", "free")
            for name in SAMPLERS
        ]
        class_id = loop.info.class_id
        loop.close()
    about = {"cpu": detect(Path()).cpu, "class_id": class_id, "tokens": options.tokens}
    least = min(row["ratio"] for row in rows)
    print(json.dumps({"bench": "drafts", **about, "rows": rows, "ratio_min": least}))


def measure(
    loop: DecodeLoop,
    tokenizer: Tokenizer,
    task: str,
    name: str,
    streams: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    pairs = []
    for number in range(options.rounds + 1):
        requests = [
            Generate(
                tokenizer.encode(prompt(task, text)),
                0,
                options.tokens,
                SAMPLERS[name],
                text.to_bytes(32, "little"),
                tenant=bytes([text % 256]),
            )
            for text in range(number * streams, (number + 1) * streams)
        ]
        pairs.append(turn(loop, requests, first=number % 2 == 1))
    without, with_them = zip(*pairs[1:], strict=True)
    drafts = sum(run.drafts for run in with_them)
    row = {
        "streams": streams,
        "task": task,
        "sampler": name,
        "without_tps": round(median(run.tokens / run.seconds for run in without), 1),
        "with_tps": round(median(run.tokens / run.seconds for run in with_them), 1),
        "ratio": _gain(pairs[1:], lambda run: run.seconds),
        "cpu_ratio": _gain(pairs[1:], lambda run: run.cpu_seconds),
        "cpu_ratio_all": _gain([(_sum(without), _sum(with_them))], lambda run: run.cpu_seconds),
        "drafted_pct": round(
            100 * sum(run.drafted for run in with_them) / sum(run.decodes for run in with_them), 1
        ),
        "accepted_pct": round(100 * sum(run.accepted for run in with_them) / max(drafts, 1), 1),
    }
    print(row, flush=True)
    return row


def _gain(pairs: list[tuple[Run, Run]], clock: Callable[[Run], float]) -> float:
    """Tokens per second with drafts / without."""
    ratios = [there.tokens / clock(there) / (plain.tokens / clock(plain)) for plain, there in pairs]
    return round(median(ratios), 3)


def _sum(runs: Sequence[Run]) -> Run:
    """Of what `_gain` looks at."""
    return Run(
        tokens=sum(run.tokens for run in runs), cpu_seconds=sum(run.cpu_seconds for run in runs)
    )


def turn(loop: DecodeLoop, requests: list[Generate], *, first: bool) -> tuple[Run, Run]:
    """A run without and one with drafts; `first`: the one with them first."""
    drafting, runs = loop.drafting, {}
    for on in (first, not first):
        loop.drafting = drafting if on else None
        runs[on] = run(loop, requests)
    loop.drafting = drafting
    assert runs[True].answers == runs[False].answers, "drafts changed an answer"
    return runs[False], runs[True]


def run(loop: DecodeLoop, requests: list[Generate]) -> Run:
    done = Run()
    for job, request in enumerate(requests):
        loop.generate(job, request)
    over = 0
    while not loop.idle:
        all_run = len(done.said) == len(requests) and not over
        before = loop.drafts
        began, cpu_began = time.perf_counter(), time.process_time()
        events = loop.step()
        if all_run:
            done.seconds += time.perf_counter() - began
            done.cpu_seconds += time.process_time() - cpu_began
            done.decodes += 1
            done.drafted += loop.drafts[0] > before[0]
            done.drafts += loop.drafts[0] - before[0]
            done.accepted += loop.drafts[1] - before[1]
        for job, event in events:
            assert isinstance(event, Chunk)
            done.said.setdefault(job, []).append((event.tokens, event.logits))
            done.tokens += len(event.tokens) if all_run else 0
            over += event.finish is not None
    return done


def prompt(task: str, stream: int) -> str:
    """ChatML; every stream's text begins with another sentence."""
    if task == "free":
        subject = SUBJECTS[stream % len(SUBJECTS)]
        return chat(f"Write a short story about {subject}.")
    first = stream % len(SENTENCES)
    text = " ".join(SENTENCES[first:] + SENTENCES[:first])
    return chat(f"Repeat the following text word for word:\n\n{text}") + " ".join(
        text.split()[:BEGUN]
    )


def chat(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


if __name__ == "__main__":
    main()
