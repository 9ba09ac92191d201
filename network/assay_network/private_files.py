"""Files that hold what others must not read: refused where they could."""

from __future__ import annotations

import os
from pathlib import Path

from assay_protocol.errors import AssayError


def read_private(path: Path, bytes_max: int) -> bytes:
    """All of it. Raises AssayError: "key_permissions" if others can read it, "config_invalid" if it
    cannot be read or is larger than `bytes_max`."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise AssayError("key_permissions", f"{path} must have mode 0600")
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise AssayError("config_invalid", f"{path}: {error.strerror}") from error
    if len(data) > bytes_max:
        raise AssayError("config_invalid", f"{path} is too large")
    return data
