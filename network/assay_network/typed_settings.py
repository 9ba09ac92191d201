"""A service's settings: a frozen dataclass read once at start, from TOML, variables and flags.

Every key exists under the same name in all three (`data_dir`, PREFIX_DATA_DIR, --data-dir). A key
nobody knows is refused with the nearest known one: a misspelt limit must not be ignored. The types
are those of the defaults: str, int, bool, or a tuple of strings.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from assay_protocol.errors import AssayError

CONFIG_BYTES_MAX: Final = 65_536
_T = TypeVar("_T")
_Types = Mapping[str, type]


def load_typed(
    kind: type[_T],
    prefix: str,
    file: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, Any],
) -> _T:
    """A `kind`; later sources win. `prefix`CONFIG is nobody's key: it names the file.

    Raises AssayError("config_invalid") with the place, and what `kind` itself refuses.
    """
    types = _types_of(kind)
    values: dict[str, Any] = {}
    if file is not None:
        values |= typed_table(kind, read_toml(file), str(file))
    for name, text in environment.items():
        if name.startswith(prefix) and name != prefix + "CONFIG":
            key = name.removeprefix(prefix).lower()
            values[key] = _parsed(types, key, text, name)
    for key, value in flags.items():
        values[key] = _typed(types, key, value, "--" + key.replace("_", "-"))
    return kind(**values)


def typed_table(kind: type, table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a `kind` that stand in one TOML table; AssayError("config_invalid")."""
    types = _types_of(kind)
    return {key: _typed(types, key, value, where) for key, value in table.items()}


def read_toml(file: Path) -> dict[str, Any]:
    """A whole TOML file; AssayError("config_invalid")."""
    try:
        data = file.read_bytes()
        _require(len(data) <= CONFIG_BYTES_MAX, f"{file} is too large")
        return tomllib.loads(data.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise AssayError("config_invalid", f"{file}: {error}") from error


def defaults_of(kind: type) -> dict[str, Any]:
    """Every key of a `kind` and its default, in the order they are written down."""
    return {field.name: field.default for field in dataclasses.fields(kind)}


def data_folder(given: str, part: str) -> Path:
    """Where a service keeps its data: the folder its owner gave, or the platform's own."""
    if given:
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("assay")) / part


def _types_of(kind: type) -> _Types:
    """Fields whose default is made afresh are no keys of a table."""
    fields = dataclasses.fields(kind)
    return {one.name: type(one.default) for one in fields if one.default is not dataclasses.MISSING}


def _typed(types: _Types, key: str, value: Any, where: str) -> Any:
    kind = _known(types, key, where)
    if kind is tuple:
        right = isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
        _require(right, f"{where}: {key} must be a list of strings")
        return tuple(value)
    _require(type(value) is kind, f"{where}: {key} must be a {kind.__name__}")
    return value


def _parsed(types: _Types, key: str, text: str, where: str) -> Any:
    kind = _known(types, key, where)
    if kind is tuple:
        return tuple(part for part in text.split(",") if part)
    if kind is bool:
        _require(text in ("0", "1", "true", "false"), f"{where} must be true or false")
        return text in ("1", "true")
    if kind is int:
        _require(text.isdecimal(), f"{where} must be a number")
        return int(text)
    return text


def _known(types: _Types, key: str, where: str) -> type:
    if key not in types:
        near = difflib.get_close_matches(key, types, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AssayError("config_invalid", f"{where}: unknown key {key!r}{hint}")
    return types[key]


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AssayError("config_invalid", what)
