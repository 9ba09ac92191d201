"""What a sweep runs: every point of a grid, so many times.

    [sweep]
    replicates = 20
    "adversary.0.fraction" = [0.01, 0.05, 0.1]
    "coordinator.audit_bps_min" = [200, 500]

A key is the path of a scenario's key, items of lists by their number; its values replace what the
file says. Runs are numbered: the first key changes slowest, the replicate fastest. A replicate's
seed is drawn from a stream of its own name under the scenario's seed (decisions/0017), so that it
is the same at every point, whatever else is swept and in whatever order.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Final

from assay_simnet.cheats import BEHAVIOURS
from assay_simnet.quantities import QuantityError
from assay_simnet.scenario import Scenario, read
from assay_simnet.schema import Source, parse, unknown, whole
from assay_simnet.seeds import Streams

RUNS_MAX: Final = 1_000_000
POINTS_MAX: Final = 100_000  # all are read before any runs
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
SEED_BITS: Final = 48  # a seed is typed, and read by spreadsheets
_NOT_SWEPT: Final = {"seed": "write replicates = N", "name": "", "schema": "", "sweep": ""}
_OF_MACHINES: Final = ("model", "network", "profile")

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Axis:
    """One swept key. `place`: where the file says so."""

    key: str
    path: Path
    place: Path
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Run:
    """One run of a plan. `cells`: the swept values as texts; `text`: its whole scenario."""

    number: int
    cells: tuple[str, ...]
    replicate: int
    seed: int
    text: str


@dataclass(frozen=True)
class _Point(Source):
    """A point's text; what is wrong with it is shown in the file it comes from."""

    original: Source
    axes: tuple[Axis, ...]

    def line(self, where: Path) -> int:
        for axis in self.axes:
            if where[: len(axis.path)] == axis.path:
                return self.original.line(axis.place)
        within = [axis.place for axis in self.axes if axis.path[: len(where)] == where]
        return self.original.line(where) or self.original.line(within[0] if within else ())


class Plan:
    """All runs of a scenario file with a [sweep] table."""

    def __init__(self, source: Source) -> None:
        """Reads every point. Raises ScenarioError."""
        self.source = source
        self._given = parse(source)
        swept = self._given.pop("sweep", None)
        if not isinstance(swept, dict):
            raise source.error((), "there is no [sweep] table to say what to run")
        self.base = read(_Point(source.name, _toml(source, self._given), source, ()))
        self.replicates = _replicates(source, swept)
        self.axes = tuple(_axes(source, self._given, swept))
        self._shape = tuple(len(axis.values) for axis in self.axes)
        if prod(self._shape) > POINTS_MAX or len(self) > RUNS_MAX:
            why = f"{len(self):,} runs; at most {POINTS_MAX:,} points and {RUNS_MAX:,} runs"
            raise source.error(("sweep",), why)
        streams = Streams(self.base.seed)
        self.seeds = tuple(
            streams.stream(f"replicate:{one}").word() >> 64 - SEED_BITS
            for one in range(self.replicates)
        )
        scenarios = [self._read(point) for point in product(*map(range, self._shape))]
        named = {one.behaviour for each in scenarios for one in each.adversaries}
        self.behaviours = tuple(sorted(n for n in named if not BEHAVIOURS[n].of_clients))

    def __len__(self) -> int:
        return prod(self._shape) * self.replicates

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(axis.key for axis in self.axes)

    def run(self, number: int) -> Run:
        """The run of that number, from 0."""
        assert 0 <= number < len(self)
        point, replicate = divmod(number, self.replicates)
        places: list[int] = []
        for size in reversed(self._shape):
            point, place = divmod(point, size)
            places.insert(0, place)
        values = [axis.values[place] for axis, place in zip(self.axes, places, strict=True)]
        seed = self.seeds[replicate]
        text = self._text(places, seed)
        return Run(number, tuple(map(cell, values)), replicate, seed, text)

    def _text(self, places: Iterable[int], seed: int | None = None) -> str:
        given = copy.deepcopy(self._given)
        for axis, place in zip(self.axes, places, strict=True):
            _put(given, axis.path, axis.values[place])
        if seed is not None:
            given["seed"] = seed
        return _toml(self.source, given)

    def _read(self, places: Iterable[int]) -> Scenario:
        source = self.source
        return read(_Point(source.name, self._text(places), source, self.axes))


def base(source: Source) -> Scenario:
    """A file's scenario, whether or not it also has a [sweep] table. Raises ScenarioError."""
    given = parse(source)
    if "sweep" not in given:
        return read(source)
    del given["sweep"]
    return read(_Point(source.name, _toml(source, given), source, ()))


def at_level(source: Source, level: str) -> Source:
    """The same scenario at another level; only fast has a tick. Raises ScenarioError where the file
    is no TOML."""
    given = parse(source)
    given["level"] = level
    if level != "fast":
        given.pop("tick", None)
    return _Point(source.name, _toml(source, given), source, ())


def on_machine(source: Source, machine: Source) -> Source:
    """The same scenario with the keys of another file, as `simnet calibrate` writes it. Raises
    ScenarioError where it says more than what machine and network are like."""
    given, keys = parse(source), parse(machine)
    for name, entry in keys.items():
        if name not in _OF_MACHINES or not isinstance(entry, dict):
            raise machine.error((name,), unknown(name, _OF_MACHINES, "table of a machine"))
        _merge(given.setdefault(name, {}), entry)
    return _Point(source.name, _toml(source, given), source, ())


def cell(value: Any) -> str:
    """A swept value as a table shows it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


# ---- inside ------------------------------------------------------------------------------------


def _replicates(source: Source, swept: dict[str, Any]) -> int:
    try:
        return whole(1, RUNS_MAX)(swept.pop("replicates", 1))
    except QuantityError as error:
        raise source.error(("sweep", "replicates"), f"replicates: {error}") from error


def _axes(source: Source, given: dict[str, Any], swept: dict[str, Any]) -> Iterable[Axis]:
    paths: list[Path] = []
    for place, values in _leaves(swept, ()):
        key = ".".join(map(str, place))
        at = ("sweep", *place)
        if not isinstance(values, list) or not values:
            raise source.error(at, f"{key}: a list of values wanted, like [1, 2, 3]")
        texts = [cell(value) for value in values]
        if len(set(texts)) < len(texts):
            raise source.error(at, f"{key}: a value is there twice")
        if any(set(text) & set("\r\n") for text in texts):
            raise source.error(at, f"{key}: a value of one line wanted")
        path = _path(source, given, key, at)
        if path[0] in _NOT_SWEPT:
            why = _NOT_SWEPT[str(path[0])]
            raise source.error(at, f"{key} cannot be swept" + (f"; {why}" if why else ""))
        if any(path[: len(one)] == one[: len(path)] for one in paths):
            raise source.error(at, f"{key}: another key sweeps this, or a part of it")
        paths.append(path)
        yield Axis(key, path, at, tuple(values))


def _leaves(table: Mapping[str, Any], above: tuple[str, ...]) -> Iterable[tuple[Path, Any]]:
    """Keys with dots come as tables within tables, where they are not quoted."""
    for key, entry in table.items():
        if isinstance(entry, dict):
            yield from _leaves(entry, (*above, key))
        else:
            yield (*above, key), entry


def _path(source: Source, given: Any, key: str, at: Path) -> Path:
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


def _merge(given: dict[str, Any], more: dict[str, Any]) -> None:
    for key, entry in more.items():
        if isinstance(entry, dict) and isinstance(given.get(key), dict):
            _merge(given[key], entry)
        else:
            given[key] = entry


def _put(given: Any, path: Path, value: Any) -> None:
    for part in path[:-1]:
        given = given.setdefault(part, {}) if isinstance(given, dict) else given[part]
    given[path[-1]] = value


def _toml(source: Source, given: dict[str, Any]) -> str:
    """Those tables as TOML, one line a key, with the file's question before them."""
    first = source.text.split("\n", 1)[0]
    lines = [first.rstrip()] if first.startswith("#") else []
    lines += [f"{_key(key)} = {_value(entry)}" for key, entry in given.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(one)}" for k, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else str(value)  # numbers, and dates


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _quoted(key)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
