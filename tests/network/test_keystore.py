from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from assay_network.keystore import load_key, load_or_create_key
from assay_protocol.errors import AssayError
from assay_protocol.keyfile import format_key


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "node.key"
    umask = os.umask(0)
    try:
        seed = load_or_create_key(path)
    finally:
        os.umask(umask)
    assert len(seed) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert load_or_create_key(path) == load_key(path) == seed
    assert path.read_bytes() == format_key(seed)
    assert [file.name for file in path.parent.iterdir()] == ["node.key"]


def test_two_keys_differ(tmp_path: Path) -> None:
    assert load_or_create_key(tmp_path / "a") != load_or_create_key(tmp_path / "b")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610])
def test_a_key_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    load_or_create_key(path)
    path.chmod(mode)
    with pytest.raises(AssayError) as refused:
        load_or_create_key(path)
    assert refused.value.code == "key_permissions"


@pytest.mark.parametrize("content", [b"", b"garbage\n", format_key(bytes(32)) * 2, b"x" * 10_000])
def test_wrong_content_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(AssayError) as refused:
        load_or_create_key(path)
    assert refused.value.code == "key_invalid"
    assert path.read_bytes() == content


def test_a_directory_or_pipe_is_not_a_key(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(AssayError) as refused:
        load_or_create_key(tmp_path / "pipe")
    assert refused.value.code == "key_invalid"


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AssayError) as refused:
        load_or_create_key(tmp_path / "node.key")
    assert refused.value.code == "disk_full"
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_together_get_one_key(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    seeds: list[bytes] = []

    def start() -> None:
        barrier.wait()
        seeds.append(load_or_create_key(tmp_path / "node.key"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seeds) == 8
    assert len(set(seeds)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["node.key"]


def test_the_loser_of_the_race_takes_the_winners_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "node.key"
    winner = bytes(range(32))

    def link(source: Path, target: Path) -> None:
        path.write_bytes(format_key(winner))
        path.chmod(0o600)
        raise FileExistsError

    monkeypatch.setattr(os, "link", link)
    assert load_or_create_key(path) == winner
    assert [file.name for file in tmp_path.iterdir()] == ["node.key"]
