"""Writes a BERT encoder, as sentence-transformers keep it in a folder, as a GGUF file.

    python -m assay_node.models.bert FOLDER MODEL.gguf [--kind f16]

Most embedding models are published as such a folder (config.json, vocab.txt, tokenizer.json,
model.safetensors, 1_Pooling/config.json). Only numpy and gguf are needed. The classes that BERT
was trained with (`pooler`) are left out: pooling is what 1_Pooling says, or none without that file.

The tensor file comes from strangers: its header is bounded and every offset is checked.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
from numpy.typing import NDArray

from assay_network.durable import name_durably
from assay_node.models.fetch import disk_errors
from assay_protocol.errors import AssayError

KINDS: Final = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16}
HEADER_BYTES_MAX: Final = 16 << 20
TENSORS_MAX: Final = 16_384
TOKENIZER_PRE: Final = "jina-v2-en"  # llama.cpp's name for BERT's plain splitting into words
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
}
_CONTRADICTIONS: Final = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
)
_NOT_WEIGHTS: Final = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
_ADDED_TO: Final = ("token_types.weight", "position_embd.weight")  # llama.cpp adds them as floats
_POOLINGS: Final = {
    "pooling_mode_mean_tokens": gguf.PoolingType.MEAN,
    "pooling_mode_cls_token": gguf.PoolingType.CLS,
    "pooling_mode_lasttoken": gguf.PoolingType.LAST,
}
_WORD_BEGINS: Final = "\u2581"  # as llama.cpp marks it; BERT marks the pieces that do not begin one
_HYPERPARAMETERS: Final = {
    "max_position_embeddings": "add_context_length",
    "hidden_size": "add_embedding_length",
    "intermediate_size": "add_feed_forward_length",
    "num_hidden_layers": "add_block_count",
    "num_attention_heads": "add_head_count",
    "layer_norm_eps": "add_layer_norm_eps",
    "type_vocab_size": "add_token_type_count",
}
_MARKS: Final = {
    "[CLS]": "add_bos_token_id",
    "[SEP]": "add_eos_token_id",
    "[UNK]": "add_unk_token_id",
    "[PAD]": "add_pad_token_id",
    "[MASK]": "add_mask_token_id",
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m assay_node.models.bert")
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--kind", choices=sorted(KINDS), default="f16", help="of the weights")
    given = parser.parse_args(argv)
    try:
        print(convert_bert(given.folder, given.target, kind=given.kind))
    except AssayError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def convert_bert(folder: Path, target: Path, *, kind: str = "f16") -> Path:
    """Write the model in `folder` to `target`, which appears only when complete; returns it.

    `kind`, a key of KINDS, is the format of matrices; vectors and positions are f32 always.
    Raises AssayError: "model_missing" (no such file), "config_invalid" (another kind of model),
    "model_corrupt" (the tensors' file contradicts itself or the configuration), "disk_full".
    """
    config = _config(folder)
    tensors = _renamed(read_safetensors(folder / "model.safetensors"), config)
    partial = target.with_name(target.name + ".part")
    with disk_errors():
        writer = gguf.GGUFWriter(partial, "bert")
        _describe(writer, folder, config, kind)
        _add_vocabulary(writer, folder)
        for name, tensor in tensors.items():
            halved = kind == "f16" and tensor.ndim > 1 and name not in _ADDED_TO
            writer.add_tensor(name, tensor.astype(np.float16 if halved else np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        name_durably(partial, target)
    return target


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of the file, by its name, as the file has it (safetensors' README, "Format").

    Raises AssayError: "model_missing", "model_corrupt".
    """
    data = _read(path)
    if len(data) < 8:
        raise AssayError("model_corrupt", f"{path.name} is cut off")
    (size,) = struct.unpack_from("<Q", data)
    if size > min(HEADER_BYTES_MAX, len(data) - 8):
        raise AssayError("model_corrupt", f"{path.name} has no header of this size")
    try:
        header = json.loads(data[8 : 8 + size])
        header.pop("__metadata__", None)
        if len(header) > TENSORS_MAX:
            raise AssayError("model_corrupt", f"{path.name} has too many tensors")
        body = memoryview(data)[8 + size :]
        return {name: _tensor(body, entry) for name, entry in header.items()}
    except _CONTRADICTIONS as error:
        raise AssayError("model_corrupt", f"{path.name} contradicts itself") from error


def _tensor(body: memoryview, entry: dict[str, Any]) -> NDArray[Any]:
    """Raises ValueError, TypeError or KeyError where the entry is not of `body`."""
    dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(body) or min(shape, default=1) < 0:
        raise ValueError(entry)
    return np.frombuffer(body[begin:end], dtype).reshape(shape)


def _config(folder: Path) -> dict[str, Any]:
    config = _json(folder / "config.json")
    plain = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, wanted in plain.items():
        if config.get(key, wanted) != wanted:
            raise AssayError("config_invalid", f"{key} is not {wanted!r}")
    for key in _HYPERPARAMETERS:
        value = config.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise AssayError("config_invalid", f"config.json has no {key}")
    return config


def _describe(writer: Any, folder: Path, config: dict[str, Any], kind: str) -> None:
    writer.add_name(folder.name)
    writer.add_file_type(KINDS[kind])
    writer.add_causal_attention(False)
    for key, method in _HYPERPARAMETERS.items():
        getattr(writer, method)(config[key])
    modes = folder / "1_Pooling" / "config.json"
    if modes.is_file():
        writer.add_pooling_type(_pooling(_json(modes)))


def _pooling(modes: dict[str, Any]) -> gguf.PoolingType:
    chosen = [key for key, value in modes.items() if key.startswith("pooling_mode") and value]
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        raise AssayError("config_invalid", f"no pooling llama.cpp knows: {chosen}")
    return _POOLINGS[chosen[0]]


def _add_vocabulary(writer: Any, folder: Path) -> None:
    words = _text(folder / "vocab.txt").removesuffix("\n").split("\n")
    special = {
        token.get("content")
        for token in _json(folder / "tokenizer.json").get("added_tokens", [])
        if token.get("special")
    }
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre(TOKENIZER_PRE)
    writer.add_token_list([word if word in special else _piece(word) for word in words])
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([kinds[word in special] for word in words])
    for word, method in _MARKS.items():
        if word not in words:
            raise AssayError("config_invalid", f"the vocabulary has no {word}")
        getattr(writer, method)(words.index(word))
    writer.add_sep_token_id(words.index("[SEP]"))


def _piece(word: str) -> str:
    return word[2:] if word.startswith("##") else _WORD_BEGINS + word


def _renamed(tensors: dict[str, NDArray[Any]], config: dict[str, Any]) -> dict[str, NDArray[Any]]:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    renamed = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix("bert.")
        if plain in _NOT_WEIGHTS:
            continue
        ours = names.get_name(plain, try_suffixes=(".weight", ".bias"))
        if ours is None:
            raise AssayError("config_invalid", f"BERT has no tensor {name}")
        renamed[ours] = tensor
    words = renamed.get("token_embd.weight")
    if words is None or words.shape != (config.get("vocab_size"), config["hidden_size"]):
        raise AssayError("model_corrupt", "the words' embeddings are not of the size configured")
    return renamed


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise AssayError("config_invalid", f"{path.name} is not JSON") from error
    if not isinstance(value, dict):
        raise AssayError("config_invalid", f"{path.name} holds no object")
    return value


def _text(path: Path) -> str:
    try:
        return _read(path).decode()
    except UnicodeDecodeError as error:
        raise AssayError("config_invalid", f"{path.name} is not UTF-8") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AssayError("model_missing", f"{path} cannot be read") from error


if __name__ == "__main__":
    sys.exit(main())
