"""What must hold before a node serves; `node start` and `node doctor` ask the same here."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from assay_protocol.errors import AssayError
from assay_protocol.limits import TICKET_LIFETIME_SECONDS

DISK_BYTES_MIN: Final = 256 << 20
CLOCK_SKEW_SECONDS_MAX: Final = TICKET_LIFETIME_SECONDS // 10  # what a ticket may lose of its life
_MIB: Final = 1 << 20
_MICRO: Final = 1_000_000


def require_disk(directory: Path, more_bytes: int = 0) -> str:
    """How much is free where `directory` is or will be, in words.

    Raises AssayError("disk_full") if that is less than DISK_BYTES_MIN and `more_bytes`.
    """
    present = existing(directory)
    free, wanted = shutil.disk_usage(present).free, DISK_BYTES_MIN + more_bytes
    if free < wanted:
        text = f"{free // _MIB} MiB free at {present}, {wanted // _MIB} MiB wanted"
        raise AssayError("disk_full", text)
    return f"{free // _MIB} MiB free at {present}"


def existing(directory: Path) -> Path:
    """`directory`, or the nearest folder above it that exists."""
    whole = directory.absolute()
    return next(path for path in (whole, *whole.parents) if path.exists())


def skew_seconds(skew_us: int) -> float | None:
    """By how much the clock differs from the coordinator's, if that is too much."""
    seconds = skew_us / _MICRO
    return seconds if abs(seconds) > CLOCK_SKEW_SECONDS_MAX else None
