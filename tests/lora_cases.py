"""LoRA adapters for the test model: arbitrary numbers, large enough to change every answer."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

WIDTH, KEYS, LAYERS = 576, 192, 30  # of SmolLM2-135M
RANK = 32  # whole blocks of every quantization
OF_LAYER = {"attn_q": (WIDTH, WIDTH), "attn_v": (WIDTH, KEYS)}  # in, out
STRENGTH = 0.3


def write_adapter(
    path: Path,
    seed: int,
    kind: Kind = Kind.F32,
    *,
    arch: str = "llama",
    layers: int = LAYERS,
    invoked_by: tuple[int, ...] = (),
) -> Path:
    """The same file for the same arguments, at `path`, whose folder exists."""
    numbers = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    if invoked_by:
        key, tokens = "adapter.alora.invocation_tokens", list(invoked_by)
        writer.add_key_value(key, tokens, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT32)
    for layer in range(layers):
        for name, (inner, outer) in OF_LAYER.items():
            for letter, shape in (("a", (RANK, inner)), ("b", (outer, RANK))):
                scale = STRENGTH / np.sqrt(shape[1])
                values = numbers.normal(0, scale, shape).astype(np.float32)
                data = gguf.quants.quantize(values, kind)
                title = f"blk.{layer}.{name}.weight.lora_{letter}"
                writer.add_tensor(title, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
