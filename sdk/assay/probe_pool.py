"""What a prober keeps: which conversations are used up, and under which keys it asks.

A prompt is marked as used, on the disk, before it is sent: after a crash it is lost rather than
said twice, since a node that hears a prompt again knows a probe. Keys last as long as those of
ordinary accounts do.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
from pathlib import Path
from typing import Final

from assay_protocol.errors import AssayError

TURNS_MAX: Final = 64
LINE_BYTES_MAX: Final = 1 << 20
_NAME_BYTES: Final = 16


class ProbePool:
    """A file of conversations, one JSON object {"turns": [...]} a line, and `<file>.used`."""

    def __init__(self, path: Path) -> None:
        """Raises AssayError("config_invalid") naming a line that is no conversation."""
        self._mark = path.with_name(path.name + ".used")
        used = self._mark.read_text().split() if self._mark.exists() else []
        spent = set(used)
        self._left = {
            name: turns
            for number, line in enumerate(path.read_text().splitlines(), 1)
            for name, turns in [_conversation(line, number)]
            if name not in spent
        }

    def __len__(self) -> int:
        return len(self._left)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def some(self, count: int, draw: random.Random) -> list[tuple[str, tuple[str, ...]]]:
        """Up to `count` unused ones at random: name and turns."""
        names = draw.sample(sorted(self._left), min(count, len(self._left)))
        return [(name, self._left[name]) for name in names]

    def use(self, name: str) -> None:
        """Never offer it again; durable when this returns. Raises AssayError("storage_failed")."""
        del self._left[name]
        _append(self._mark, f"{name}\n")


class ProbeKeys:
    """The keys probes ask under, in a folder; those given up are moved aside and not used again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._gone = folder, folder / "given-up"
        self._gone.mkdir(parents=True, exist_ok=True, mode=0o700)

    def take(self, count: int, turnover: float, draw: random.Random) -> list[Path]:
        """`count` key files, some of which do not exist yet.

        Each one that does is given up with the chance `turnover`, as accounts come and go.
        """
        kept: list[Path] = []
        for path in sorted(self._folder.glob("*.key")):
            if draw.random() < turnover or len(kept) == count:
                os.replace(path, self._gone / path.name)
            else:
                kept.append(path)
        while len(kept) < count:
            kept.append(self._folder / f"{secrets.token_hex(_NAME_BYTES)}.key")
        return kept


def _conversation(line: str, number: int) -> tuple[str, tuple[str, ...]]:
    try:
        turns = json.loads(line)["turns"]
        right = type(turns) is list and 0 < len(turns) <= TURNS_MAX
        if not right or not all(type(turn) is str and turn for turn in turns):
            raise TypeError("turns must be a list of texts")
    except (ValueError, TypeError, KeyError) as error:
        raise AssayError("config_invalid", f"line {number} of the pool: {error}") from error
    if len(line.encode()) > LINE_BYTES_MAX:
        raise AssayError("config_invalid", f"line {number} of the pool is too long")
    digest = hashlib.blake2b("\0".join(turns).encode(), digest_size=_NAME_BYTES)
    return digest.hexdigest(), tuple(turns)


def _append(path: Path, text: str) -> None:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(file, "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise AssayError("storage_failed", str(error)) from error
