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
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Final

from assay_simnet.cheats import BEHAVIOURS
from assay_simnet.paths import Edited, Path, leaves, path_of, put, to_toml
from assay_simnet.quantities import QuantityError
from assay_simnet.scenario import Scenario, read
from assay_simnet.schema import Source, parse, whole
from assay_simnet.seeds import Streams

RUNS_MAX: Final = 1_000_000
POINTS_MAX: Final = 100_000  # all are read before any runs
SEED_BITS: Final = 48  # a seed is typed, and read by spreadsheets
_NOT_SIZED: Final = ("seed", "name", "schema", "level", "sweep", "small")
_NOT_SWEPT: Final = {
    "seed": "write replicates = N",
    **dict.fromkeys(("name", "schema", "sweep", "small"), ""),
}


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


class Plan:
    """All runs of a scenario file with a [sweep] table."""

    def __init__(self, source: Source) -> None:
        """Reads every point. Raises ScenarioError."""
        self.source = source
        self._given = parse(source)
        swept = self._given.pop("sweep", None)
        if not isinstance(swept, dict):
            raise source.error((), "there is no [sweep] table to say what to run")
        self.base = base(source)
        self._given.pop("small", None)
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
            put(given, axis.path, axis.values[place])
        if seed is not None:
            given["seed"] = seed
        return to_toml(self.source, given)

    def _read(self, places: Iterable[int]) -> Scenario:
        source = self.source
        swept = tuple((axis.path, axis.place) for axis in self.axes)
        return read(Edited(source.name, self._text(places), source, swept))


def base(source: Source, *, small: bool = False) -> Scenario:
    """A file's scenario without its tables [sweep] and [small], or at the sizes that [small] says.

    [small] is read in any case, so that it is right when it is needed. Raises ScenarioError.
    """
    given = parse(source)
    given.pop("sweep", None)
    sizes = given.pop("small", None)
    as_written = read(Edited(source.name, to_toml(source, given), source, ()))
    if sizes is None:
        if small:
            raise source.error((), "there is no [small] table to say how small")
        return as_written
    if not isinstance(sizes, dict):
        raise source.error(("small",), "small is a table")
    places = tuple(_put_sizes(source, given, sizes))
    at_small = read(Edited(source.name, to_toml(source, given), source, places))
    return at_small if small else as_written


def cell(value: Any) -> str:
    """A swept value as a table shows it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


# ---- inside ------------------------------------------------------------------------------------


def _replicates(source: Source, swept: dict[str, Any]) -> int:
    try:
        return whole(1, RUNS_MAX)(swept.pop("replicates", 1))
    except QuantityError as error:
        raise source.error(("sweep", "replicates"), f"replicates: {error}") from error


def _put_sizes(
    source: Source, given: dict[str, Any], sizes: dict[str, Any]
) -> Iterable[tuple[Path, Path]]:
    """Puts what [small] says into the file's tables: where each value goes, and is said."""
    for place, value in list(leaves(sizes, ())):
        key = ".".join(map(str, place))
        at = ("small", *place)
        path = path_of(source, given, key, at)
        if path[0] in _NOT_SIZED:
            raise source.error(at, f"{key} is the same at any size")
        put(given, path, value)
        yield path, at


def _axes(source: Source, given: dict[str, Any], swept: dict[str, Any]) -> Iterable[Axis]:
    paths: list[Path] = []
    for place, values in leaves(swept, ()):
        key = ".".join(map(str, place))
        at = ("sweep", *place)
        if not isinstance(values, list) or not values:
            raise source.error(at, f"{key}: a list of values wanted, like [1, 2, 3]")
        texts = [cell(value) for value in values]
        if len(set(texts)) < len(texts):
            raise source.error(at, f"{key}: a value is there twice")
        if any(set(text) & set("\r\n") for text in texts):
            raise source.error(at, f"{key}: a value of one line wanted")
        path = path_of(source, given, key, at)
        if path[0] in _NOT_SWEPT:
            why = _NOT_SWEPT[str(path[0])]
            raise source.error(at, f"{key} cannot be swept" + (f"; {why}" if why else ""))
        if any(path[: len(one)] == one[: len(path)] for one in paths):
            raise source.error(at, f"{key}: another key sweeps this, or a part of it")
        paths.append(path)
        yield Axis(key, path, at, tuple(values))
