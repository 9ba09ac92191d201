from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from assay_node.models import store
from assay_node.models.card import file_sha256
from assay_node.models.store import VERIFIED_FILE, ModelStore
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError
from card_cases import small_card

CONTENT = b"the weights" * 100


def card_for(content: bytes) -> ModelCard:
    digest = hashlib.sha256(content).digest()
    return small_card(name="tiny", digest=digest, size_bytes=len(content), source=None)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which files were read in full, in order."""
    paths: list[Path] = []

    def count(path: Path) -> bytes:
        paths.append(path)
        return file_sha256(path)

    monkeypatch.setattr(store, "file_sha256", count)
    return paths


def code_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(AssayError) as refused:
        call(*arguments)
    return refused.value.code


def test_a_good_file_is_hashed_once(tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(CONTENT)
    card = card_for(CONTENT)
    assert ModelStore(tmp_path).find(card) == path
    assert ModelStore(tmp_path).find(card) == path
    assert ModelStore(tmp_path).find_or_fetch(card) == path
    assert hashed == [path]
    assert (tmp_path / VERIFIED_FILE).stat().st_mode & 0o777 == 0o600


def test_a_changed_file_is_hashed_again_and_refused(tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(CONTENT)
    card = card_for(CONTENT)
    ModelStore(tmp_path).find(card)
    status = path.stat()
    path.write_bytes(CONTENT[:-1] + b"X")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert code_of(ModelStore(tmp_path).find, card) == "model_corrupt"
    assert code_of(ModelStore(tmp_path).find, card) == "model_corrupt"
    assert hashed == [path, path]
    replaced = tmp_path / "new"
    replaced.write_bytes(CONTENT)
    os.utime(replaced, ns=(status.st_atime_ns, status.st_mtime_ns))
    replaced.replace(path)
    assert ModelStore(tmp_path).find(card) == path


def test_a_file_of_another_size_is_not_even_read(tmp_path: Path, hashed: list[Path]) -> None:
    (tmp_path / "tiny.gguf").write_bytes(CONTENT + b"x")
    assert code_of(ModelStore(tmp_path).find, card_for(CONTENT)) == "model_corrupt"
    assert hashed == []


def test_a_file_under_another_name_is_found_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(CONTENT[:-1] + b"X")
    (tmp_path / "b.gguf").write_bytes(CONTENT)
    assert ModelStore(tmp_path).find(card_for(CONTENT)) == tmp_path / "b.gguf"


def test_a_given_path_is_the_only_one_looked_at(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(CONTENT)
    elsewhere = tmp_path / "elsewhere.bin"
    find = ModelStore(tmp_path / "models").find
    assert code_of(find, card_for(CONTENT), elsewhere) == "model_missing"
    elsewhere.write_bytes(CONTENT[:-1] + b"X")
    assert code_of(find, card_for(CONTENT), elsewhere) == "model_corrupt"
    elsewhere.write_bytes(CONTENT)
    assert find(card_for(CONTENT), elsewhere) == elsewhere


def test_nothing_there_and_nowhere_to_fetch_from(tmp_path: Path) -> None:
    assert code_of(ModelStore(tmp_path / "no").find, card_for(CONTENT)) == "model_missing"
    assert code_of(ModelStore(tmp_path / "no").find_or_fetch, card_for(CONTENT)) == "model_missing"


@pytest.mark.parametrize("note", [b"", b"[]", b"{", b'{"a": 1}', b"[" * 100_000, b"\xff"])
def test_a_damaged_note_counts_as_none(tmp_path: Path, hashed: list[Path], note: bytes) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(CONTENT)
    (tmp_path / VERIFIED_FILE).write_bytes(note)
    (tmp_path / VERIFIED_FILE).chmod(0o600)
    assert ModelStore(tmp_path).find(card_for(CONTENT)) == path
    assert hashed == [path]


def test_a_note_others_could_write_is_not_believed(tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(CONTENT)
    card = card_for(CONTENT)
    ModelStore(tmp_path).find(card)
    note = tmp_path / VERIFIED_FILE
    lie = {key: bytes(32).hex() for key in json.loads(note.read_text())}
    note.write_text(json.dumps(lie))
    assert code_of(ModelStore(tmp_path).find, card) == "model_corrupt"
    note.chmod(0o660)
    assert ModelStore(tmp_path).find(card) == path
    assert hashed == [path, path]


def test_a_directory_without_write_permission_only_costs_time(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(CONTENT)

    def refuse(**options: Any) -> Any:
        raise PermissionError

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert ModelStore(tmp_path).find(card_for(CONTENT)) == path
    assert ModelStore(tmp_path).find(card_for(CONTENT)) == path
    assert hashed == [path, path]
