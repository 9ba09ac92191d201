"""Finds the file of a card, fetching it if allowed, and never hands out one that was not checked.

Hashing gigabytes at every start would cost minutes, so a check is remembered in a small file
beside the models, keyed by path, size, modification time and inode: any of them changes when the
file is replaced or edited. Whoever can forge those four can also replace this program.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Final

from assay_node.models.card import file_sha256
from assay_node.models.fetch import Progress, fetch_from_hub
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError

VERIFIED_FILE: Final = ".verified.json"
VERIFIED_ENTRIES_MAX: Final = 1_024
VERIFIED_BYTES_MAX: Final = 1 << 20


class ModelStore:
    """The models directory of one machine. Calls block on the disk; use a thread under trio."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, card: ModelCard, path: Path | None = None) -> Path:
        """The checked file of `card`: `path` if given, else one of the right size in the directory.

        Raises AssayError "model_missing" (none there) or "model_corrupt" (a file with the card's
        name, or the given one, has another sha256).
        """
        if path is not None:
            if not path.is_file():
                raise AssayError("model_missing", f"no file {path}")
            self._require_card(card, path)
            return path
        named = self._directory / f"{card.name}.gguf"
        if named.is_file():
            self._require_card(card, named)
            return named
        return self.holding(card.digest, card.size_bytes, card.name)

    def holding(self, sha256: bytes, size_bytes: int, what: str) -> Path:
        """The file of that content in the directory; raises AssayError("model_missing")."""
        for candidate in sorted(self._directory.glob("*.gguf")):
            if candidate.stat().st_size == size_bytes and self._holds(candidate, sha256):
                return candidate
        raise AssayError("model_missing", f"{what} is not in {self._directory}")

    def find_or_fetch(self, card: ModelCard, progress: Progress | None = None) -> Path:
        """Like `find`, downloading the file from the card's source when it is missing.

        A corrupt file is not overwritten: its owner may want to look at it first.
        """
        try:
            return self.find(card)
        except AssayError as error:
            if error.code != "model_missing":
                raise
        path = fetch_from_hub(card, self._directory, progress)
        self._remember(path, card.digest)
        return path

    def require(self, path: Path, sha256: bytes) -> None:
        """Raises AssayError "model_missing", or "model_corrupt" for a file of another sha256."""
        if not path.is_file():
            raise AssayError("model_missing", f"no file {path}")
        if not self._holds(path, sha256):
            raise AssayError("model_corrupt", f"{path} is another file than the card's")

    def _require_card(self, card: ModelCard, path: Path) -> None:
        if path.stat().st_size != card.size_bytes or not self._holds(path, card.digest):
            raise AssayError("model_corrupt", f"{path} is not the file of {card.name}")

    def _holds(self, path: Path, sha256: bytes) -> bool:
        known = self._verified().get(_identity(path))
        if known is not None:
            return known == sha256.hex()
        before = _identity(path)
        digest = file_sha256(path)
        if _identity(path) == before:  # else it changed under our hands and is not worth a note
            self._remember(path, digest)
        return digest == sha256

    def _verified(self) -> dict[str, str]:
        """What earlier checks found; an unreadable or foreign note counts as none."""
        note = self._directory / VERIFIED_FILE
        try:
            status = note.stat()
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return {}
            if status.st_size > VERIFIED_BYTES_MAX:
                return {}
            entries = json.loads(note.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(entries, dict):
            return {}
        return {key: value for key, value in entries.items() if isinstance(value, str)}

    def _remember(self, path: Path, digest: bytes) -> None:
        """Best effort: without the note the file is only hashed again."""
        entries = self._verified()
        entries[_identity(path)] = digest.hex()
        kept = dict(list(entries.items())[-VERIFIED_ENTRIES_MAX:])
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._directory, prefix=VERIFIED_FILE)  # mode 0600
            with os.fdopen(handle, "w") as file:
                json.dump(kept, file)
            Path(name).replace(self._directory / VERIFIED_FILE)
        except OSError:
            return


def _identity(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ino}"
