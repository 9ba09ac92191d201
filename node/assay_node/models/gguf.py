"""Reads what a GGUF file says of itself, in bounded memory and without any library.

A model file comes from strangers. Before llama.cpp, a large C++ program, gets to see it, this
reader checks every count and length against a bound and against the bytes that are really there.
Of the vocabulary only its length is kept. Format: ggml's `docs/gguf.md`, versions 2 and 3.

- Whatever the bytes, the result is a header or AssayError("gguf_invalid"), never anything else.
- Every loop is over a count that was checked before, and every string is read after its length.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from assay_protocol.errors import AssayError

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
KEYS_MAX: Final = 4_096
KEY_BYTES_MAX: Final = 256
TEXT_BYTES_MAX: Final = 1 << 20
ARRAY_MAX: Final = 1 << 21
HEADER_BYTES_MAX: Final = 256 << 20
TENSORS_MAX: Final = 65_536
DIMENSIONS_MAX: Final = 4
ELEMENTS_MAX: Final = 1 << 44
ALIGNMENT_MAX: Final = 1 << 16
TEXT: Final = 8
ARRAY: Final = 9
SCALARS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32: Final = SCALARS[4]
_U64: Final = SCALARS[10]
# ggml_type -> (elements in a block, bytes of a block), from ggml.c's table of type traits.
# fmt: off
BLOCKS: Final = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18),
}
# fmt: on

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its bytes in the file, without padding."""

    name: str
    dimensions: tuple[int, ...]
    kind: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Everything before the weights. `lengths` holds the number of elements of each array."""

    values: Mapping[str, Scalar] = field(repr=False)
    lengths: Mapping[str, int] = field(repr=False)
    tensors: tuple[Tensor, ...] = field(repr=False)
    architecture: str
    size_bytes: int

    def number(self, name: str, default: int | None = None) -> int:
        """The integer `<architecture>.<name>`; raises AssayError("gguf_invalid") without one."""
        value = self.values.get(f"{self.architecture}.{name}", default)
        if type(value) is not int or value < 0:
            raise AssayError("gguf_invalid", f"the file has no number {name}")
        return value

    @property
    def embeds(self) -> bool:
        """Whether it names a pooling: how its rows become one vector of a text."""
        return self.number("pooling_type", 0) > 0

    def text(self, key: str) -> str:
        """The text under `key`, empty if there is none."""
        value = self.values.get(key, "")
        return value if isinstance(value, str) else ""


def read_header(path: Path) -> GgufHeader:
    """The header of the file at `path`, every tensor of which lies inside the file.

    Raises AssayError "model_missing" (cannot be opened) or "gguf_invalid".
    """
    try:
        with path.open("rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise AssayError("model_missing", f"{path} cannot be read") from error


def _read(file: BinaryIO, size_bytes: int) -> GgufHeader:
    source = _Source(file, min(size_bytes, HEADER_BYTES_MAX))
    _require(source.take(4) == MAGIC, "it does not begin like a GGUF file")
    version = source.number(_U32)
    _require(version in VERSIONS, f"version {version} is not known")
    n_tensors, n_keys = source.number(_U64), source.number(_U64)
    _require(n_tensors <= TENSORS_MAX, "too many tensors")
    _require(n_keys <= KEYS_MAX, "too many keys")
    values: dict[str, Scalar] = {}
    lengths: dict[str, int] = {}
    for _ in range(n_keys):
        key = source.text(KEY_BYTES_MAX)
        _require(key not in values and key not in lengths, f"{key[:64]!r} is there twice")
        kind = source.number(_U32)
        if kind == ARRAY:
            lengths[key] = _skip_array(source)
        else:
            values[key] = source.text(TEXT_BYTES_MAX) if kind == TEXT else source.scalar(kind)
    tensors = _read_tensors(source, n_tensors, _alignment(values), size_bytes)
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise AssayError("gguf_invalid", "the file does not say its architecture")
    return GgufHeader(values, lengths, tensors, architecture, size_bytes)


def _skip_array(source: _Source) -> int:
    """Step over one array; the number of its elements."""
    kind, count = source.number(_U32), source.number(_U64)
    _require(count <= ARRAY_MAX, "an array is too long")
    if kind == TEXT:
        for _ in range(count):
            source.skip(source.number(_U64))
        return count
    _require(kind in SCALARS, "an array of an unknown type, or of arrays")
    source.skip(count * SCALARS[kind].size)
    return count


def _read_tensors(
    source: _Source, count: int, alignment: int, size_bytes: int
) -> tuple[Tensor, ...]:
    """The tensors' descriptions; all of their bytes must be in the file, and none twice."""
    names: set[str] = set()
    tensors, spans = [], []
    for _ in range(count):
        name = source.text(KEY_BYTES_MAX)
        _require(name not in names, "two tensors have one name")
        names.add(name)
        n_dimensions = source.number(_U32)
        _require(1 <= n_dimensions <= DIMENSIONS_MAX, "a tensor of too many dimensions")
        dimensions = tuple(source.number(_U64) for _ in range(n_dimensions))
        kind, offset = source.number(_U32), source.number(_U64)
        _require(offset % alignment == 0, "a tensor that is not aligned")
        tensors.append(Tensor(name, dimensions, kind, _tensor_bytes(dimensions, kind)))
        spans.append((offset, tensors[-1].size_bytes))
    begin, reached = -(-source.position // alignment) * alignment, 0
    for offset, size in sorted(spans):
        _require(offset >= reached, "two tensors overlap")
        reached = offset + size
    _require(begin + reached <= size_bytes or not spans, "the file is cut off")
    return tuple(tensors)


def _tensor_bytes(dimensions: tuple[int, ...], kind: int) -> int:
    _require(kind in BLOCKS, f"tensor type {kind} is not known")
    elements = math.prod(dimensions)
    _require(0 < elements <= ELEMENTS_MAX, "a tensor of an impossible size")
    in_block, block_bytes = BLOCKS[kind]
    _require(dimensions[0] % in_block == 0, "a row that is not whole blocks")
    return elements // in_block * block_bytes


def _alignment(values: Mapping[str, Scalar]) -> int:
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= ALIGNMENT_MAX:
        raise AssayError("gguf_invalid", "an impossible alignment")
    _require(alignment & (alignment - 1) == 0, "an impossible alignment")
    return alignment


class _Source:
    """The file from its beginning, of which at most `limit` bytes may be passed."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._limit, self.position = file, limit, 0

    def take(self, count: int) -> bytes:
        self._pass(count)
        data = self._file.read(count)
        _require(len(data) == count, "the file is cut off")
        return data

    def skip(self, count: int) -> None:
        self._pass(count)
        self._file.seek(count, os.SEEK_CUR)

    def number(self, form: struct.Struct) -> int:
        value: int = form.unpack(self.take(form.size))[0]
        return value

    def scalar(self, kind: int) -> Scalar:
        _require(kind in SCALARS, f"value type {kind} is not known")
        form = SCALARS[kind]
        value: Scalar = form.unpack(self.take(form.size))[0]
        return value

    def text(self, most: int) -> str:
        size = self.number(_U64)
        _require(size <= most, "a text is too long")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as error:
            raise AssayError("gguf_invalid", "a text is not UTF-8") from error

    def _pass(self, count: int) -> None:
        self.position += count
        _require(self.position <= self._limit, "the file is cut off, or its header is too large")


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise AssayError("gguf_invalid", complaint)
