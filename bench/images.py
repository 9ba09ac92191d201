"""What images cost in the engine, beside libmtmd's own way of reading them, in the same run.

    python bench/images.py [MODEL.gguf] [--kind mlp] [--layers 23] [--threads 1] [--rounds 3]

The model is a real one; the projector is **made** of arbitrary numbers, in the shape of LLaVA 1.5's
(CLIP ViT-L/14 at 336 pixels, F16: 576 positions) or, with --kind gemma3, the same tower whose
patches are merged four by four a side and seen by each other (at 448 pixels: 64 positions): what is
computed costs the same, what is answered means nothing. Each round has an image of its own, between
two runs of 16 tokens, and asks for one token: by the engine's loop as the exact road feeds it, once
more about the same image for another tenant, who reuses no prefix, and by
mtmd_helper_eval_chunk_single with 512 positions a decode, the order changing from round to round.
CPU time of this process, in ms; medians of the rounds. `ratio` is libmtmd's time / ours, image
encoded, prompt fed, token drawn. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from llama_cpp import mtmd_cpp

from assay_node.engine import llama
from assay_node.engine.interface import Generate
from assay_node.engine.loop import DecodeLoop
from assay_node.engine.profiles import FLASH
from assay_node.engine.projector import Projector
from assay_node.engine.ways import drain
from assay_node.hardware import detect
from assay_node.models.fetch import TEST_MODEL_PATH
from assay_node.models.gguf import read_header
from assay_protocol.images import spelled
from assay_protocol.messages import Image, Sampler

AROUND: Final = 16  # tokens before the image, and after it
CONTEXT: Final = 1024
MTMD_BATCH: Final = 512
SAMPLER: Final = Sampler(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0)
# side and patch in pixels; the rest of ViT-L/14
SHAPES: Final = {"mlp": (336, 14, 1), "gemma3": (448, 14, 4)}
VIT_L: Final = {"width": 1024, "heads": 16, "half": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=TEST_MODEL_PATH)
    parser.add_argument("--kind", choices=tuple(SHAPES), default="mlp")
    parser.add_argument("--layers", type=int, default=23)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        projector = _made(options, Path(folder) / "projector.gguf")
        found = _measured(options, projector)
    about = {"bench": "images", "unit": "ms", "cpu": detect(Path()).cpu, "kind": options.kind}
    print(json.dumps({**about, "layers": options.layers, "threads": options.threads, **found}))


def _made(options: argparse.Namespace, path: Path) -> Path:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # where models are made
    from vision_cases import Tower, write_projector  # type: ignore[import-not-found]

    side, patch, merged = SHAPES[options.kind]
    tower = Tower(side, patch, layers=options.layers, merged=merged, **VIT_L)
    width = read_header(options.model).number("embedding_length")
    made: Path = write_projector(path, options.kind, width=width, tower=tower)
    return made


def _measured(options: argparse.Namespace, projector: Path) -> dict[str, object]:
    settings = {"slots": 1, "context": CONTEXT, "threads": options.threads}
    loop = DecodeLoop(options.model, bytes(32), projector=projector, **settings)
    theirs = _Theirs(options.model, projector, options.threads)
    tokens = loop.info.image_tokens
    rows: dict[str, list[float]] = {"first": [], "again": [], "mtmd": [], "encode": []}
    for number in range(-1, options.rounds):  # the first round warms up
        image = _image(number + 1, SHAPES[options.kind][0])
        ways: list[tuple[str, Callable[[], object]]] = [
            ("first", partial(_ours, loop, image)),
            ("mtmd", partial(theirs.answer, image)),
        ]
        for name, way in ways if number % 2 else ways[::-1]:
            _timed(rows, name, number, way)
        _timed(rows, "again", number, partial(_ours, loop, image))
        _timed(rows, "encode", number, partial(theirs.eyes.encode, image))
    class_id = loop.info.class_id
    loop.close()
    theirs.close()
    middle = {name: median(values) for name, values in rows.items()}
    ratios = [a / b for a, b in zip(rows["mtmd"], rows["first"], strict=True)]
    return {
        "class_id": class_id,
        "positions": tokens,
        "encode": round(middle["encode"], 1),
        "answer": round(middle["first"], 1),
        "answer_kept": round(middle["again"], 1),
        "mtmd": round(middle["mtmd"], 1),
        "prefill_tps": round(1000 * (tokens + 2 * AROUND) / middle["again"], 1),
        "ratio": round(median(ratios), 3),
    }


def _timed(rows: dict[str, list[float]], name: str, number: int, way: Callable[[], object]) -> None:
    began = time.process_time()
    way()
    if number >= 0:
        rows[name].append(1000 * (time.process_time() - began))


def _image(seed: int, side: int) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 256, 3 * side * side, np.uint8)
    return Image(width=side, height=side, pixels=pixels.tobytes())


def _text(begin: int) -> tuple[int, ...]:
    return tuple(range(begin, begin + AROUND))


def _ours(loop: DecodeLoop, image: Image) -> None:
    prompt = (*_text(500), *spelled(image, loop.info.image_tokens), *_text(900))
    tenant = os.urandom(8)  # who reuses nothing
    loop.generate(1, Generate(prompt, 0, 1, SAMPLER, bytes(32), tenant, images=(image,)))
    events = list(drain(loop))
    assert len(events) == 1


class _Theirs:
    """Tokens, the image by libmtmd's helper, tokens, and one draw."""

    def __init__(self, model: Path, projector: Path, threads: int) -> None:
        self._model = llama.Model(model, FLASH)
        llama.log_to(mtmd_cpp.mtmd_helper_log_set)
        self.eyes = Projector(projector, self._model, threads=threads, flash=True, gpu=False)
        self._context = llama.Context(
            self._model,
            sequences=1,
            context=CONTEXT,
            batch=MTMD_BATCH,
            threads=threads,
            profile=FLASH,
        )

    def answer(self, image: Image) -> int:
        self._context.truncate(0, 0)
        self._feed(_text(500), 0, wanted=0)
        reached = ctypes.c_int32(0)
        with self.eyes.chunks(image) as chunks:
            place = (chunks.only(), AROUND, 0, MTMD_BATCH, False, ctypes.byref(reached))
            code = mtmd_cpp.mtmd_helper_eval_chunk_single(
                self.eyes.handle, self._context.handle, *place
            )
        assert (code, reached.value) == (0, AROUND + self.eyes.tokens)
        return self._feed(_text(900), reached.value, wanted=1)

    def _feed(self, tokens: tuple[int, ...], position: int, *, wanted: int) -> int:
        batch = self._context.batch
        batch.clear()
        batch.add(tokens, position, 0, wanted=wanted)
        logits = self._context.decode()
        return int(logits[0].argmax()) if wanted else 0

    def close(self) -> None:
        self._context.close()
        self.eyes.close()
        self._model.close()


if __name__ == "__main__":
    main()
