"""Other Pythons of this machine, each with just what simnet's level fast needs.

`python tests/other_pythons.py` makes their environments (make setup does): a folder of wheels for
each under $ASSAY_CACHE or ~/.cache/assay, in the versions this interpreter has, fetched by its own
pip; nothing is compiled, and the other Python needs no pip. Found are, in this order,

    ASSAY_PYTHONS           interpreters by their path, as PATH lists folders
    pyenv's versions        $PYENV_ROOT or ~/.pyenv
    pythonX.Y on PATH

The versions looked for are those that pyproject.toml says we are tested on, but for this one.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
NEEDED: Final = ("msgpack", "pynacl", "cffi", "pycparser", "numpy")  # the last three, transitively
SOURCES: Final = (
    *("protocol", "network", "node", "coordinator"),
    *("contracts", "sdk", "simnet"),
)
_ASK: Final = "import sys; print(sys.implementation.name, *sys.version_info[:3])"
_ASK_SECONDS: Final = 30
_PIP_SECONDS: Final = 600
Version = tuple[int, int]


class PythonError(Exception):
    """What was named is no interpreter, or its environment cannot be made."""


@dataclass(frozen=True)
class Python:
    """An interpreter of CPython. `full`: as 3.12.1."""

    path: Path
    full: str

    @property
    def version(self) -> Version:
        major, minor, *_ = self.full.split(".")
        return int(major), int(minor)

    @property
    def wheels(self) -> Path:
        """The folder of its packages, whether or not it is there."""
        major, minor = self.version
        held = "-".join(f"{name}{version(name)}" for name in NEEDED)
        return _cache() / "pythons" / f"cp{major}{minor}-{platform.machine()}-{held}"

    @property
    def is_ready(self) -> bool:
        return self.path == Path(sys.executable) or self.wheels.is_dir()

    def environment(self) -> dict[str, str]:
        """What a process of it has to be given, to import our packages and what they need."""
        paths = [str(ROOT / source) for source in SOURCES]
        if self.path != Path(sys.executable):
            paths.append(str(self.wheels))
        bytecode = _cache() / "pythons" / "bytecode"  # nothing is written into the checkout
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONPYCACHEPREFIX": str(bytecode),
            "PYTHONNOUSERSITE": "1",
        }


def this() -> Python:
    """The interpreter that runs this."""
    return Python(Path(sys.executable), ".".join(map(str, sys.version_info[:3])))


def declared() -> list[Version]:
    """The versions that pyproject.toml declares, in their order."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = (re.fullmatch(r"Programming Language :: Python :: (\d+)\.(\d+)", line)
             for line in project["classifiers"])  # fmt: skip
    return [(int(match[1]), int(match[2])) for match in found if match]


def others() -> dict[Version, Python | None]:
    """An interpreter for each declared version but this one's; None where there is none.

    Raises PythonError where ASSAY_PYTHONS names what is no interpreter.
    """
    found: dict[Version, Python | None] = {one: None for one in declared() if one != this().version}
    for python in _all(list(found)):
        if python.version in found and found[python.version] is None:
            found[python.version] = python
    return found


def make(python: Python) -> None:
    """Its folder of wheels, whole or not at all. Raises PythonError with pip's last line."""
    if python.is_ready:
        return
    folder = python.wheels.parent
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder))
    try:
        pinned = [f"{name}=={version(name)}" for name in NEEDED]
        only = ["--only-binary", ":all:", "--no-deps", "--python-version", python.full]
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        made = subprocess.run(
            [*pip, *only, "--target", str(fresh / "wheels"), *pinned],
            capture_output=True,
            text=True,
            timeout=_PIP_SECONDS,
        )
        if made.returncode:
            said = made.stderr.strip().splitlines() or ["pip failed"]
            raise PythonError(f"Python {python.full}: {said[-1]}")
        (fresh / "wheels").rename(python.wheels)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


# ---- inside ------------------------------------------------------------------------------------


def _all(wanted: list[Version]) -> Iterator[Python]:
    named = [part for part in os.environ.get("ASSAY_PYTHONS", "").split(os.pathsep) if part]
    for text in named:
        python = _asked(Path(text))
        if python is None:
            raise PythonError(f"ASSAY_PYTHONS: {text} is no interpreter of CPython")
        yield python
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for major, minor in wanted:
        name = f"python{major}.{minor}"
        paths = [folder / "bin" / name for folder in sorted(pyenv.glob(f"{major}.{minor}.*"))]
        on_path = shutil.which(name)  # pyenv's shims may lead nowhere: last, and asked
        for path in [*paths, *([Path(on_path)] if on_path else [])]:
            if python := _asked(path):
                yield python


def _asked(path: Path) -> Python | None:
    try:
        told = subprocess.run(
            [path, "-I", "-c", _ASK],
            capture_output=True,
            check=True,
            text=True,
            timeout=_ASK_SECONDS,
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return Python(path, ".".join(told[1:])) if told[:1] == ["cpython"] and len(told) == 4 else None


def _cache() -> Path:
    return Path(os.environ.get("ASSAY_CACHE") or Path.home() / ".cache" / "assay")


def _prepare() -> int:
    """An environment for each that is here. One that cannot be made is told; its tests skip."""
    try:
        found = others()
    except PythonError as error:
        sys.stderr.write(f"setup: {error}\n")
        return 2
    for (major, minor), python in found.items():
        if python is None:
            sys.stderr.write(f"setup: no Python {major}.{minor} here; its tests are skipped\n")
            continue
        try:
            make(python)
        except (PythonError, subprocess.TimeoutExpired) as error:
            sys.stderr.write(f"setup: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_prepare())
