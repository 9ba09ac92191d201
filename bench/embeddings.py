"""Embeddings a second: the engine, asked for one text at a time and for all at once, and a library.

    python bench/embeddings.py [FOLDER] [--threads 1] [--texts 96] [--rounds 5]

FOLDER holds a BERT as sentence-transformers keep it (all-MiniLM-L6-v2 by default), written as F16
and as Q8_0 for the run. In turns: the engine's own process with one text in flight; with all; and,
in this process, `Llama(embedding=True)` of llama-cpp-python, sentence by sentence. All three get
text and cut it into tokens in the time that is measured. Figures: texts a second, medians over the
rounds; `ratio` is the median over the rounds of all at once / llama-cpp-python. `differing` counts
vectors that are not the same bits alone and among others; `cosine_min` is the engine's worst
likeness to llama-cpp-python's vectors. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import trio
from llama_cpp import Llama
from tokenizers import Tokenizer

from assay_node.engine.embedder import LlamaEmbedder, open_embedding_engine
from assay_node.engine.embedding import Embed
from assay_node.engine.quantize import requantize
from assay_node.hardware import detect
from assay_node.models.bert import convert_bert
from assay_node.models.minilm import FOLDER

VOCABULARY: Final = (2_000, 6_000)  # ids of common words
LENGTHS: Final = {"short": (5, 22), "long": (90, 220)}  # words of a text
CONTEXT: Final = 512

Cut = Callable[[str], tuple[int, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--texts", type=int, default=96, help="short ones, 128 at most; a sixth long"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        whole = convert_bert(options.folder, Path(scratch) / "f32.gguf", kind="f32")
        for kind in ("F16", "Q8_0"):
            file = Path(scratch) / f"{kind}.gguf"
            requantize(whole, file, kind)
            rows += trio.run(measure, file, kind, options)
    for row in rows:
        print(*(f"{name} {value}" for name, value in row.items()), sep="   ")
    about = {"cpu": detect(Path()).cpu, "threads": options.threads}
    print(json.dumps({"bench": "embeddings", "unit": "texts/s", **about, "rows": rows}))


async def measure(file: Path, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each length of text."""
    library = Llama(
        str(file), embedding=True, n_ctx=CONTEXT, n_threads=options.threads,
        n_threads_batch=options.threads, verbose=False,
    )  # fmt: skip
    cut = cutter(options.folder)
    rows = []
    async with open_embedding_engine(file, bytes(32), threads=options.threads) as engine:
        for name, count in (("short", options.texts), ("long", options.texts // 6)):
            texts = sentences(options.folder, count, *LENGTHS[name])
            figures = await compare(engine, library, cut, texts, options.rounds)
            rows.append({"format": kind, "texts": name} | figures)
    library.close()
    return rows


async def compare(
    engine: LlamaEmbedder, library: Any, cut: Cut, texts: Sequence[str], rounds: int
) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"alone": [], "together": [], "llama_cpp_python": []}
    for _ in range(rounds):
        began = time.perf_counter()
        alone = [(await engine.embed(Embed(cut(text)))).vector for text in texts]
        rates["alone"].append(len(texts) / (time.perf_counter() - began))
        began = time.perf_counter()
        together = await embed_at_once(engine, [cut(text) for text in texts])
        rates["together"].append(len(texts) / (time.perf_counter() - began))
        began = time.perf_counter()
        theirs = [library.embed(text, normalize=True) for text in texts]
        rates["llama_cpp_python"].append(len(texts) / (time.perf_counter() - began))
    found = {name: round(median(values), 1) for name, values in rates.items()}
    ratios = [a / b for a, b in zip(rates["together"], rates["llama_cpp_python"], strict=True)]
    pairs = zip(alone, theirs, strict=True)
    cosines = [np.frombuffer(ours, "<f4").astype(float) @ np.array(other) for ours, other in pairs]
    return {
        "tokens_mean": round(sum(len(cut(text)) for text in texts) / len(texts), 1),
        **found,
        "ratio": round(median(ratios), 2),
        "differing": sum(a != b for a, b in zip(alone, together, strict=True)),
        "cosine_min": round(float(min(cosines)), 7),
    }


async def embed_at_once(engine: LlamaEmbedder, texts: Sequence[tuple[int, ...]]) -> list[bytes]:
    found: dict[int, bytes] = {}

    async def ask(number: int) -> None:
        found[number] = (await engine.embed(Embed(texts[number]))).vector

    async with trio.open_nursery() as nursery:
        for number in range(len(texts)):
            nursery.start_soon(ask, number)
    return [found[number] for number in range(len(texts))]


def cutter(folder: Path) -> Cut:
    """The folder's own tokenizer, whole texts only."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: tuple(tokenizer.encode(text).ids)


def sentences(folder: Path, count: int, shortest: int, longest: int) -> list[str]:
    """Always the same ones, of arbitrary words of the vocabulary."""
    vocabulary = (folder / "vocab.txt").read_text().split("\n")[slice(*VOCABULARY)]
    words = [word for word in vocabulary if word.isalpha()]
    numbers = np.random.default_rng(count)
    lengths = numbers.integers(shortest, longest + 1, count)
    return [" ".join(numbers.choice(words, length)) for length in lengths]


if __name__ == "__main__":
    main()
