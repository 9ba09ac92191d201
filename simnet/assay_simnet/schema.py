"""Reads TOML tables into dataclasses, strictly.

An unknown key, a wrong type or a missing unit is an error that names the file, the line and the
nearest thing that would have been right.

A dataclass field says how its value is read by `read=`: a function that raises QuantityError.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from assay_simnet.quantities import QuantityError

_T = TypeVar("_T")
_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY: Final = re.compile(r"\s*(\"[^\"]+\"|[A-Za-z0-9_.-]+)\s*=")


class ScenarioError(Exception):
    """A scenario that cannot be run; the text says where and why."""


@dataclass(frozen=True)
class Source:
    """A file's name and text, to tell lines by."""

    name: str
    text: str

    def error(self, where: tuple[str | int, ...], why: str) -> ScenarioError:
        """`where`: keys and indices from the top of the file."""
        line = self.line(where)
        place = f"{self.name}:{line}" if line else self.name
        return ScenarioError(f"{place}: {why}")

    def line(self, where: tuple[str | int, ...]) -> int:
        """The line of a key, or of the nearest table around it; 0 if none is found."""
        table: tuple[str | int, ...] = ()
        counts: dict[str, int] = {}
        best, depth = 0, 0
        for number, text in enumerate(self.text.splitlines(), 1):
            header = _HEADER.fullmatch(text)
            if header is not None:
                name = header[2]
                table = tuple(name.split("."))
                if header[1] == "[[":
                    table = (*table, counts.get(name, 0))
                    counts[name] = counts.get(name, 0) + 1
                place = table
            else:
                key = _KEY.match(text)
                if key is None:
                    continue
                place = (*table, *_key_parts(key[1]))
            if where[: len(place)] == place and len(place) > depth:
                best, depth = number, len(place)
        return best


def parse(source: Source) -> dict[str, Any]:
    """The file's tables."""
    try:
        return tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{source.name}: {error}") from error


def read_file(path: Path) -> Source:
    """Raises ScenarioError if it cannot be read as text."""
    try:
        return Source(str(path), path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from error


def value(read: Callable[[Any], Any], default: Any = MISSING, says: str = "") -> Any:
    """A field of a table: how it is read, what stands where it is left out, and what it says.

    `default` is given as a scenario would write it.
    """
    about = {"read": read, "says": says, "written": default}
    if default is MISSING:
        return field(metadata=about)
    return field(default_factory=lambda: read(default), metadata=about)


def table(cls: type[_T], source: Source, where: tuple[str | int, ...], given: object) -> _T:
    """The dataclass of a table. Raises ScenarioError."""
    if not isinstance(given, dict):
        raise source.error(where, f"{where[-1]} is a table")
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, entry in given.items():
        at = (*where, key)
        name = "for_" if key == "for" else key
        if name not in known or "read" not in known[name].metadata:
            raise source.error(
                at, unknown(key, (n for n, i in known.items() if "read" in i.metadata))
            )
        try:
            values[name] = known[name].metadata["read"](entry)
        except QuantityError as error:
            raise source.error(at, f"{key}: {error}") from error
    for name, item in known.items():
        wanted = item.default is MISSING and item.default_factory is MISSING
        if wanted and name not in values:
            raise source.error(where, f"{name} is missing")
    return cls(**values)


def unknown(key: str, known: Iterable[str], what: str = "key") -> str:
    """What is said of a name nobody knows."""
    names = sorted(known)
    near = difflib.get_close_matches(key, names, 1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
    return f"unknown {what} {key!r}{hint}"


# ---- plain values ------------------------------------------------------------------------------


def text(given: Any) -> str:
    if not isinstance(given, str) or not given:
        raise QuantityError(f"{given!r} is no text")
    return given


def whole(least: int, most: int) -> Callable[[Any], int]:
    """An integer in a range."""

    def read(given: Any) -> int:
        if type(given) is not int or not least <= given <= most:
            raise QuantityError(f"{given!r}: a whole number from {least:,} to {most:,} wanted")
        return given

    return read


def number(least: float, most: float) -> Callable[[Any], float]:
    """A number in a range."""

    def read(given: Any) -> float:
        if type(given) not in (int, float) or not least <= given <= most:
            raise QuantityError(f"{given!r}: a number from {least:g} to {most:g} wanted")
        return float(given)

    return read


def flag(given: Any) -> bool:
    if not isinstance(given, bool):
        raise QuantityError(f"{given!r}: true or false wanted")
    return given


def one_of(names: Iterable[str], what: str) -> Callable[[Any], str]:
    """One of some names."""
    known = tuple(names)

    def read(given: Any) -> str:
        if given not in known:
            raise QuantityError(unknown(str(given), known, what))
        return str(given)

    return read


def some_of(names: Iterable[str], what: str) -> Callable[[Any], tuple[str, ...]]:
    """A list of some names."""
    one = one_of(names, what)

    def read(given: Any) -> tuple[str, ...]:
        if not isinstance(given, list):
            raise QuantityError(f"{given!r}: a list wanted")
        return tuple(one(item) for item in given)

    return read


def weights(names: Iterable[str], what: str) -> Callable[[Any], dict[str, float]]:
    """A table of weights by name."""
    one, size = one_of(names, what), number(0.0, 1e9)

    def read(given: Any) -> dict[str, float]:
        if not isinstance(given, dict) or not given:
            raise QuantityError(f"{given!r}: a table like {{ name = 0.5 }} wanted")
        found = {one(name): size(weight) for name, weight in given.items()}
        if sum(found.values()) <= 0:
            raise QuantityError("all weights are zero")
        return found

    return read


def _key_parts(key: str) -> tuple[str, ...]:
    return (key[1:-1],) if key.startswith('"') else tuple(key.split("."))
