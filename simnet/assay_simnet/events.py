"""Every event of a run in a file, and where two runs part.

events.csv.gz has a line for each event that the trace's digest is made of. `detail` is a digest of
its bytes: where two runs first differ in it, the same message said something else.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections import deque
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from assay_protocol.codec import TYPES
from assay_simnet.results import flat, packed_rows, read_json
from assay_simnet.schema import ScenarioError
from assay_simnet.seen import Driver
from assay_simnet.setting import START

FILE: Final = "events.csv.gz"
COLUMNS: Final = ("at_us", "source", "target", "what", "message", "detail")
BEFORE: Final = 5  # events both had, shown before the first that differs
_ENCODED: Final = frozenset({"message", "notice", "answer", "frame", "open"})
_NOT_OF_A_RUN: Final = ("cpu_s", "events_per_cpu_s", "trace_digest", "status", "scenario_digest")


class EventLog:
    """Listens to a world's history until it is closed."""

    def __init__(self, folder: Path, world: Driver) -> None:
        self._raw = (folder / FILE).open("wb")
        zipped = gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0)
        self._text = io.TextIOWrapper(zipped, newline="")
        self._write = csv.writer(self._text, lineterminator="\n").writerow
        self._write(COLUMNS)
        world.history.listeners.append(self._noted)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *error: object) -> None:
        self._text.close()
        self._raw.close()

    def _noted(self, now: int, source: int, target: int, what: str, detail: bytes) -> None:
        said = message_name(detail) if what in _ENCODED else ""
        short = hashlib.blake2b(detail, digest_size=8).hexdigest() if detail else ""
        self._write((now - START, source, target, what, said, short))


def parting(a: Path, b: Path) -> tuple[str, bool]:
    """Where two runs' events part, in words, and whether they do. Raises ScenarioError."""
    manifests = read_json(a / "manifest.json"), read_json(b / "manifest.json")
    lines = list(_different(*manifests))
    shared: deque[dict[str, str]] = deque(maxlen=BEFORE)
    count = 0
    for one, other in zip_longest(_events(a), _events(b)):
        if one != other:
            lines.append(f"event {count + 1} is the first that differs (line {count + 2})")
            lines += [f"  both  {_shown(event)}" for event in shared]
            lines += [f"  A     {_shown(one)}", f"  B     {_shown(other)}"]
            return "\n".join(lines) + "\n", True
        shared.append(one)
        count += 1
    same = manifests[0].get("trace_digest") == manifests[1].get("trace_digest")
    lines.append(f"{count:,} events, all the same" if same else "the digests differ, no event does")
    return "\n".join(lines) + "\n", not same


def _events(folder: Path) -> Iterator[dict[str, str]]:
    path = folder / FILE
    if not path.is_file():
        raise ScenarioError(f"{path}: not there; simnet run --events writes it")
    yield from packed_rows(path)


def _different(a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    """What the runs were given that was not the same."""
    left, right = (dict(flat(one)) for one in (a, b))
    for key in sorted({*left, *right} - set(_NOT_OF_A_RUN)):
        if left.get(key) != right.get(key):
            yield f"{key.removeprefix('parameters.')}: A {left.get(key)!r}, B {right.get(key)!r}"


def _shown(event: dict[str, str] | None) -> str:
    if event is None:
        return "(no more events)"
    at = f"{int(event['at_us']) / 1e6:12.3f} s"
    parties = f"{party(int(event['source'])):>12} -> {party(int(event['target'])):<12}"
    return f"{at}  {parties} {event['what']} {event['message']} {event['detail']}".rstrip()


# ---- events in words ---------------------------------------------------------------------------


def told(event: tuple[int, int, int, str, bytes]) -> str:
    """A line for an event of a History."""
    now, source, target, what, detail = event
    at = f"{(now - START) / 1e6:12.3f} s"
    said = message_name(detail) if what in _ENCODED else ""
    return f"{at}  {party(source):>12} -> {party(target):<12} {what} {said} {detail.hex()}\n"


def message_name(body: bytes) -> str:
    """The name of an encoded message: a map whose first value is its number (codec.py)."""
    number = int.from_bytes(body[3:4] if body[2:3] == b"\xcc" else body[2:3])
    known = TYPES.get(number)
    return known.__name__ if known else ""


def party(number: int) -> str:
    return {0: "coordinator", -1: "fault"}.get(number, f"#{number}")
