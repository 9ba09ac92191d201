"""`assay embed`: which texts it takes, what it writes, and what it says of receipts.

Who computes is simulated here; tests/end_to_end/test_embeddings.py has real nodes.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay import cli, embed_command, read_records
from assay.embed_command import npy_head
from assay.embedding import TEXTS_MAX, Embeddings, EmbeddingsFailed
from assay.records import ReceiptRecord
from assay_protocol.errors import AssayError
from sdk.test_embedding import honest, record, run

TRUE = record(run(honest)[0])
FALSE = replace(TRUE, output=TRUE.output[:-4] + bytes(4))


class Embedder:
    """Gives text number n the vector (n, 0.1), counted over all calls."""

    def __init__(self, receipt: ReceiptRecord = TRUE, fail_at: int = -1) -> None:
        self.receipt, self.fail_at = receipt, fail_at
        self.calls: list[list[str]] = []
        self.options: dict[str, Any] = {}

    def embed(self, texts: Sequence[str], **options: Any) -> Embeddings:
        first = sum(map(len, self.calls))
        self.calls.append(list(texts))
        self.options = options
        if len(self.calls) - 1 == self.fail_at:
            raise EmbeddingsFailed(AssayError("no_capacity"), (self.receipt,))
        packed = tuple(struct.pack("<2f", first + n, 0.1) for n in range(len(texts)))
        return Embeddings("m", packed, 3 * len(texts), (self.receipt,), (b"\x07" * 32,))


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> Embedder:
    return install(monkeypatch, Embedder())


def install(monkeypatch: pytest.MonkeyPatch, embedder: Embedder) -> Embedder:
    monkeypatch.setattr(embed_command, "connect", lambda options: nullcontext(embedder))
    return embedder


def pipe(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def test_arguments_are_texts_and_lines_come_out(
    embedder: Embedder, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    given = ["embed", "one text", "two", "--model", "m", "--verify", "now", "--receipt", str(kept)]
    assert cli.main(given) == 0
    said = capfd.readouterr()
    assert said.out.splitlines() == [
        f'{{"index":{n},"embedding":[{n}.0,{float(np.float32(0.1))}]}}' for n in (0, 1)
    ]
    assert embedder.calls == [["one text", "two"]]
    assert embedder.options == {"model": "m", "verify": "now"}
    cost = TRUE.credit / 1e6
    assert f"2 texts, 6 tokens, 2 numbers each, {cost:.6f} credits" in said.err
    assert "1 of 1 receipts verified" in said.err
    assert list(read_records(kept.read_bytes())) == [TRUE]
    assert kept.stat().st_mode & 0o777 == 0o600


def test_lines_of_a_pipe_or_a_file_are_texts(
    embedder: Embedder,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    pipe(monkeypatch, b"one\r\ntwo \xc3\xa4\nthree")
    assert cli.main(["embed", "--json"]) == 0
    last = json.loads(capfd.readouterr().out.splitlines()[-1])["summary"]
    assert (last["texts"], last["dimensions"], last["prompt_tokens"]) == (3, 2, 9)
    assert last["nodes"] == ["07" * 32]
    file = tmp_path / "texts"
    file.write_text("".join(f"{n}\n" for n in range(TEXTS_MAX + 2)))
    assert cli.main(["embed", "--file", str(file)]) == 0
    assert [len(call) for call in embedder.calls] == [3, TEXTS_MAX, 2]
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["index"] for row in rows] == list(range(TEXTS_MAX + 2))
    assert rows[-1]["embedding"][0] == TEXTS_MAX + 4, "of the last call"


def test_an_npy_file_is_one_that_numpy_loads(
    embedder: Embedder, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "vectors.npy"
    assert cli.main(["embed", "a", "b", "c", "--format", "npy", "--out", str(out), "--json"]) == 0
    matrix = np.load(out)
    assert matrix.shape == (3, 2)
    assert matrix[:, 0].tolist() == [0, 1, 2]
    assert json.loads(capfd.readouterr().out)["summary"]["texts"] == 3


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_every_head_is_aligned_and_says_the_shape(rows: int, columns: int) -> None:
    head = npy_head(rows, columns)
    assert len(head) % 64 == 0
    file = io.BytesIO(head)
    assert np.lib.format.read_magic(file) == (1, 0)
    shape = np.lib.format.read_array_header_1_0(file)
    assert shape == ((rows, columns), False, np.dtype("<f4"))


@pytest.mark.parametrize(
    ("given", "content", "said"),
    [
        ([], b"", "there is no text"),
        ([], b"one\n\ntwo\n", "line 2 is empty"),
        (["one", " "], b"", "text 2 is empty"),
        ([], b"\xff\n", "standard input is not UTF-8"),
        ([], b"x" * ((64 << 20) + 1), "standard input is larger than 64 MiB"),
        (["one", "--file", "texts"], b"", "not both"),
        (["--file", "/nonexistent"], b"", "/nonexistent: No such file"),
        (["one", "--out", __file__], b"", "File exists"),
        (["one", "--verify", "quorum"], b"", "invalid choice"),
    ],
)
def test_wrong_usage_asks_nobody_and_writes_nothing(
    given: list[str],
    content: bytes,
    said: str,
    embedder: Embedder,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pipe(monkeypatch, content)
    try:
        code = cli.main(["embed", *given])
    except SystemExit as stop:  # by argparse
        code = int(stop.code or 0)
    assert code == 2
    shown = capfd.readouterr()
    assert said in shown.err
    assert shown.out == ""
    assert embedder.calls == []


def test_a_receipt_that_does_not_hold_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, Embedder(FALSE))
    assert cli.main(["embed", "one"]) == 1
    assert "0 of 1 receipts verified" in capfd.readouterr().err


def test_what_came_before_a_failure_stays_and_its_receipts_are_kept(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    install(monkeypatch, Embedder(fail_at=1))
    pipe(monkeypatch, b"x\n" * (TEXTS_MAX + 1))
    kept, half = tmp_path / "kept", tmp_path / "half.npy"
    assert cli.main(["embed", "--receipt", str(kept)]) == 1
    said = capfd.readouterr()
    assert len(said.out.splitlines()) == TEXTS_MAX
    assert said.err.splitlines()[-1].startswith("assay: no_capacity")
    assert f"{TEXTS_MAX} texts" in said.err
    assert list(read_records(kept.read_bytes())) == [TRUE, TRUE]
    install(monkeypatch, Embedder(fail_at=0))
    assert cli.main(["embed", "one", "--format", "npy", "--out", str(half)]) == 1
    install(monkeypatch, Embedder(fail_at=0))
    assert cli.main(["embed", "one", "--out", str(half)]) == 1
    assert not half.exists(), "half a matrix is none, and so are no lines"
    install(monkeypatch, Embedder())
    capfd.readouterr()
    assert cli.main(["embed", "one", "--format", "npy", "--json"]) == 0
    assert json.loads(capfd.readouterr().err)["summary"]["texts"] == 1
