"""Builds of the library: known by what is in them, made once, never half."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from assay_node.engine import library
from assay_protocol.errors import AssayError


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_require_programs", lambda: None)
    tree = tmp_path / "llama_cpp_python-x" / "vendor" / "llama.cpp"
    tree.mkdir(parents=True)
    archive = tmp_path / "sdist.tar.gz"
    subprocess.run(
        ["tar", "-czf", str(archive), "-C", str(tmp_path), "llama_cpp_python-x"], check=True
    )
    return archive


def _compiler(monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> list[list[str]]:
    """Stands for cmake: writes the libraries when told to build."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> None:
        commands.append(command)
        if fails:
            raise subprocess.CalledProcessError(1, command, b"", b"error: no such thing")
        if command[1] == "--build":
            bin_ = Path(command[2]) / "bin"
            bin_.mkdir(parents=True)
            (bin_ / "libllama.so.0").write_bytes(b"code")
            (bin_ / "libllama.so").symlink_to("libllama.so.0")
            (bin_ / "llama-server").write_bytes(b"a program")

    monkeypatch.setattr(library.subprocess, "run", run)
    return commands


def test_a_build_appears_complete_and_is_made_once(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = _compiler(monkeypatch)
    assert library.installed("exact") is None
    place = library.build("exact", source=source)
    assert library.build("exact", source=source) == place
    assert len(commands) == 2
    assert "-DGGML_CPU_REPACK=OFF" in commands[0]
    assert library.installed("exact") == place
    assert sorted(path.name for path in place.iterdir()) == [
        "libllama.so",
        "libllama.so.0",
        library.MANIFEST,
    ]
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    library.check(place)


def test_the_server_build_keeps_its_programs(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = _compiler(monkeypatch)
    place = library.build("server", source=source)
    assert commands[1][4:6] == list(library.PROGRAMS["server"])
    library.check(place)
    (place / "llama-server").write_bytes(b"another program")
    with pytest.raises(AssayError):
        library.check(place)


def test_a_build_that_fails_leaves_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _compiler(monkeypatch, fails=True)
    with pytest.raises(AssayError) as caught:
        library.build("portable", source=source)
    assert caught.value.code == "engine_failed"
    assert "no such thing" in caught.value.message
    assert list(library.folder("portable").parent.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"other code"])
def test_a_changed_file_is_noticed(
    source: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    _compiler(monkeypatch)
    place = library.build("exact", source=source)
    before = library.library_digest(place)
    (place / "libllama.so.0").write_bytes(content)
    assert library.library_digest(place) != before
    with pytest.raises(AssayError):
        library.check(place)
    (place / library.MANIFEST).write_text("[]")
    with pytest.raises(AssayError):
        library.check(place)


def test_what_is_no_archive_is_refused(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _compiler(monkeypatch)
    source.write_bytes(b"no archive")
    with pytest.raises(AssayError) as caught:
        library.build("exact", source=source)
    assert caught.value.code == "engine_missing"
