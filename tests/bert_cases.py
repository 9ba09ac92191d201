"""A BERT of arbitrary numbers, as sentence-transformers keep one, small enough for every test."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (*MARKS, *(f"word{number}" for number in range(54)), "##s", "##ing", "##ed", "a", "b")
WIDTH, HEADS, INNER, LAYERS, POSITIONS = 64, 2, 128, 2, 160
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "max_position_embeddings": POSITIONS,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    "vocab_size": len(WORDS),
}
MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
MODES["last"] = "pooling_mode_lasttoken"

Tensors = dict[str, NDArray[np.float32]]


def bert_tensors(seed: int = 0) -> Tensors:
    """All weights of CONFIG, the same ones for the same seed."""
    numbers = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        square = (f"{layer}.attention.{name}" for name in ("self.query", "self.key", "self.value"))
        for name in (*square, f"{layer}.attention.output.dense"):
            shapes |= {f"{name}.weight": (WIDTH, WIDTH), f"{name}.bias": (WIDTH,)}
        up, down = f"{layer}.intermediate.dense", f"{layer}.output.dense"
        shapes |= {f"{up}.weight": (INNER, WIDTH), f"{up}.bias": (INNER,)}
        shapes |= {f"{down}.weight": (WIDTH, INNER), f"{down}.bias": (WIDTH,)}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    tensors = {
        name: numbers.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()
    }
    for name in norms:
        tensors[f"{name}.weight"] = numbers.normal(1, 0.1, WIDTH).astype(np.float32)
        tensors[f"{name}.bias"] = numbers.normal(0, 0.1, WIDTH).astype(np.float32)
    return tensors


def write_bert(
    folder: Path,
    pooling: str | None = "mean",
    *,
    tensors: Tensors | None = None,
    config: Mapping[str, Any] = CONFIG,
) -> Path:
    """Write the whole folder; returns it. Without `pooling` there is no 1_Pooling."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    added = [{"content": mark, "special": True} for mark in MARKS]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        modes = {key: name == pooling for name, key in MODES.items()}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    every: dict[str, NDArray[Any]] = dict(bert_tensors() if tensors is None else tensors)
    every["embeddings.position_ids"] = np.arange(POSITIONS, dtype="<i8")[None]  # older exports
    every["pooler.dense.bias"] = np.zeros(WIDTH, np.float32)
    (folder / "model.safetensors").write_bytes(safetensors(every))
    return folder


def safetensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The file format, written without its library."""
    kinds = {"float32": "F32", "float16": "F16", "int64": "I64"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(tensor).tobytes()
        span = [len(body), len(body) + len(data)]
        header[name] = {
            "dtype": kinds[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": span,
        }
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def forward(tensors: Tensors, tokens: tuple[int, ...]) -> NDArray[np.float64]:
    """The last layer's rows by the formulas of Devlin et al. (2018), in double precision."""
    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def dense(name: str, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return rows @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def normed(name: str, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        centred = rows - rows.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + CONFIG["layer_norm_eps"])
        return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    words, positions, types = (
        weights[f"embeddings.{name}_embeddings.weight"]
        for name in ("word", "position", "token_type")
    )
    rows = normed("embeddings.LayerNorm", words[list(tokens)] + positions[: len(tokens)] + types[0])
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        query, key, value = (
            dense(f"{layer}.attention.self.{name}", rows).reshape(len(rows), HEADS, -1)
            for name in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(WIDTH // HEADS)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        seen = np.einsum("hqk,khd->qhd", shares, value).reshape(len(rows), WIDTH)
        output = dense(f"{layer}.attention.output.dense", seen)
        rows = normed(f"{layer}.attention.output.LayerNorm", rows + output)
        inner = dense(f"{layer}.intermediate.dense", rows)
        inner *= 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        rows = normed(f"{layer}.output.LayerNorm", rows + dense(f"{layer}.output.dense", inner))
    return rows
