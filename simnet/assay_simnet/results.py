"""Reads what runs and sweeps left; what is missing or cut short is a ScenarioError."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay_simnet.schema import ScenarioError


def read_json(path: Path) -> dict[str, Any]:
    """A file of one JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise ScenarioError(f"{path}: no JSON object")
    return found


def table_rows(folder: Path, name: str) -> Iterator[dict[str, str]]:
    """A run's table, row by row, as texts: csv.gz, or Parquet where that is what there is."""
    packed, parquet = folder / f"{name}.csv.gz", folder / f"{name}.parquet"
    if packed.is_file():
        yield from packed_rows(packed)
    elif parquet.is_file():
        yield from _parquet_rows(parquet)
    else:
        raise ScenarioError(f"{packed}: not there; is {folder} a run that ended?")


def packed_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a csv.gz by column. Raises ScenarioError where it is cut short."""
    line = 1
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
            reader = csv.reader(text)
            columns = next(reader, [])
            for line, row in enumerate(reader, 2):
                if len(row) != len(columns):
                    raise ScenarioError(f"{path}:{line}: {len(row)} of {len(columns)} columns")
                yield dict(zip(columns, row, strict=True))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError(f"{path}:{line}: cut short or damaged after this ({error})") from error


def _parquet_rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        for batch in parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                yield {key: str(value) for key, value in row.items()}
    except ModuleNotFoundError as error:
        raise ScenarioError(f"{path}: reading it needs pyarrow") from error
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{path}: {error}") from error


def flat(figures: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Figures by dotted path. An empty table is a figure: there was nothing to count."""
    for key, value in figures.items():
        path = f"{above}{key}"
        if isinstance(value, dict) and value:
            yield from flat(value, f"{path}.")
        else:
            yield path, value


def at(figures: dict[str, Any], path: str) -> Any:
    """What is there under a dotted path; None if nothing is."""
    found: Any = figures
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
