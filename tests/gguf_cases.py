"""Small GGUF files, built byte by byte so that tests can break any part of them."""

from __future__ import annotations

import struct
from collections.abc import Mapping

PADDING = 32
VALUES: dict[str, str | int] = {
    "general.architecture": "llama",
    "general.license": "apache-2.0",
    "general.file_type": 0,
    "llama.context_length": 512,
    "llama.block_count": 1,
    "llama.embedding_length": 32,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.chat_template": "{{ messages }}",
}


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key: str, value: str | int) -> bytes:
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    return text(key) + struct.pack("<II", 4, value)


def tensor(name: str, dimensions: tuple[int, ...], kind: int, offset: int) -> bytes:
    packed = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return text(name) + packed + struct.pack("<IQ", kind, offset)


def gguf(
    values: Mapping[str, str | int] = VALUES,
    *,
    extra: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (tensor("token_embd.weight", (32, 8), 0, 0),),
    weights: bytes = bytes(1024),
) -> bytes:
    """A whole file; `extra` are further encoded key-value pairs."""
    pairs = [pair(key, value) for key, value in values.items()] + list(extra)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    head += b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % PADDING) + weights
