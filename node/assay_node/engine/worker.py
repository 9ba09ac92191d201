"""The engine's own process: `python -m assay_node.engine.worker`, started by supervisor.py.

A failed assert in llama.cpp ends this process and nothing else. Frames (wire.py) come on stdin and
go to what was stdout; before the library is loaded, file descriptor 1 is pointed at stderr, so
nothing it prints can garble them. One thread reads commands, the main thread runs the loop: the
decode loop, or the one that embeds.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from assay_node.engine import embedding_wire, wire
from assay_node.engine.frames import Deframer, frame
from assay_protocol.errors import AssayError

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
        served = _open(commands.get())
    except AssayError as refusal:
        _write(sink, frame("refused", refusal.code, refusal.message))
        return 1
    _write(sink, served.ready)
    _serve(served, commands, sink)


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


class Loop(Protocol):
    """What this process runs: a DecodeLoop or an EmbeddingLoop."""

    @property
    def idle(self) -> bool: ...

    def step(self) -> Sequence[wire.Event]: ...

    def cancel(self, job: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Served:
    loop: Loop
    ready: bytes  # the frame that says so
    asks: Mapping[str, Callable[[list[Any]], None]]  # by the first field of a command


def _open(fields: list[Any]) -> _Served:
    return _open_embedding(fields) if fields[0] == "open_embedding" else _open_decoding(fields)


def _open_decoding(fields: list[Any]) -> _Served:
    from assay_node.engine.loop import DecodeLoop  # loads llama.cpp: only now, with pipes claimed

    opening = wire.read_opening(fields)
    loop = DecodeLoop(
        Path(opening.path),
        opening.digest,
        slots=opening.slots,
        context=opening.context,
        threads=opening.threads,
        profile=opening.profile,
        gpu_layers=opening.gpu_layers,
        adapters=[(Path(path), digest) for path, digest in opening.adapters],
        drafts=opening.drafts,
        projector=Path(opening.projector) if opening.projector else None,
    )
    asks = {
        "generate": lambda fields: loop.generate(*wire.read_generate(fields)),
        "replay": lambda fields: loop.replay(*wire.read_replay(fields)),
    }
    return _Served(loop, wire.ready_frame(loop.info), asks)


def _open_embedding(fields: list[Any]) -> _Served:
    from assay_node.engine.embedding_loop import EmbeddingLoop  # loads llama.cpp, too

    opening = embedding_wire.read_opening(fields)
    loop = EmbeddingLoop(
        Path(opening.path),
        opening.digest,
        context=opening.context,
        threads=opening.threads,
        profile=opening.profile,
        gpu_layers=opening.gpu_layers,
        pooling=opening.pooling,
    )
    asks = {"embed": lambda fields: loop.embed(*embedding_wire.read_embed(fields))}
    return _Served(loop, embedding_wire.ready_frame(loop.info), asks)


def _serve(served: _Served, commands: Commands, sink: int) -> NoReturn:
    """Until the process ends: take commands, step, send what happened."""
    spoken = time.monotonic()
    while True:
        events = [*_obey(served, commands), *served.loop.step()]
        now = time.monotonic()
        if events:
            _write(sink, wire.events_frame(events))
            spoken = now
        elif now - spoken >= wire.ALIVE_SECONDS:
            _write(sink, frame("alive"))
            spoken = now


def _obey(served: _Served, commands: Commands) -> list[wire.Event]:
    """Take every command that is there; when idle wait for one, but not past the next sign."""
    refused: list[wire.Event] = []
    wait = served.loop.idle
    while True:
        try:
            fields = commands.get(block=wait, timeout=wire.ALIVE_SECONDS)
        except queue.Empty:
            return refused
        wait = False
        job: int = fields[1]
        try:
            if fields[0] == "cancel":
                served.loop.cancel(job)
            elif ask := served.asks.get(fields[0]):
                ask(fields)
        except AssayError as error:
            refused.append((job, error))


def _write(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]


if __name__ == "__main__":
    sys.exit(main())
