"""The model files of the benchmark, made once and kept: other formats, fewer layers.

Everything is made from one file by way of F32, so that the declared Q8_0 and its cheaper versions
carry the same rounding. A file with fewer layers lacks blocks of its middle; the rest is unchanged.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from gguf import GGUFReader, GGUFValueType, GGUFWriter

from assay_node.models.fetch import CACHE_DIRECTORY, TEST_MODEL_PATH

BENCH: Final = CACHE_DIRECTORY / "bench"
_KINDS: Final = {  # llama_ftype of llama.h
    "F32": 0, "Q4_0": 2, "Q8_0": 7, "Q2_K": 10, "Q3_K_M": 12, "Q4_K_M": 15, "Q5_K_M": 17,
    "Q6_K": 18,
}  # fmt: skip
_LESS: Final = "-less-"
_AS_FLOATS: Final = "Q8_0-as-F32"


def model_file(kind: str, source: Path = TEST_MODEL_PATH) -> Path:
    """`source` in another format, as Q8_0 held as floats, or with layers missing (Q8_0-less-3)."""
    target = BENCH / "models" / f"{source.stem.split('.')[0]}.{kind}.gguf"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    if _LESS in kind:
        whole, less = kind.split(_LESS)
        remove_layers(model_file(whole, source), part, int(less))
    elif kind == _AS_FLOATS:
        _quantize(model_file("Q8_0", source), part, "F32")
    else:
        _quantize(source if kind == "F32" else model_file("F32", source), part, kind)
    part.rename(target)
    return target


def remove_layers(source: Path, target: Path, less: int) -> None:
    """Copy a GGUF file without `less` blocks from its middle; later blocks move up."""
    reader = GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    counter = f"{architecture}.block_count"
    layers = reader.fields[counter].contents()
    first = (layers - less) // 2
    writer = GGUFWriter(target, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = layers - less if name == counter else field.contents()
        inner = field.types[1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        moved = _moved(tensor.name, first, less)
        if moved:
            writer.add_tensor(moved, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _moved(name: str, first: int, less: int) -> str:
    """A tensor's name in the shorter file; empty if its block is left out."""
    if not name.startswith("blk."):
        return name
    _, number, rest = name.split(".", 2)
    block = int(number)
    if block < first:
        return name
    return f"blk.{block - less}.{rest}" if block >= first + less else ""


def _quantize(source: Path, target: Path, kind: str) -> None:
    from llama_cpp import llama_cpp  # here: simulations of recorded audits do without it

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = _KINDS[kind], 1, True
    code = llama_cpp.llama_model_quantize(
        os.fsencode(source), os.fsencode(target), ctypes.byref(params)
    )
    assert code == 0, f"llama_model_quantize returned {code}"


def vocabulary(path: Path) -> int:
    """How many tokens the file's model knows."""
    embedding = next(t for t in GGUFReader(path).tensors if t.name == "token_embd.weight")
    return int(embedding.shape[1])
