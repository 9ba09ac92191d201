"""Loads recorded workloads: when somebody asked, how long the prompt was, how long the answer.

    azure      TIMESTAMP, ContextTokens, GeneratedTokens          (Azure 2023 and 2024, CC-BY)
    burstgpt   Timestamp, Session ID, Elapsed time, Model, Request tokens, Response tokens, ...

The data is not shipped: `traces/` holds a few made-up rows with the same columns, for tests and for
a first try.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from assay_simnet.schema import ScenarioError, Source, read_file

ROWS_MAX: Final = 50_000_000
SAMPLES: Final = Path(__file__).with_name("traces")
NAMES: Final = ("azure-2023-code", "azure-2023-conv", "azure-2024", "burstgpt")
_AZURE: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_BURST: Final = ("Timestamp", "Request tokens", "Response tokens")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: microseconds after the trace's first, tokens in and out, and whose it is."""

    at_us: int
    n_in: int
    n_out: int
    session: str = ""


def load(name: str, path: Path | None) -> list[Ask]:
    """The trace `name` from `path`, or its sample. Raises ScenarioError with file and line."""
    source = read_file(path or SAMPLES / f"{name}.csv")
    columns = _BURST if name == "burstgpt" else _AZURE
    reader = csv.DictReader(source.text.splitlines())
    for column in columns:
        if column not in (reader.fieldnames or ()):
            known = ", ".join(reader.fieldnames or ())
            raise ScenarioError(f"{source.name}:1: no column {column!r}; there are: {known}")
    asks = _rows(source, reader, columns)
    if not asks:
        raise ScenarioError(f"{source.name}: no rows")
    first = min(ask.at_us for ask in asks)
    moved = [Ask(ask.at_us - first, ask.n_in, ask.n_out, ask.session) for ask in asks]
    return sorted(moved, key=lambda ask: ask.at_us)


def _rows(source: Source, reader: csv.DictReader[str], columns: Iterable[str]) -> list[Ask]:
    asks = []
    when, tokens_in, tokens_out = columns
    for row in reader:
        place = f"{source.name}:{reader.line_num}"
        try:
            at, n_in, n_out = _time(row[when]), int(row[tokens_in]), int(row[tokens_out])
        except (TypeError, ValueError) as error:
            raise ScenarioError(f"{place}: {error}") from error
        if n_in < 0 or n_out < 0:
            raise ScenarioError(f"{place}: negative tokens")
        if n_in and n_out:  # BurstGPT: no response is a failure of theirs, and no work for us
            asks.append(Ask(at, n_in, n_out, row.get("Session ID") or ""))
        if len(asks) > ROWS_MAX:
            raise ScenarioError(f"{place}: more than {ROWS_MAX:,} rows")
    return asks


def _time(text: str) -> int:
    """Seconds, or a date and time; microseconds."""
    try:
        return round(float(text) * 1e6)
    except ValueError:
        pass
    moment = datetime.fromisoformat(text[:26])  # the traces have seven digits after the point
    since = moment.replace(tzinfo=None) - datetime(1970, 1, 1)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
