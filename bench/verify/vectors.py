"""How far apart vectors of one model are by several ways to compute it, and those of cheats.

    python bench/verify/vectors.py [--texts 120] [--threads 1]

Each row is an executor's way against an auditor's: the drift that an audit sees (mean distance of
sketches over a job of 1 or of 16 texts), and the cosine of whole vectors, which who asked can
compute. Texts are of 3 to 200 arbitrary tokens of all-MiniLM-L6-v2. Prints one JSON document, which
docs/verification.md quotes.
"""

from __future__ import annotations

import argparse
import json
import struct
import tempfile
from collections.abc import Sequence
from functools import partial
from math import fsum
from pathlib import Path
from random import Random
from statistics import fmean, stdev

import trio

from assay_node.engine.embedder import open_embedding_engine
from assay_node.engine.profiles import FLASH, PLAIN, Profile
from assay_node.engine.quantize import requantize
from assay_node.engine.texts_engine import embed_together
from assay_node.models.bert import convert_bert
from assay_node.models.minilm import FOLDER, fetch_minilm
from assay_protocol.embeddings import vector_sketch
from assay_protocol.sketches import leaf_distances

SEED = bytes(range(32))
MARKS = (101, 102)  # [CLS] and [SEP]
JOB_TEXTS = 16
WAYS = (("flash", FLASH), ("plain", PLAIN))
SHORTEST, LONGEST = 3, 200


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=120)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    trio.run(measure, options.texts, options.threads)
    return 0


async def measure(count: int, threads: int) -> None:
    """Every way once, then all pairs of interest."""
    texts = some_texts(count)
    with tempfile.TemporaryDirectory() as folder:
        ways = files(Path(folder))
        vectors: dict[str, list[bytes]] = {}
        for name, (path, profile) in ways.items():
            vectors[name] = await embedded(path, profile, texts, threads)
    vectors["random"] = [vectors["F16 flash"][(i + 1) % count] for i in range(count)]
    rows = [
        compared(one, other, vectors[one], vectors[other]) for one, other in pairs(list(vectors))
    ]
    print(json.dumps({"bench": "verify/vectors", "texts": count, "rows": rows}, indent=1))


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Executor and auditor: honest ways of F16 and of Q8_0 among themselves, and cheats of F16."""
    half = [name for name in names if name.split()[0] in ("F16", "F32")]
    eight = [name for name in names if name.startswith("Q8_0")]
    honest = [(a, b) for group in (half, eight) for a in group for b in group if a != b]
    cheats = [name for name in names if name not in half]
    return honest + [(name, "F16 plain") for name in cheats]


def files(folder: Path) -> dict[str, tuple[Path, Profile]]:
    """What computes, by name: the file and the way."""
    half = fetch_minilm()
    whole = convert_bert(FOLDER, folder / "f32.gguf", kind="f32")
    made = {"F16": half, "F32": whole}
    for kind in ("Q8_0", "Q4_0"):
        made[kind] = folder / f"{kind}.gguf"
        requantize(half, made[kind], kind)
    ways = {
        f"{name} {way}": (path, profile) for name, path in made.items() for way, profile in WAYS
    }
    floats = folder / "floats.gguf"  # Q8_0's weights, computed with as 16-bit floats
    requantize(made["Q8_0"], floats, "F16")
    return ways | {"Q8_0 as F16": (floats, FLASH)}


async def embedded(
    path: Path, profile: Profile, texts: Sequence[tuple[int, ...]], threads: int
) -> list[bytes]:
    """The vectors, by one engine in a process of its own."""
    found: list[bytes] = []
    async with open_embedding_engine(path, bytes(32), threads=threads, profile=profile) as engine:
        for at in range(0, len(texts), 32):
            found += await embed_together(engine, texts[at : at + 32])
    return found


def compared(one: str, other: str, theirs: list[bytes], ours: list[bytes]) -> dict[str, object]:
    """Drift in jobs of one text and of JOB_TEXTS, and cosines."""
    cosines = [cosine(a, b) for a, b in zip(theirs, ours, strict=True)]
    sketch = partial(vector_sketch, seed=SEED)
    a = [sketch(vector, position=i) for i, vector in enumerate(theirs)]
    b = [sketch(vector, position=i) for i, vector in enumerate(ours)]
    single = [leaf_distances(x, y)[0] for x, y in zip(a, b, strict=True)]
    whole = leaf_distances(b"".join(a), b"".join(b))[: len(a) // JOB_TEXTS]
    return {
        "executor": one,
        "auditor": other,
        "equal": sum(x == y for x, y in zip(theirs, ours, strict=True)),
        "cosine_min": round(min(cosines), 7),
        "drift_1": [round(f(single), 5) for f in (fmean, stdev, min, max)],
        "drift_16": [round(f(whole), 5) for f in (fmean, stdev, min, max)],
    }


def cosine(a: bytes, b: bytes) -> float:
    """Of two vectors of length 1."""
    numbers = [struct.unpack(f"<{len(one) // 4}f", one) for one in (a, b)]
    return fsum(x * y for x, y in zip(*numbers, strict=True))


def some_texts(count: int) -> list[tuple[int, ...]]:
    """Whole word pieces in an arbitrary order, as many short texts as long ones."""
    draw = Random(7)
    lengths = [round(SHORTEST * (LONGEST / SHORTEST) ** draw.random()) for _ in range(count)]
    inner = [[draw.randrange(1996, 29_612) for _ in range(length - 2)] for length in lengths]
    return [(MARKS[0], *words, MARKS[1]) for words in inner]


if __name__ == "__main__":
    raise SystemExit(main())
