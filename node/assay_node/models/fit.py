"""How much memory a model takes here, known before it is loaded, and what would fit if it does not.

Weights are the file's tensors. The KV memory holds, for each token and layer, keys and values of
`head_count_kv` heads as f16; llama.cpp pads a context to 256 tokens. Compute buffers are the widest
tensors of one decode: logits, feed-forward, and attention scores where flash attention is off.
The copy llama.cpp hands out of the logits is not counted: few rows of it are ever written.
A replay has a context of one sequence of its own. docs/engine.md compares this with what was
measured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from assay_node.engine.profiles import FLASH, PLAIN, Profile
from assay_node.models.gguf import GgufHeader
from assay_protocol.errors import AssayError

PROCESS_BYTES: Final = 56 << 20  # Python, numpy and llama.cpp, before a model (measured)
CONTEXT_STEP: Final = 256
CONTEXT_MIN: Final = 256
WIDE_TENSORS: Final = 4  # of the feed-forward's width alive at once in the graph
SPARE_PERCENT: Final = 10  # of what is free is left alone
_F32: Final = 4
_F16: Final = 2
_LAYER: Final = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes, by what they are for."""

    weights: int
    kv: int
    compute: int
    process: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute + self.process


@dataclass(frozen=True, slots=True)
class Fit:
    """What to start with. `gpu_layers` is None where the engine's own default is right."""

    slots: int
    context: int
    gpu_layers: int | None = None


def estimate(
    header: GgufHeader, *, slots: int, context: int, profile: Profile | None = None
) -> Need:
    """The engine's memory; without a profile, the larger need of the two exact ones.

    Raises AssayError("gguf_invalid") if the file does not tell its shape.
    """
    profiles = (FLASH, PLAIN) if profile is None else (profile,)
    context = _padded(header, context)
    answering = max(_compute(header, one, one.total + slots, context) for one in profiles)
    replaying = max(_compute(header, one, one.replay_chunk, context) for one in profiles)
    return Need(
        weights=sum(tensor.size_bytes for tensor in header.tensors),
        kv=_kv_token_bytes(header) * context * (slots + 1),
        compute=answering + replaying,
        process=PROCESS_BYTES,
    )


def fit(header: GgufHeader, free_bytes: int, *, slots: int, context: int, shrink: bool) -> Fit:
    """What of `slots` and `context` fits into `free_bytes`: fewer slots first, then less context.

    Raises AssayError("model_too_large"), saying what would fit, if that is nothing or, without
    `shrink`, less than was asked for.
    """
    bound = usable(free_bytes)
    wanted = estimate(header, slots=slots, context=context)
    for fewer, shorter in _smaller(slots, context):
        if estimate(header, slots=fewer, context=shorter).total <= bound:
            if shrink or (fewer, shorter) == (slots, context):
                return Fit(fewer, shorter)
            advice = f"slots {fewer} and context {shorter} would fit"
            break
    else:
        advice = "no setting makes it fit: take a smaller quant or model"
    raise AssayError(
        "model_too_large",
        f"{slots} slots of {context} tokens need {wanted.total >> 20} MiB, "
        f"{bound >> 20} MiB may be used; {advice}",
    )


def larger_decodes(header: GgufHeader, rows: int) -> int:
    """Bytes that buffers grow by where one decode, of an answer or a replay, may take `rows`."""
    more = max(0, rows - FLASH.total) + max(0, rows - FLASH.replay_chunk)
    return _compute(header, FLASH, more, 0)


def usable(free_bytes: int) -> int:
    """What models may take of the memory that is free."""
    return free_bytes * (100 - SPARE_PERCENT) // 100


def gpu_layers(header: GgufHeader, vram_bytes: int, *, slots: int, context: int) -> int:
    """How many layers, from the last to the first, fit beside their KV memory and the buffers.

    llama.cpp counts what is not in a layer (the output) as one layer more, put there first.
    """
    layers = header.number("block_count")
    sizes = dict.fromkeys(range(layers), 0)
    for tensor in header.tensors:
        named = _LAYER.match(tensor.name)
        if named and int(named[1]) in sizes:
            sizes[int(named[1])] += tensor.size_bytes
    need = estimate(header, slots=slots, context=context)
    left = usable(vram_bytes) - need.compute
    left -= need.weights - sum(sizes.values())
    count = 0 if left < 0 else 1
    for layer in reversed(range(layers)):
        left -= sizes[layer] + need.kv // max(1, layers)
        if left < 0:
            break
        count += 1
    return count


def _smaller(slots: int, context: int) -> list[tuple[int, int]]:
    """Settings from the wanted ones down."""
    ways = [(slots, context)]
    while slots > 1:
        slots //= 2
        ways.append((slots, context))
    while context > CONTEXT_MIN:
        context = max(CONTEXT_MIN, context // 2)
        ways.append((slots, context))
    return ways


def _padded(header: GgufHeader, context: int) -> int:
    context = min(context, header.number("context_length"))
    return -(-context // CONTEXT_STEP) * CONTEXT_STEP


def _kv_token_bytes(header: GgufHeader) -> int:
    heads = max(1, header.number("attention.head_count", 1))
    width = header.number("embedding_length") // heads
    keys = header.number("attention.key_length", width)
    values = header.number("attention.value_length", width)
    kv_heads = header.number("attention.head_count_kv", heads)
    return header.number("block_count") * kv_heads * (keys + values) * _F16


def _compute(header: GgufHeader, profile: Profile, rows: int, context: int) -> int:
    """The largest tensors of a decode of `rows` tokens."""
    vocabulary = header.lengths.get("tokenizer.ggml.tokens", 0)
    width = header.number("feed_forward_length", 4 * header.number("embedding_length"))
    cells = 0 if profile.flash else context * header.number("attention.head_count", 1)
    return rows * _F32 * (vocabulary + WIDE_TENSORS * width + 2 * cells)
