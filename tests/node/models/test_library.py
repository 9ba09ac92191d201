"""The models folder: manifests, checks, eviction, and what is never deleted."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from assay_node.models import library
from assay_node.models.library import ModelLibrary, describe, holding
from assay_protocol.errors import AssayError
from gguf_cases import gguf

WHOLE = gguf()
SIZE = len(WHOLE)
DIGEST = hashlib.sha256(WHOLE).digest()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    now = [1_000]
    monkeypatch.setattr(library.time, "time", lambda: now[0])
    return now


def put(folder: Path, *names: str, clock: list[int] | None = None, fetched: bool = True) -> None:
    for name in names:
        (folder / f"{name}.gguf").write_bytes(WHOLE)
        ModelLibrary(folder).add(folder / f"{name}.gguf", DIGEST, fetched=fetched)
        if clock:
            clock[0] += 1


def code_of(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(AssayError) as refused:
        call(*arguments)
    return refused.value.code


def test_a_manifest_says_what_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(WHOLE)
    found = describe(path)
    assert (found.name, found.size_bytes, found.sha256) == ("tiny", SIZE, "")
    assert (found.license, found.architecture, found.context) == ("apache-2.0", "llama", 512)
    assert found.quantization == "F32"
    assert found.template_sha256 == hashlib.sha256(b"{{ messages }}").hexdigest()


def test_verify_notes_the_first_time_and_refuses_a_change(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(WHOLE)
    models = ModelLibrary(tmp_path)
    assert models.verify("tiny").sha256 == DIGEST.hex()
    path.write_bytes(WHOLE[:-1] + b"x")
    assert code_of(models.verify, "tiny") == "model_corrupt"
    path.write_bytes(WHOLE[:-1])
    assert code_of(models.verify, "tiny") == "gguf_invalid"
    assert models.manifests() == []


def test_the_longest_unused_fetched_file_goes(tmp_path: Path, clock: list[int]) -> None:
    put(tmp_path, "a", "b", "c", clock=clock)
    models = ModelLibrary(tmp_path, 4 * SIZE)
    models.touch(tmp_path / "a.gguf")
    assert models.make_room(SIZE) == []
    assert models.make_room(2 * SIZE) == ["b"]
    assert [one.name for one in models.manifests()] == ["a", "c"]
    assert not (tmp_path / "b.gguf.json").exists()


def test_pinned_loaded_and_own_files_stay(tmp_path: Path, clock: list[int]) -> None:
    put(tmp_path, "pinned", "loaded", "free", clock=clock)
    put(tmp_path, "own", fetched=False)
    models = ModelLibrary(tmp_path, 4 * SIZE)
    models.pin("pinned", True)
    with holding(tmp_path / "loaded.gguf"):
        assert code_of(models.remove, "loaded") == "model_in_use"
        assert code_of(models.make_room, 2 * SIZE) == "disk_full"
        assert (tmp_path / "free.gguf").exists(), "nothing goes unless enough goes"
        assert models.make_room(SIZE) == ["free"]
    models.remove("loaded")
    models.remove("own")
    assert [one.name for one in models.manifests()] == ["pinned"]


def test_nothing_outside_the_folder_is_deleted(tmp_path: Path) -> None:
    folder, outside = tmp_path / "models", tmp_path / "outside.gguf"
    folder.mkdir()
    outside.write_bytes(WHOLE)
    models = ModelLibrary(folder, SIZE)
    for name in ("../outside", "../outside.gguf", str(outside), "", ".", "a/b"):
        assert code_of(models.remove, name) == "model_missing"
    (folder / "link.gguf").symlink_to(outside)
    models.add(folder / "link.gguf", DIGEST, fetched=True)
    assert models.make_room(SIZE) == []
    models.remove("link")
    assert outside.read_bytes() == WHOLE
    assert os.listdir(folder) == []
    models.touch(outside)
    assert sorted(os.listdir(tmp_path)) == ["models", "outside.gguf"]


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"name": 5}', '{"name": "tiny", "more": 1}'])
def test_a_broken_manifest_counts_as_none(tmp_path: Path, note: str) -> None:
    put(tmp_path, "tiny")
    (tmp_path / "tiny.gguf.json").write_text(note)
    assert ModelLibrary(tmp_path).manifest("tiny") == describe(tmp_path / "tiny.gguf")
