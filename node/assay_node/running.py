"""One node for one data folder, and how others on the machine find it to stop it.

A running node holds a lock on `node.lock` and writes its process id there. The system takes the
lock back when the process ends, however it ends, so neither a crash nor a process id used again
makes somebody else's process look like a node.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from assay_protocol.errors import AssayError

LOCK_FILE: Final = "node.lock"
PID_BYTES_MAX: Final = 20
LOOK_SECONDS: Final = 0.2
TRIES: Final = 5
TRY_SECONDS: Final = 0.02


@contextmanager
def only_node(directory: Path) -> Iterator[None]:
    """Be the folder's one node. Raises AssayError("config_invalid") if another is."""
    with (directory / LOCK_FILE).open("a+b") as file:
        for _ in range(TRIES):  # whoever looks for a running node holds the lock for a moment
            if _take(file.fileno()):
                break
            time.sleep(TRY_SECONDS)
        else:
            whose = running_node(directory) or "unknown"
            raise AssayError("config_invalid", f"a node (pid {whose}) runs on {directory} already")
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # before the lock goes with the file


def running_node(directory: Path) -> int | None:
    """The process id of the node that runs on `directory` now, if one does."""
    try:
        with (directory / LOCK_FILE).open("rb") as file:
            if _take(file.fileno()):
                return None
            pid = file.read(PID_BYTES_MAX)
    except FileNotFoundError:
        return None
    return int(pid) if pid.isdigit() else None


def drain_node(directory: Path, *, wait_seconds: float, told: Callable[[], None]) -> bool:
    """Tell the running node to drain as SIGTERM does; whether it has ended within `wait_seconds`.

    `told` is called now and then while it drains. Raises AssayError("config_invalid") if none runs,
    "forbidden" if it is another user's.
    """
    pid = running_node(directory)
    if pid is None:
        raise AssayError("config_invalid", f"no node runs on {directory}")
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError as error:
        raise AssayError("forbidden", f"the node (pid {pid}) is another user's") from error
    except ProcessLookupError:
        return True
    ends_at = time.monotonic() + wait_seconds
    while running_node(directory) == pid:
        if time.monotonic() >= ends_at:
            return False
        told()
        time.sleep(LOOK_SECONDS)
    return True


def _take(handle: int) -> bool:
    """Whether the lock could be had; it goes when the file is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
