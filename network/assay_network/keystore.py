"""Key files on disk: created once, durably and privately; read only when nobody else can read.

A key is an identity and the right to its credit. So a new one is written in full, synced, and
only then linked to its name: two processes that start together end with the same key, and a crash
leaves no half-written file under the name. The format is that of `assay_protocol.keyfile`.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from assay_network.durable import sync_folder
from assay_protocol.errors import AssayError
from assay_protocol.keyfile import KEY_FILE_BYTES_MAX, SEED_BYTES, format_key, parse_key

_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700


def load_or_create_key(path: Path) -> bytes:
    """The 32-byte Ed25519 seed kept at `path`; a new one is made if there is no such file.

    Raises AssayError "key_permissions" (readable or writable by group or others, or owned by
    another user), "key_invalid" (not a key file) or "disk_full".
    """
    try:
        return load_key(path)
    except FileNotFoundError:
        return _create(path)


def load_key(path: Path) -> bytes:
    """The seed at `path`; raises FileNotFoundError if there is none, else as above."""
    # Checked on the open file, so it cannot be exchanged between the check and the reading.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise AssayError("key_invalid", f"{path} is not a regular file")
        if status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), 0):
            raise AssayError("key_permissions", f"{path} must have mode 0600 and belong to you")
        return parse_key(file.read(KEY_FILE_BYTES_MAX + 1))


def store_key(path: Path, seed: bytes) -> None:
    """Write `seed` to a new file, durably and of mode 0600.

    Raises FileExistsError, FileNotFoundError if there is no such folder, AssayError("disk_full").
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            _write(draft, format_key(seed))
            os.link(draft, path)  # unlike a rename it refuses to replace a key
            sync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AssayError("disk_full", f"no room to write {path}") from error
        raise


def _create(path: Path) -> bytes:
    seed = secrets.token_bytes(SEED_BYTES)
    try:
        path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        store_key(path, seed)
    except FileExistsError:
        return load_key(path)  # another process was faster; its key is the key
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AssayError("disk_full", f"no room to make {path.parent}") from error
        raise
    return seed


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, _FILE_MODE)  # whatever the umask made of it
        file.write(content)
        file.flush()
        os.fsync(handle)
