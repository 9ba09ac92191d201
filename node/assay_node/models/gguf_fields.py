"""Reads every key of a GGUF file with its value, arrays included, for making a card.

A vocabulary is half a million short texts: the `gguf` package makes several array views of each and
takes most of a minute, this takes about a second. What is read is checked against the bounds of
gguf.py and against the bytes that are there; tensors are not looked at.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay_node.models.gguf import (
    ARRAY,
    ARRAY_MAX,
    KEY_BYTES_MAX,
    KEYS_MAX,
    MAGIC,
    SCALARS,
    TEXT,
    TEXT_BYTES_MAX,
    VERSIONS,
)
from assay_protocol.errors import AssayError

_HEAD = struct.Struct("<4sIQQ")
_LENGTH = struct.Struct("<Q")
_ARRAY_HEAD = struct.Struct("<IQ")


def read_fields(path: Path) -> Mapping[str, Any]:
    """Scalars, texts, and arrays as lists. Raises AssayError "gguf_invalid" for anything else."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).fields()
    except (struct.error, UnicodeDecodeError, ValueError) as error:  # cut off, or not text
        raise AssayError("gguf_invalid", "the file is cut off or holds broken text") from error
    except OSError as error:
        raise AssayError("model_missing", f"{path} cannot be read") from error


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def fields(self) -> dict[str, Any]:
        magic, version, _, n_keys = _HEAD.unpack_from(self._data)
        _require(magic == MAGIC and version in VERSIONS, "it is no GGUF file of a known version")
        _require(n_keys <= KEYS_MAX, "too many keys")
        self._at = _HEAD.size
        found: dict[str, Any] = {}
        for _ in range(n_keys):
            key = self._text(KEY_BYTES_MAX)
            _require(key not in found, f"{key[:64]!r} is there twice")
            found[key] = self._value(self._scalar(4))
        return found

    def _value(self, kind: int) -> Any:
        if kind == TEXT:
            return self._text(TEXT_BYTES_MAX)
        if kind == ARRAY:
            return self._array()
        return self._scalar(kind)

    def _scalar(self, kind: int) -> Any:
        _require(kind in SCALARS, f"value type {kind} is not known")
        form = SCALARS[kind]
        (value,) = form.unpack_from(self._data, self._at)
        self._at += form.size
        return value

    def _array(self) -> list[Any]:
        kind, count = _ARRAY_HEAD.unpack_from(self._data, self._at)
        self._at += _ARRAY_HEAD.size
        _require(count <= ARRAY_MAX, "an array is too long")
        if kind == TEXT:
            return [self._text(TEXT_BYTES_MAX) for _ in range(count)]
        _require(kind in SCALARS, "an array of an unknown type, or of arrays")
        form = struct.Struct(f"<{count}{SCALARS[kind].format[-1]}")
        values = form.unpack_from(self._data, self._at)
        self._at += form.size
        return list(values)

    def _text(self, most: int) -> str:
        (size,) = _LENGTH.unpack_from(self._data, self._at)
        begin, end = self._at + _LENGTH.size, self._at + _LENGTH.size + size
        _require(size <= most, "a text is too long")
        _require(end <= len(self._data), "the file is cut off")
        self._at = end
        return self._data[begin:end].decode()


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise AssayError("gguf_invalid", complaint)
