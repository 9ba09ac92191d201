"""Vision models of arbitrary numbers: a small llama and a projector of each kind.

Nobody trained them, so their answers mean nothing; but they depend on every pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from assay_protocol.images import spelled
from assay_protocol.messages import Image

BEGIN, END = "<start_of_image>", "<end_of_image>"
MARKS = ("<unk>", "<s>", "</s>", BEGIN, END)
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
WORDS = (*MARKS, *BYTES, *(f"\u2581word{number}" for number in range(59)))
WIDTH, HEADS, INNER, LAYERS, CONTEXT = 64, 4, 128, 2, 1024
WINDOW = 96  # tokens, of the gemma3
NORMS = {"llama": {"attn_norm": WIDTH, "ffn_norm": WIDTH}}
NORMS["gemma3"] = NORMS["llama"] | {"post_attention_norm": WIDTH, "post_ffw_norm": WIDTH}
NORMS["gemma3"] |= {"attn_q_norm": WIDTH // HEADS, "attn_k_norm": WIDTH // HEADS}
TOKENS = 64  # of an image, by either kind: more than one decode of the exact road takes
SIDES = {"mlp": 32, "gemma3": 64}

Tensor = NDArray[Any]


@dataclass(frozen=True)
class Tower:
    """The part that looks: patches of a square image through so many layers."""

    side: int
    patch: int = 4
    width: int = 32
    heads: int = 2
    layers: int = 2
    merged: int = 2  # patches a side that become one position, where the kind merges any
    half: bool = False  # matrices in F16


def write_seer(path: Path, seed: int = 5, arch: str = "llama") -> Path:
    """The language model: "llama", or "gemma3", whose layers see a window of the text only."""
    kind = gguf.GGMLQuantizationType.Q8_0
    numbers = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name("seer")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    if arch == "gemma3":
        writer.add_key_length(WIDTH // HEADS)
        writer.add_value_length(WIDTH // HEADS)
        writer.add_sliding_window(WINDOW)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(WORDS)
    writer.add_token_scores([0.0] * len(WORDS))
    control, byte, normal = gguf.TokenType.CONTROL, gguf.TokenType.BYTE, gguf.TokenType.NORMAL
    kinds = [control] * len(MARKS) + [byte] * len(BYTES)
    writer.add_token_types(kinds + [normal] * (len(WORDS) - len(kinds)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    half = WIDTH // 2
    shapes = {"token_embd": (len(WORDS), WIDTH), "output": (len(WORDS), WIDTH)}
    for layer in (f"blk.{number}" for number in range(LAYERS)):
        shapes |= {f"{layer}.attn_q": (WIDTH, WIDTH), f"{layer}.attn_output": (WIDTH, WIDTH)}
        shapes |= {f"{layer}.attn_k": (half, WIDTH), f"{layer}.attn_v": (half, WIDTH)}
        shapes |= {f"{layer}.ffn_gate": (INNER, WIDTH), f"{layer}.ffn_up": (INNER, WIDTH)}
        shapes |= {f"{layer}.ffn_down": (WIDTH, INNER)}
        for norm, width in NORMS[arch].items():
            writer.add_tensor(f"{layer}.{norm}.weight", np.ones(width, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for name, shape in shapes.items():
        scale = 1.0 if name == "token_embd" else 2.0 / np.sqrt(shape[1])
        data = gguf.quants.quantize(numbers.normal(0, scale, shape).astype(np.float32), kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
    return _write(writer, path)


def write_projector(
    path: Path,
    kind: str,
    *,
    seed: int = 9,
    width: int = WIDTH,
    tower: Tower | None = None,
    values: Mapping[str, Any] | None = None,
) -> Path:
    """A projector of `kind` for a language model of that width; `values` stand beside the usual or
    instead of them."""
    tower = Tower(SIDES.get(kind, 32)) if tower is None else tower
    plain: dict[str, Any] = {
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": kind,
        "clip.use_gelu": True,
        "clip.vision.embedding_length": tower.width,
        "clip.vision.attention.head_count": tower.heads,
        "clip.vision.feed_forward_length": 4 * tower.width,
        "clip.vision.block_count": tower.layers,
        "clip.vision.projection_dim": width,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.image_size": tower.side,
        "clip.vision.patch_size": tower.patch,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
    }
    if kind == "gemma3":
        plain["clip.vision.projector.scale_factor"] = tower.merged
    writer = gguf.GGUFWriter(path, "clip")
    for key, value in (plain | dict(values or {})).items():
        _add(writer, key, value)
    for name, tensor in _projector_tensors(kind, tower, width, seed).items():
        writer.add_tensor(name, tensor)
    return _write(writer, path)


def image(seed: int, width: int = 8, height: int = 8) -> Image:
    """Noise, the same for the same seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, 3 * width * height, np.uint8)
    return Image(width=width, height=height, pixels=pixels.tobytes())


def shown(one: Image, *, marked: bool = True) -> tuple[int, ...]:
    """How it stands in a prompt of these models."""
    tokens = spelled(one, TOKENS)
    return (WORDS.index(BEGIN), *tokens, WORDS.index(END)) if marked else tokens


def _projector_tensors(kind: str, tower: Tower, width: int, seed: int) -> dict[str, Tensor]:
    numbers = np.random.default_rng(seed)
    wide = tower.width
    matrix = np.float16 if tower.half else np.float32

    def some(*shape: int) -> Tensor:
        values = numbers.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[-1]))
        return values.astype(matrix) if len(shape) > 1 else values

    patches = (tower.side // tower.patch) ** 2
    clip = kind != "gemma3"  # which puts a token of its own behind the patches
    tensors = {
        "v.patch_embd.weight": some(wide, 3, tower.patch, tower.patch),
        "v.position_embd.weight": some(patches + clip, wide).astype(np.float32),
    }
    if clip:
        tensors |= {"v.class_embd": some(wide)} | _norm("v.pre_ln", wide)
        tensors |= {"mm.0.weight": some(width, wide), "mm.0.bias": some(width)}
        tensors |= {"mm.2.weight": some(width, width), "mm.2.bias": some(width)}
    else:
        tensors |= {"v.patch_embd.bias": some(wide)} | _norm("v.post_ln", wide)
        tensors["mm.soft_emb_norm.weight"] = np.ones(wide, np.float32)
        tensors["mm.input_projection.weight"] = some(wide, width)
    for layer in (f"v.blk.{number}" for number in range(tower.layers)):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensors |= {
                f"{layer}.{name}.weight": some(wide, wide),
                f"{layer}.{name}.bias": some(wide),
            }
        tensors |= _norm(f"{layer}.ln1", wide) | _norm(f"{layer}.ln2", wide)
        for name, shape in (("ffn_up", (4 * wide, wide)), ("ffn_down", (wide, 4 * wide))):
            tensors |= {
                f"{layer}.{name}.weight": some(*shape),
                f"{layer}.{name}.bias": some(shape[0]),
            }
    return tensors


def _norm(name: str, width: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight": np.ones(width, np.float32),
        f"{name}.bias": np.zeros(width, np.float32),
    }


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)


def _write(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
