"""What drawing and sketching take beside decoding, measured on the product's own context."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import conditions
from assay_node.engine.llama import Context, Model
from assay_node.engine.profiles import FLASH
from assay_protocol.sampling import draw_rows
from assay_protocol.sketches import sketch_rows

_CONTEXT: Final = 128
_STEPS: Final = 48
_WARM: Final = 8


def sampling_cost(path: Path, streams: int) -> dict[str, Any]:
    """Microseconds a token, medians over steps; `share` is of the decode's time."""
    model = Model(path, FLASH)
    context = Context(
        model, sequences=streams, context=_CONTEXT, batch=FLASH.total, threads=1, profile=FLASH
    )
    at, samplers = range(streams), [conditions.SAMPLER] * streams
    seeds = [conditions.seed(stream) for stream in at]
    tokens, times = [1 + stream for stream in at], []
    for step in range(_STEPS + _WARM):
        context.batch.clear()
        for stream in at:
            context.batch.add([tokens[stream]], step, stream, wanted=1)
        began = time.perf_counter()
        logits = context.decode()
        decoded = time.perf_counter()
        tokens = draw_rows(logits, samplers, seeds, [step] * streams)
        drawn = time.perf_counter()
        sketch_rows(logits, seeds, [step] * streams)
        times.append((decoded - began, drawn - decoded, time.perf_counter() - drawn))
    context.close()
    model.close()
    decode, draw, sketched = (
        1e6 * median(one[part] for one in times[_WARM:]) / streams for part in range(3)
    )
    return {
        "streams": streams,
        "decode_us": round(decode, 1),
        "draw_us": round(draw, 1),
        "sketch_us": round(sketched, 1),
        "share": round((draw + sketched) / decode, 4),
    }
