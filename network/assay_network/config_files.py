"""A first configuration file: every key a service knows, set or as a comment, in TOML.

Written once and never over a file that is there. The keys and types are those of the service's
settings (typed_settings.py), so a file written here is one it reads.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from assay_protocol.errors import AssayError

_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700


def config_path(given: Path | None, role: str) -> Path:
    """Where a role's configuration goes: the path its owner gave, or the platform's folder."""
    if given is not None:
        return given.expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_config_dir("assay")) / f"{role}.toml"


def as_toml(defaults: Mapping[str, Any], given: Mapping[str, Any], head: str) -> str:
    """A file of all the keys of `defaults`: those `given` set, the rest as comments.

    `head` is said at the top. Values are strings, integers, booleans or tuples of strings.
    """
    lines = [f"# {line}" for line in head.splitlines()]
    for name, default in defaults.items():
        line = f"{name} = {_value(given.get(name, default))}"
        lines.append(line if name in given else f"# {line}")
    return "\n".join(lines) + "\n"


def write_new(path: Path, text: str) -> None:
    """Write a file that only its owner reads.

    Raises AssayError("config_invalid") if there is one, "storage_failed" if it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with contextlib.suppress(FileExistsError):  # a file in its place is told by what follows
            path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, flags, _FILE_MODE), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise AssayError("config_invalid", f"{path} exists; it is not overwritten") from error
    except OSError as error:
        raise AssayError("storage_failed", f"{path}: {error.strerror}") from error


def _value(value: Any) -> str:
    """A value in TOML, whose strings and lists of strings are written as JSON's are."""
    if isinstance(value, tuple):
        return json.dumps(list(value), ensure_ascii=False)
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")  # the one character JSON lets pass and TOML does not
