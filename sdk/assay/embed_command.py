"""`assay embed`: texts to vectors, a line of JSON each or one NumPy file, with receipts kept.

All texts are read and looked at before the first is paid for. They go out some at a time, and what
has come is printed before the next go: an error later takes nothing back.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from assay.chat_command import connect, keep_records
from assay.cli import FAILED, OK, USAGE, print_json, printable
from assay.embedding import TEXTS_MAX, Embeddings, EmbeddingsFailed
from assay.records import ReceiptRecord
from assay.verify import verify
from assay_protocol.embeddings import FLOAT_BYTES
from assay_protocol.errors import AssayError

INPUT_BYTES_MAX: Final = 64 << 20
NPY_BYTES_MAX: Final = 4 << 30  # of vectors, which are held until all are there
_MICRO: Final = 1_000_000
_NPY: Final = b"\x93NUMPY\x01\x00"  # numpy.lib.format, version 1.0
_ALIGNED: Final = 64  # what an .npy file's head is filled up to


@dataclass(slots=True)
class Embedded:
    """What came of all texts so far."""

    model: str = ""
    dims: int = 0
    texts: int = 0
    tokens: int = 0
    receipts: list[ReceiptRecord] = field(default_factory=list)
    nodes: dict[bytes, None] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)

    def add(self, some: Embeddings) -> None:
        """Vectors that came."""
        self.model, self.dims = some.model, len(some.packed[0]) // FLOAT_BYTES
        self.texts += len(some.packed)
        self.tokens += some.prompt_tokens
        self.receipts += some.receipts
        self.nodes |= dict.fromkeys(some.nodes)
        self.outcomes += [one.outcome for one in some.verdicts]

    def summary(self, seconds: float) -> dict[str, Any]:
        """As --json prints it; credit in micro-credits, by the receipts."""
        return {
            "model": self.model,
            "dimensions": self.dims,
            "texts": self.texts,
            "prompt_tokens": self.tokens,
            "credit": sum(record.credit for record in self.receipts),
            "nodes": list(self.nodes),
            "receipts": len(self.receipts),
            "receipts_verified": sum(verify(record).ok for record in self.receipts),
            "audits": self.outcomes,
            "seconds": round(seconds, 3),
        }


def embed(options: argparse.Namespace) -> int:
    """Embed what the options name. Exit code 1 if a receipt does not hold, 2 for texts that cannot
    be read or an output that exists, before anything is asked. Raises EmbeddingsFailed."""
    seen, started = Embedded(), time.monotonic()
    with ExitStack() as stack:
        try:
            texts = texts_of(options)
            out = _Output(stack, options.format, options.out)
        except AssayError as error:
            print(f"assay embed: {printable(error.message)}", file=sys.stderr)
            return USAGE
        client = stack.enter_context(connect(options))
        try:
            for at in range(0, len(texts), TEXTS_MAX):
                some = client.embed(
                    texts[at : at + TEXTS_MAX], model=options.model, verify=options.verify
                )
                out.add(some, at)
                seen.add(some)
            out.end()
        except EmbeddingsFailed as failure:
            seen.receipts += failure.receipts
            raise
        finally:
            keep_records(options.receipt, tuple(seen.receipts))
            summary = seen.summary(time.monotonic() - started)
            if seen.texts or seen.receipts:
                _tell(summary, options)
    return OK if 0 < summary["receipts_verified"] == summary["receipts"] else FAILED


def texts_of(options: argparse.Namespace) -> list[str]:
    """The arguments, or the lines of --file or of standard input.

    Raises AssayError("config_invalid"): for both, nothing, an empty text, or what is no UTF-8.
    """
    if options.text and options.file is not None:
        raise AssayError("config_invalid", "give texts or --file, not both")
    if options.text:
        texts, what = list(options.text), "text"
    else:
        texts, what = _lines(options), "line"
    if not texts:
        raise AssayError("config_invalid", "there is no text")
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise AssayError("config_invalid", f"{what} {number} is empty")
    return texts


def _lines(options: argparse.Namespace) -> list[str]:
    name = options.file or "standard input"
    try:
        if options.file is None:
            raw = sys.stdin.buffer.read(INPUT_BYTES_MAX + 1)
        else:
            with options.file.open("rb") as file:
                raw = file.read(INPUT_BYTES_MAX + 1)
    except OSError as error:
        raise AssayError("config_invalid", f"{name}: {error.strerror}") from error
    if len(raw) > INPUT_BYTES_MAX:
        raise AssayError("config_invalid", f"{name} is larger than {INPUT_BYTES_MAX >> 20} MiB")
    try:
        lines = raw.decode().split("\n")
    except UnicodeDecodeError as error:
        raise AssayError("config_invalid", f"{name} is not UTF-8") from error
    if lines[-1] == "":
        del lines[-1]
    return [line.removesuffix("\r") for line in lines]


class _Output:
    """Where vectors go: lines at once, an .npy file when all are there."""

    def __init__(self, stack: ExitStack, kind: str, path: Any) -> None:
        """Raises AssayError("config_invalid") if the file cannot be made, or is there."""
        self._npy, self._rows, self._vectors = kind == "npy", 0, bytearray()
        self._written = False
        self._file: BinaryIO = sys.stdout.buffer
        if path is not None:
            try:
                self._file = stack.enter_context(path.open("xb"))
            except OSError as error:
                raise AssayError("config_invalid", f"{path}: {error.strerror}") from error
            stack.callback(lambda: self._written or path.unlink())  # nothing came: no file
        elif self._npy and sys.stdout.isatty():
            raise AssayError("config_invalid", "--format npy is no text: give --out or a pipe")

    def add(self, some: Embeddings, first: int) -> None:
        """Vectors of the texts from number `first` on. Raises AssayError("oversized")."""
        if self._npy:
            self._rows += len(some.packed)
            self._vectors += b"".join(some.packed)
            if len(self._vectors) > NPY_BYTES_MAX:
                raise AssayError("oversized", "an .npy file is held in memory: take jsonl")
            return
        for index, packed in enumerate(some.packed, start=first):
            numbers = struct.unpack(f"<{len(packed) // FLOAT_BYTES}f", packed)
            line = json.dumps({"index": index, "embedding": numbers}, separators=(",", ":"))
            self._file.write(line.encode() + b"\n")
        self._file.flush()
        self._written = True

    def end(self) -> None:
        """All are there."""
        if self._npy:
            columns = len(self._vectors) // FLOAT_BYTES // self._rows
            self._file.write(npy_head(self._rows, columns))
            self._file.write(self._vectors)
            self._file.flush()
            self._written = True


def npy_head(rows: int, columns: int) -> bytes:
    """What comes before the little-endian f32 of a matrix in an .npy file."""
    shape = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    filled = -(len(_NPY) + 2 + len(shape) + 1) % _ALIGNED
    text = shape.encode() + b" " * filled + b"\n"
    return _NPY + struct.pack("<H", len(text)) + text


def _tell(summary: dict[str, Any], options: argparse.Namespace) -> None:
    """Who computed them, what it cost and what was checked: on standard error, or with --json as
    the last line, unless a matrix is there."""
    if options.json:
        matrix = options.format == "npy" and options.out is None
        with redirect_stdout(sys.stderr) if matrix else nullcontext():
            print_json({"summary": summary})
        return
    nodes: Sequence[bytes] = summary["nodes"]
    parts = [
        f"{summary['texts']} texts, {summary['prompt_tokens']} tokens",
        f"{summary['dimensions']} numbers each",
        f"{summary['credit'] / _MICRO:.6f} credits",
        f"node {' '.join(node.hex()[:16] for node in nodes)}",
        f"{summary['receipts_verified']} of {summary['receipts']} receipts verified",
        *([f"audits {', '.join(map(printable, summary['audits']))}"] if summary["audits"] else []),
    ]
    print(f"[{', '.join(parts)}]", file=sys.stderr)
