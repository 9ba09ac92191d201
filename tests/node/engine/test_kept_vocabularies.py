"""Vocabularies out of llama.cpp's sources: fetched once, never half, nothing compiled."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from assay_node.engine import vocabularies
from assay_protocol.errors import AssayError


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
    models = tmp_path / "llama_cpp_python-x" / "vendor" / "llama.cpp" / "models"
    (models / "templates").mkdir(parents=True)
    for name in ("ggml-vocab-a.gguf", "ggml-vocab-a.gguf.inp", "templates/a.jinja", "big.bin"):
        (models / name).write_text(name)
    archive = tmp_path / "sdist.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "llama_cpp_python-x", "llama_cpp_python-x")
    return archive


def test_what_tests_read_is_kept_and_no_more(source: Path, tmp_path: Path) -> None:
    assert vocabularies.installed() is None
    place = vocabularies.fetch(source)
    assert place == vocabularies.installed() == vocabularies.folder()
    kept = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert kept == {
        "complete",
        "ggml-vocab-a.gguf",
        "ggml-vocab-a.gguf.inp",
        "templates/a.jinja",
    }
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_what_is_there_is_not_fetched_again(source: Path, tmp_path: Path) -> None:
    place = vocabularies.fetch(source)
    assert vocabularies.fetch(tmp_path / "missing.tar.gz") == place


def test_without_the_sources_nothing_is_left_behind(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssayError, match="engine_missing"):
        vocabularies.fetch(tmp_path / "missing.tar.gz")
    assert vocabularies.installed() is None
    assert list(vocabularies.folder().parent.iterdir()) == []
    assert vocabularies.main(["--source", str(tmp_path / "missing.tar.gz")]) == 1
    assert "missing.tar.gz" in capsys.readouterr().err
    assert vocabularies.main(["--source", str(source)]) == 0
    assert capsys.readouterr().out.strip() == str(vocabularies.folder())
