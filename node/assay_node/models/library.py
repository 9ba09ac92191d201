"""The models folder of one machine: what is in it, what may go when room is needed.

Beside each file `x.gguf` stands a manifest `x.gguf.json`: what the file is, and whether this
program fetched it. Rules:

- Only files this program fetched are ever evicted; what the owner put there is the owner's.
- Nothing outside the folder is ever deleted: names are plain, and of a link only the link goes.
- A file some node has loaded is locked (flock), so it is neither evicted nor removed; the lock
  ends with the process, however that ends.
- The longest unused goes first, and nothing goes unless enough would go.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from assay_node.models.card import file_sha256
from assay_node.models.gguf import read_header
from assay_protocol.errors import AssayError

SUFFIX: Final = ".gguf"
MANIFEST_SUFFIX: Final = ".json"
MANIFEST_BYTES_MAX: Final = 65_536
FILES_MAX: Final = 4_096
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One model file. `sha256` and `template_sha256` are hexadecimal, empty if not known or none.

    `used_at` is in seconds since the epoch; `fetched` files may be evicted unless `pinned`.
    """

    name: str
    sha256: str
    size_bytes: int
    license: str
    architecture: str
    quantization: str
    context: int
    template_sha256: str
    fetched: bool = False
    pinned: bool = False
    used_at: int = 0


class ModelLibrary:
    """The folder `directory`, of at most `quota_bytes` (0: no bound). Calls block on the disk."""

    def __init__(self, directory: Path, quota_bytes: int = 0) -> None:
        self._directory, self._quota_bytes = directory, quota_bytes

    def manifests(self) -> list[Manifest]:
        """One for each readable model file, by name; a file that is no model is left out."""
        found = []
        for path in sorted(self._directory.glob("*" + SUFFIX))[:FILES_MAX]:
            with contextlib.suppress(AssayError):
                found.append(self.manifest(path.stem))
        return found

    def manifest(self, name: str) -> Manifest:
        """What is known of `name`, read from the file itself where no manifest stands beside it.

        Raises AssayError "model_missing" or "gguf_invalid".
        """
        path = self._path(name)
        kept = _read_manifest(path)
        if kept is not None and kept.size_bytes == path.stat().st_size:
            return kept
        return describe(path)

    def verify(self, name: str) -> Manifest:
        """Hash the file again. Raises AssayError("model_corrupt") if it is not what it was.

        A file whose sha256 was not known gets it noted now: later changes will show.
        """
        path, known = self._path(name), self.manifest(name)
        read_header(path)
        digest = file_sha256(path).hex()
        if known.sha256 not in ("", digest):
            raise AssayError("model_corrupt", f"{path} has changed since it was noted")
        return self._write(path, dataclasses.replace(known, sha256=digest))

    def add(self, path: Path, sha256: bytes, *, fetched: bool) -> Manifest:
        """Note a file of the folder whose sha256 was just checked."""
        found = dataclasses.replace(describe(path), sha256=sha256.hex(), fetched=fetched)
        return self._write(path, dataclasses.replace(found, used_at=int(time.time())))

    def touch(self, path: Path) -> None:
        """Note that the file is used now, if it can be noted; not for files outside the folder."""
        if path.absolute().parent == self._directory.absolute():
            with contextlib.suppress(AssayError):
                known = self.manifest(path.stem)
                self._write(path, dataclasses.replace(known, used_at=int(time.time())))

    def pin(self, name: str, pinned: bool) -> Manifest:
        """Keep the file whatever the quota says, or no longer."""
        return self._write(
            self._path(name), dataclasses.replace(self.manifest(name), pinned=pinned)
        )

    def remove(self, name: str) -> None:
        """Delete file and manifest. Raises AssayError "model_missing" or "model_in_use"."""
        path = self._path(name)
        if in_use(path):
            raise AssayError("model_in_use", f"{path} is loaded by a running node")
        path.unlink()
        _manifest_path(path).unlink(missing_ok=True)

    def make_room(self, size_bytes: int) -> list[str]:
        """Evict until `size_bytes` more fit under the quota; the names of what went.

        Raises AssayError("disk_full"), with nothing deleted, if it cannot be done.
        """
        if not self._quota_bytes:
            return []
        files = [path for path in self._directory.glob("*" + SUFFIX) if not path.is_symlink()]
        over = sum(path.stat().st_size for path in files) + size_bytes - self._quota_bytes
        going = []
        for one in sorted(self.manifests(), key=lambda manifest: manifest.used_at):
            if over <= 0:
                break
            path = self._path(one.name)
            if one.fetched and not one.pinned and not path.is_symlink() and not in_use(path):
                going.append(one.name)
                over -= one.size_bytes
        if over > 0:
            raise AssayError("disk_full", f"models_quota_gib lacks {over} bytes for the model")
        for name in going:
            self.remove(name)
        return going

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name.removesuffix(SUFFIX)):
            raise AssayError("model_missing", f"{name!r} is not the name of a model")
        path = self._directory / (name.removesuffix(SUFFIX) + SUFFIX)
        if not path.is_file():
            raise AssayError("model_missing", f"no {path.name} in {self._directory}")
        return path

    def _write(self, path: Path, manifest: Manifest) -> Manifest:
        target = _manifest_path(path)
        scratch = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            scratch.write_text(json.dumps(dataclasses.asdict(manifest)))
            scratch.replace(target)
        except OSError as error:
            raise AssayError("storage_failed", f"{target}: {error.strerror}") from error
        return manifest


def describe(path: Path) -> Manifest:
    """The manifest the file's own header gives, without a sha256. Raises as read_header does."""
    header = read_header(path)
    template = header.text("tokenizer.chat_template").encode()
    return Manifest(
        name=path.stem,
        sha256="",
        size_bytes=header.size_bytes,
        license=header.text("general.license"),
        architecture=header.architecture,
        quantization=_quantization(header.values.get("general.file_type")),
        context=header.number("context_length"),
        template_sha256=hashlib.sha256(template).hexdigest() if template else "",
    )


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Mark the file as loaded for as long as this lasts."""
    with path.open("rb") as file:
        with contextlib.suppress(OSError):  # a file system without locks also serves
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def in_use(path: Path) -> bool:
    """Whether some process holds the file by `holding`."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _manifest_path(path: Path) -> Path:
    return path.with_name(path.name + MANIFEST_SUFFIX)


def _read_manifest(path: Path) -> Manifest | None:
    """The manifest beside `path`; one that cannot be read counts as none."""
    note = _manifest_path(path)
    try:
        if note.stat().st_size > MANIFEST_BYTES_MAX:
            return None
        raw: Any = json.loads(note.read_bytes())
        manifest = Manifest(**raw)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    right = all(type(getattr(manifest, name)) is kind for name, kind in _KINDS.items())
    return manifest if right and manifest.name == path.stem else None


_KINDS: Final = {
    "name": str,
    "sha256": str,
    "size_bytes": int,
    "license": str,
    "architecture": str,
    "quantization": str,
    "context": int,
    "template_sha256": str,
    "fetched": bool,
    "pinned": bool,
    "used_at": int,
}


def _quantization(number: object) -> str:
    """`general.file_type` by llama.cpp's names, as in the card."""
    from gguf import LlamaFileType  # imports numpy

    try:
        return str(LlamaFileType(number).name).removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return "unknown"
