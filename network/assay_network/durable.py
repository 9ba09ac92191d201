"""Files that are there whole after a crash, or as they were before."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Put `data` at `path`; it is on disk, name and all, when this returns. Raises OSError."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)  # of a crash; or a link, that somebody else put there
    with draft.open("xb") as file:
        file.write(data)
    name_durably(draft, path)


def name_durably(whole: Path, target: Path) -> None:
    """Rename a file that is whole; after a crash it has the new name or the old one."""
    with whole.open("rb") as file:
        os.fsync(file.fileno())
    whole.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Put the folder's names on disk, which a file's own fsync does not."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
