"""Fields of JSON that another process wrote: the value if it is what it should be, else None.

A node may be of another version, and a coordinator may lie: nothing here raises for what they say,
and no number or text is larger than a screen can show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final

TEXT_MAX: Final = 200  # characters
NUMBER_MAX: Final = 1 << 62
AMOUNT_DIGITS_MAX: Final = 30
ITEMS_MAX: Final = 256

Fields = Mapping[str, Any]


def fields(value: object) -> Fields:
    """An object's fields; none of anything else."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> Sequence[Fields]:
    """A list's first ITEMS_MAX objects; what is no object is left out."""
    some = value[:ITEMS_MAX] if isinstance(value, list | tuple) else ()
    return [item for item in some if isinstance(item, Mapping)]


def text(raw: Fields, name: str) -> str:
    """A string, cut at TEXT_MAX and without line breaks and what steers a terminal; "" if it is
    none."""
    value = raw.get(name)
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in value[:TEXT_MAX])


def texts(raw: Fields, name: str) -> tuple[str, ...]:
    """A list's strings, cut as `text` does."""
    value = raw.get(name)
    some = value[:ITEMS_MAX] if isinstance(value, list) else []
    return tuple(text({"": one}, "") for one in some if isinstance(one, str))


def number(raw: Fields, name: str) -> float | None:
    """A finite number within NUMBER_MAX either way. True and False are none."""
    value: Any = raw.get(name)
    if type(value) not in (int, float) or not abs(value) <= NUMBER_MAX:
        return None
    return float(value) if isfinite(value) else None


def count(raw: Fields, name: str) -> int | None:
    """A whole number from 0."""
    value = raw.get(name)
    return value if type(value) is int and 0 <= value <= NUMBER_MAX else None


def amount(raw: Fields, name: str) -> int | None:
    """Micro-credits: a whole number, or a decimal string of one, as the dashboard's API sends."""
    value = raw.get(name)
    if isinstance(value, str) and len(value) <= AMOUNT_DIGITS_MAX and value.isascii():
        return int(value) if value.removeprefix("-").isdigit() else None
    return value if type(value) is int and abs(value) <= NUMBER_MAX else None
