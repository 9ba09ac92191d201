"""What databases and files raise, as operating errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from assay_protocol.errors import AssayError


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turns them into AssayError("disk_full" or "storage_failed")."""
    try:
        yield
    except DBAPIError as error:
        text = str(error.orig)
        full = "disk is full" in text or "No space" in text
        raise AssayError("disk_full" if full else "storage_failed", text) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise AssayError("disk_full" if full else "storage_failed", str(error)) from error
