"""Keys of a scenario by their dotted path: setting them, and saying where a value came from.

"population.nodes" is a key of a table, "adversary.0.count" one of a list's item. [sweep] and
[small] change scenarios by them; what is wrong with a changed scenario is shown in the file, at the
line that changed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from assay_simnet.schema import Source
from assay_simnet.toml_text import key_text, value_text

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Edited(Source):
    """The text of a changed scenario; `edits`: paths that were set, and where the file says so."""

    original: Source
    edits: tuple[tuple[Path, Path], ...]

    def line(self, where: Path) -> int:
        for path, place in self.edits:
            if where[: len(path)] == path:
                return self.original.line(place)
        within = [place for path, place in self.edits if path[: len(where)] == where]
        return self.original.line(where) or self.original.line(within[0] if within else ())


def leaves(table: Mapping[str, Any], above: tuple[str, ...]) -> Iterable[tuple[Path, Any]]:
    """Keys with dots come as tables within tables, where they are not quoted."""
    for key, entry in table.items():
        if isinstance(entry, dict):
            yield from leaves(entry, (*above, key))
        else:
            yield (*above, key), entry


def path_of(source: Source, given: Any, key: str, at: Path) -> Path:
    """The key's parts, numbers for items of lists. These have to be there; tables need not."""
    path: list[str | int] = []
    for part in key.split("."):
        if isinstance(given, list):
            if not part.isdecimal() or int(part) >= len(given):
                raise source.error(at, f"{key}: there is no {'.'.join(map(str, path))}.{part}")
            path.append(int(part))
            given = given[int(part)]
        elif isinstance(given, dict):
            path.append(part)
            given = given.get(part, {})
        else:
            raise source.error(at, f"{key}: {'.'.join(map(str, path))} is no table")
    return tuple(path)


def put(given: Any, path: Path, value: Any) -> None:
    """Set it; tables on the way are made."""
    for part in path[:-1]:
        given = given.setdefault(part, {}) if isinstance(given, dict) else given[part]
    given[path[-1]] = value


def to_toml(source: Source, given: dict[str, Any]) -> str:
    """Those tables as TOML, one line a key, with the file's question before them."""
    first = source.text.split("\n", 1)[0]
    lines = [first.rstrip()] if first.startswith("#") else []
    lines += [f"{key_text(key)} = {value_text(entry)}" for key, entry in given.items()]
    return "\n".join(lines) + "\n"
