"""Where the suites of others live: environments of their own, outside of the checkout, kept.

Versions are fixed, so that a figure can be had again; a change of them makes a new folder. There
are two for clients, because litellm wants an older openai than the other suites do.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CACHE: Final = Path(os.environ.get("ASSAY_CACHE") or Path.home() / ".cache" / "assay")
FOLDER: Final = CACHE / "conformance"
INSTALL_SECONDS_MAX: Final = 1_800


@dataclass(frozen=True)
class PythonEnvironment:
    """Packages of the package index, and wheels of our own cache, in a virtual environment."""

    name: str
    packages: tuple[str, ...]
    wheels: tuple[str, ...] = ()  # patterns below the cache

    @property
    def folder(self) -> Path:
        return FOLDER / f"{self.name}-{_digest((*self.packages, *self.wheels))}"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def program(self, name: str) -> Path:
        return self.folder / "bin" / name

    def make(self) -> None:
        """Install it, unless it is there. Ends the program with pip's own words if it cannot be."""
        with _fresh(self.folder) as folder:
            if folder is None:
                return
            found = [str(path) for pattern in self.wheels for path in CACHE.glob(pattern)]
            _run([sys.executable, "-m", "venv", str(folder)])
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q"]
            _run([*pip, "--disable-pip-version-check", *found, *self.packages])

    def version(self, package: str) -> str:
        """Of an installed package."""
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        return _told([str(self.python), "-c", code])


@dataclass(frozen=True)
class NodeEnvironment:
    """Packages of npm, without their install scripts."""

    name: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return FOLDER / f"{self.name}-{_digest(self.packages)}"

    def make(self) -> None:
        with _fresh(self.folder) as folder:
            if folder is None:
                return
            (folder / "package.json").write_text('{"private": true}')
            npm = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
            _run([*npm, "--no-package-lock", *self.packages], folder)

    def version(self, package: str) -> str:
        about = self.folder / "node_modules" / package / "package.json"
        return str(json.loads(about.read_text())["version"])


SUITES: Final = PythonEnvironment(
    "suites",
    (
        "llm-comply==0.5.0", "langchain-tests==1.1.9", "langchain-openai==1.7.4",
        "schemathesis==4.32.5", "openai==3.57.0",
    ),
)  # fmt: skip
CLIENTS: Final = PythonEnvironment(
    "clients",
    (
        "litellm==1.109.1", "llama-index-llms-openai-like==0.8.1",
        "llama-index-embeddings-openai-like==0.4.0",
    ),
)  # fmt: skip
LLAMA_CPP_PYTHON: Final = PythonEnvironment(
    "llama-cpp-python", ("llama-cpp-python[server]==0.3.36",), ("wheels/llama_cpp_python-*.whl",)
)
JAVASCRIPT: Final = NodeEnvironment(
    "javascript",
    ("openai@6.49.0", "ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/openai-compatible@2.0.92"),
)
LM_EVAL: Final = PythonEnvironment("lm-eval", ("lm-eval[api]==0.4.13", "transformers==5.24.0"))


ALL: Final = (SUITES, CLIENTS, LLAMA_CPP_PYTHON, LM_EVAL, JAVASCRIPT)


class _fresh:  # noqa: N801 - read as a verb
    """A folder to fill, which counts as there once it is filled; None if it was filled before."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._mark = folder, folder / "installed"

    def __enter__(self) -> Path | None:
        if self._mark.is_file():
            return None
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return self._folder

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._mark.touch()


def _run(command: list[str], folder: Path | None = None) -> None:
    print("conformance:", " ".join(command), file=sys.stderr)
    done = subprocess.run(
        command,
        cwd=folder,
        timeout=INSTALL_SECONDS_MAX,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"conformance: it failed\n{done.stderr}")


def _told(command: list[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def _digest(words: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
