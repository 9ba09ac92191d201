"""A model file with blocks left out of its middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFReader

from gguf_cases import VALUES, gguf, tensor
from models import remove_layers, vocabulary

LAYERS = 4
EMBEDDING = 4 * 32 * 8  # bytes
NORM = 4 * 32


def _whole(path: Path) -> Path:
    tensors = [tensor("token_embd.weight", (32, 8), 0, 0)]
    weights = [np.ones(32 * 8, np.float32)]
    for layer in range(LAYERS):
        name = f"blk.{layer}.attn_norm.weight"
        tensors.append(tensor(name, (32,), 0, EMBEDDING + NORM * layer))
        weights.append(np.full(32, layer, np.float32))
    values = VALUES | {"llama.block_count": LAYERS}
    data = b"".join(one.tobytes() for one in weights)
    path.write_bytes(gguf(values, tensors=tuple(tensors), weights=data))
    return path


def test_the_middle_is_gone_and_the_rest_as_it_was(tmp_path: Path) -> None:
    whole, less = _whole(tmp_path / "whole.gguf"), tmp_path / "less.gguf"
    remove_layers(whole, less, 2)
    reader = GGUFReader(less)
    kept = {one.name: one.data for one in reader.tensors}
    assert reader.fields["llama.block_count"].contents() == LAYERS - 2
    assert reader.fields["general.license"].contents() == "apache-2.0"
    assert sorted(kept) == [
        "blk.0.attn_norm.weight", "blk.1.attn_norm.weight", "token_embd.weight"
    ]  # fmt: skip
    assert (kept["blk.0.attn_norm.weight"] == 0).all()
    assert (kept["blk.1.attn_norm.weight"] == LAYERS - 1).all()


def test_the_vocabulary_is_read_from_the_embedding(tmp_path: Path) -> None:
    assert vocabulary(_whole(tmp_path / "whole.gguf")) == 8
