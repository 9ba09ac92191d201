"""A larger model for speed alone: its weights are drawn at random, its answers are noise.

No package brings an instruct model of this size. What a step costs depends on shapes and formats,
not on what the weights say; the tokenizer and the chat template are those of the source file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import gguf
import numpy as np

# SmolLM2-360M's: layers, width, feed forward, heads, heads of keys and values; 362 million weights.
LAYERS: Final = 32
WIDTH: Final = 960
FORWARD: Final = 2_560
HEADS: Final = 15
KV_HEADS: Final = 5
HEAD: Final = WIDTH // HEADS
NAME: Final = "random-362M"
_DIMENSIONS: Final = {
    "llama.block_count": LAYERS,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": FORWARD,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.rope.dimension_count": HEAD,
    "general.file_type": int(gguf.LlamaFileType.MOSTLY_F16),
}
_OF_LAYER: Final = {  # outputs, inputs
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (KV_HEADS * HEAD, WIDTH),
    "attn_v": (KV_HEADS * HEAD, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (FORWARD, WIDTH),
    "ffn_up": (FORWARD, WIDTH),
    "ffn_down": (WIDTH, FORWARD),
}


def write_random_model(source: Path, target: Path) -> None:
    """The file `target` in F16, with `source`'s vocabulary; the same bytes every time."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = _DIMENSIONS.get(field.name) or field.contents()
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], inner)
    vocabulary = len(reader.fields["tokenizer.ggml.tokens"].data)
    random = np.random.default_rng(362)
    _add(writer, random, "token_embd", (vocabulary, WIDTH))
    for layer in range(LAYERS):
        for name, shape in _OF_LAYER.items():
            _add(writer, random, f"blk.{layer}.{name}", shape)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(
    writer: gguf.GGUFWriter, random: np.random.Generator, name: str, shape: tuple[int, int]
) -> None:
    values = random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[1]))
    writer.add_tensor(f"{name}.weight", values.astype(np.float16))
