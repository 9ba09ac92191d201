from pathlib import Path

import pytest

from assay_network import durable
from assay_network.durable import name_durably, write_durably


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"one", b"another"):
        write_durably(path, data)
        assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", data)]


def test_what_fails_before_it_is_named_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_file_is_synced_before_it_is_named_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft, path = tmp_path / "draft", tmp_path / "file"
    draft.write_bytes(b"data")
    named = []
    monkeypatch.setattr(durable.os, "fsync", lambda _handle: named.append(path.exists()))
    name_durably(draft, path)
    assert named == [False, True]


def test_a_link_in_the_place_of_its_draft_is_not_followed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"precious")
    (tmp_path / ".keys.new").symlink_to(theirs)
    write_durably(tmp_path / "keys", b"ours")
    assert theirs.read_bytes() == b"precious"
    assert (tmp_path / "keys").read_bytes() == b"ours"
    assert not (tmp_path / "keys").is_symlink()
