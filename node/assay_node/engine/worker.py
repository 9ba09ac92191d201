"""The engine's own process: `python -m assay_node.engine.worker`, started by supervisor.py.

A failed assert in llama.cpp ends this process and nothing else. Frames (wire.py) come on stdin and
go to what was stdout; before the library is loaded, file descriptor 1 is pointed at stderr, so
nothing it prints can garble them. One thread reads commands, the main thread runs the decode loop.
When stdin ends the parent is gone and so are we, at once. A crash leaves no core: it would hold
prompts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import resource
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from assay_node.engine import wire
from assay_node.engine.frames import Deframer, frame
from assay_protocol.errors import AssayError

if TYPE_CHECKING:
    from assay_node.engine.loop import DecodeLoop

READ_BYTES: Final = 1 << 16
PR_SET_DUMPABLE: Final = 4
OOM_SCORE: Final = Path("/proc/self/oom_score_adj")

Commands = queue.SimpleQueue[list[Any]]


def main() -> int:
    forbid_core_dumps()
    die_first()
    commands: Commands = queue.SimpleQueue()
    source, sink = _claim_pipes()
    threading.Thread(target=_read, args=(source, commands), daemon=True).start()
    try:
        loop = _open(commands.get())
    except AssayError as refusal:
        _write(sink, frame("refused", refusal.code, refusal.message))
        return 1
    _write(sink, wire.ready_frame(loop.info))
    _serve(loop, commands, sink)


def forbid_core_dumps() -> None:
    """An assert of the library must not leave prompts in a core file.

    The limit is enough for files; a crash handler behind a pipe is only stopped by PR_SET_DUMPABLE
    (core(5), prctl(2)).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_first() -> None:
    """If memory runs out the kernel ends this process, not the node that watches it (proc(5))."""
    with contextlib.suppress(OSError):
        OOM_SCORE.write_text("1000")


def _claim_pipes() -> tuple[int, int]:
    """Our own ends of the pipes; descriptors 0 and 1 are left harmless for any library."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


def _read(source: int, commands: Commands) -> None:
    deframer = Deframer()
    while data := os.read(source, READ_BYTES):
        for fields in deframer.feed(data):
            commands.put(fields)
    os._exit(0)  # the decode loop may be deep in a long call; there is nothing to save


def _open(fields: list[Any]) -> DecodeLoop:
    from assay_node.engine.loop import DecodeLoop  # loads llama.cpp: only now, with pipes claimed

    opening = wire.read_opening(fields)
    return DecodeLoop(
        Path(opening.path),
        opening.digest,
        slots=opening.slots,
        context=opening.context,
        threads=opening.threads,
        profile=opening.profile,
        gpu_layers=opening.gpu_layers,
        adapters=[(Path(path), digest) for path, digest in opening.adapters],
    )


def _serve(loop: DecodeLoop, commands: Commands, sink: int) -> NoReturn:
    """Until the process ends: take commands, step, send what happened."""
    spoken = time.monotonic()
    while True:
        events = _obey(loop, commands) + loop.step()
        now = time.monotonic()
        if events:
            _write(sink, wire.events_frame(events))
            spoken = now
        elif now - spoken >= wire.ALIVE_SECONDS:
            _write(sink, frame("alive"))
            spoken = now


def _obey(loop: DecodeLoop, commands: Commands) -> list[wire.Event]:
    """Take every command that is there; when idle wait for one, but not past the next sign."""
    refused: list[wire.Event] = []
    wait = loop.idle
    while True:
        try:
            fields = commands.get(block=wait, timeout=wire.ALIVE_SECONDS)
        except queue.Empty:
            return refused
        wait = False
        job: int = fields[1]
        try:
            match fields[0]:
                case "generate":
                    loop.generate(*wire.read_generate(fields))
                case "replay":
                    loop.replay(*wire.read_replay(fields))
                case "cancel":
                    loop.cancel(job)
        except AssayError as error:
            refused.append((job, error))


def _write(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]


if __name__ == "__main__":
    sys.exit(main())
