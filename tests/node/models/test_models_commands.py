"""`node models ...` as an owner types it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from assay_node import cli
from assay_node.models import fetch, store
from assay_protocol.cards import encode_card
from card_cases import small_card
from gguf_cases import gguf

WHOLE = gguf()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "good.gguf").write_bytes(WHOLE)
    return tmp_path / "models"


def models(folder: Path, *arguments: str) -> int:
    return cli.main(["models", *arguments, "--data-dir", str(folder.parent)])


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_list_pin_and_rm(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.gguf").write_bytes(b"GGUFnonsense")
    assert models(folder, "list", "--json") == 0
    assert [row["architecture"] for row in lines(capsys)] == ["llama"]
    assert models(folder, "pin", "good") == 0
    assert models(folder, "list") == 0
    assert "apache-2.0 pinned" in capsys.readouterr().out
    assert models(folder, "unpin", "good") == 0
    assert models(folder, "rm", "good", "--json") == 0
    said = capsys.readouterr().out.splitlines()
    assert json.loads(said[-1]) == {"name": "good", "done": "removed"}
    assert not (folder / "good.gguf").exists()
    assert models(folder, "rm", "good") == 1
    assert "model_missing" in capsys.readouterr().err


def test_verify_tells_of_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.gguf").write_bytes(WHOLE[:-1])
    assert models(folder, "verify", "--json") == 1
    broken, good = lines(capsys)
    assert broken["error"].startswith("gguf_invalid")
    assert good == {"name": "good", "sha256": hashlib.sha256(WHOLE).hexdigest(), "error": ""}
    assert models(folder, "verify", "good") == 0


def test_pull_fetches_checks_and_notes(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(WHOLE).digest()
    card = small_card(name="new", digest=digest, size_bytes=len(WHOLE))
    (folder / "good.gguf").unlink()
    (folder.parent / "new.card").write_bytes(encode_card(card))

    def download(card: object, directory: Path, progress: fetch.Progress) -> Path:
        progress(len(WHOLE), len(WHOLE))
        path = directory / "new.gguf"
        path.write_bytes(WHOLE)
        return path

    monkeypatch.setattr(store, "fetch_from_hub", download)
    assert models(folder, "pull", str(folder.parent / "new.card"), "--json") == 0
    progress, done = lines(capsys)
    assert progress == {"bytes_done": len(WHOLE), "bytes_total": len(WHOLE)}
    assert done["path"] == str(folder / "new.gguf")
    note = json.loads((folder / "new.gguf.json").read_text())
    assert note["fetched"] is True
    assert note["sha256"] == digest.hex()
    assert models(folder, "pull", str(folder.parent / "none.card")) == 1
    assert "card_invalid" in capsys.readouterr().err
