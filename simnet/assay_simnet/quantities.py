"""Values with units, as scenarios write them: "20 ms", "6 h", "0.2 %", "12 GB", "3 / s"."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_TIMES: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_MONEY: Final = {"credits": 1_000_000, "micro": 1}
_SIZES: Final = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BITS: Final = {"bit/s": 1, "kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9}
_FORM: Final = re.compile(r"\s*(-?[0-9][0-9_]*(?:\.[0-9]+)?)\s*(.*?)\s*")
MONEY_MAX: Final = 10**18  # micro-credits
TIME_MAX_US: Final = 1_000 * 365 * _TIMES["d"]


class QuantityError(ValueError):
    """What is wrong with a value, in words for whoever wrote it."""


def time_us(text: object) -> int:
    """Microseconds of "250 ms"; 0 may stand without a unit."""
    number, unit = _split(text, _TIMES, "a time")
    value = round(number * _TIMES[unit]) if unit else 0
    if not 0 <= value <= TIME_MAX_US:
        raise QuantityError(f"{text!r}: a time is between 0 and a thousand years")
    return value


def size_bytes(text: object) -> int:
    """Bytes of "12 GB"."""
    number, unit = _split(text, _SIZES, "a size")
    return round(number * _SIZES[unit]) if unit else 0


def bits_per_s(text: object) -> float:
    """Bits per second of "20 Mbit/s"; 0 may stand without a unit."""
    number, unit = _split(text, _BITS, "a bandwidth")
    return number * _BITS[unit] if unit else 0.0


def micro_credits(text: object) -> int:
    """Micro-credits of "0.17 credits" or "250 micro"; 0 may stand without a unit."""
    number, unit = _split(text, _MONEY, "an amount")
    value = round(number * _MONEY[unit]) if unit else 0
    if value > MONEY_MAX:
        raise QuantityError(f"{text!r}: an amount is at most {MONEY_MAX // 1_000_000:,} credits")
    return value


def rate_per_s(text: object) -> float:
    """Events per second of "3 / s" or "120 / min"."""
    units = {f"/ {name}": size for name, size in _TIMES.items()}
    number, unit = _split(text, units, "a rate")
    if unit == "/ s":
        return number  # as it is written: `rate_text` is read back to the last bit
    return number * _TIMES["s"] / units[unit] if unit else 0.0


def share(value: object) -> float:
    """A share from 0 to 1: 0.02, or "2 %"."""
    if isinstance(value, str):
        number, unit = _split(value, {"%": 1}, "a share")
        result = number / 100.0 if unit else number
    elif isinstance(value, int | float) and not isinstance(value, bool):
        result = float(value)
    else:
        raise QuantityError(f"{value!r}: a share is a number from 0 to 1, or a text like '2 %'")
    if not 0.0 <= result <= 1.0:
        raise QuantityError(f"{value!r}: a share is from 0 to 1")
    return result


def latency(given: object) -> str:
    """ "world-5" as it is, or a time as its microseconds in text."""
    return "world-5" if given == "world-5" else str(time_us(given))


# ---- the same, written: what is read back is what was given ------------------------------------


def time_text(us: int) -> str | int:
    """In the largest unit that divides it."""
    if us == 0:
        return 0
    unit = next(name for name, size in reversed(_TIMES.items()) if us % size == 0)
    return f"{us // _TIMES[unit]} {unit}"


def size_text(size: int) -> str | int:
    return f"{size // 1_000}.{size % 1_000:03d} kB" if size else 0


def rate_text(per_s: float) -> str:
    """Decimal, as the format has no exponents."""
    return f"{Decimal(repr(per_s)):f} / s"


def bits_text(per_s: float) -> str | int:
    return f"{Decimal(repr(per_s)):f} bit/s" if per_s else 0


def money_text(amount: int) -> str | int:
    return f"{amount} micro" if amount else 0


def latency_text(read: str) -> str | int:
    return read if read == "world-5" else time_text(int(read))


# ---- inside ------------------------------------------------------------------------------------


def _split(text: object, units: dict[str, int], what: str) -> tuple[float, str]:
    example = f"like '20 {next(iter(units))}'" if "%" not in units else "like '2 %'"
    if text == 0 and not isinstance(text, bool):
        return 0.0, ""
    if not isinstance(text, str):
        raise QuantityError(f"{text!r}: {what} is a text with a unit, {example}")
    found = _FORM.fullmatch(text)
    if found is None:
        raise QuantityError(f"{text!r} is not {what} {example}")
    number = float(found[1].replace("_", ""))
    unit = re.sub(r"^/\s*", "/ ", found[2])
    if unit not in units and number != 0:
        known = ", ".join(units)
        missing = f"{text!r} has no unit" if not unit else f"unknown unit {unit!r} in {text!r}"
        raise QuantityError(f"{missing}; one of {known} wanted")
    if number < 0:
        raise QuantityError(f"{text!r} is negative")
    return number, unit if unit in units else ""
