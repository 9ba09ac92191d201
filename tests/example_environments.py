"""The environments that docs/examples run in, apart from ours: a group of pyproject.toml each.

`python tests/example_environments.py` makes them (make setup does) under $ASSAY_CACHE or
~/.cache/assay, and makes one again when its group changes. They are two because llama-index wants
an older openai than inspect-ai and our tests do, and none of ours because an example needs a client
and a URL, and nothing of the network.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1] / "pyproject.toml"
GROUPS: Final = ("examples", "examples-frameworks")
_PIP_SECONDS: Final = 900


def programs(group: str) -> Path:
    """The folder of a group's `python` and other programs, whether or not it is there."""
    return _folder(group) / "bin"


def is_ready(group: str) -> bool:
    return _mark(group).is_file()


def make(group: str) -> None:
    """Make it unless it is there; one that was left half made is made again.

    Raises OSError or subprocess.SubprocessError; pip has said why on standard error.
    """
    if is_ready(group):
        return
    folder = _folder(group)
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    pip = (sys.executable, "-m", "pip", "--python", str(programs(group) / "python"))
    # Most of what comes is never imported. What is, compiles at its first import.
    quiet = ("-qq", "--disable-pip-version-check", "--no-compile", "--only-binary", ":all:")
    _run(*pip, "install", *quiet, "--group", f"{PROJECT}:{group}")
    _mark(group).touch()


def _folder(group: str) -> Path:
    wanted = tomllib.loads(PROJECT.read_text())["dependency-groups"][group]
    named = json.dumps([wanted, sys.version_info[:3], sys.base_prefix])
    cache = Path(os.environ.get("ASSAY_CACHE") or Path.home() / ".cache" / "assay")
    return cache / f"{group}-{hashlib.sha256(named.encode()).hexdigest()[:16]}"


def _mark(group: str) -> Path:
    return _folder(group) / "made"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=_PIP_SECONDS)


if __name__ == "__main__":
    try:
        for one in GROUPS:
            make(one)
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"setup: no environment for docs/examples: {error}")
