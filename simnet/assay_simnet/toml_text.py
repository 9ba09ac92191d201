"""Values as TOML writes them, on one line each."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def value_text(value: Any) -> str:
    """Of a text, a number, a flag, a date, or a list or table of such."""
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{key_text(k)} = {value_text(one)}" for k, one in value.items())
            + " }"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else str(value)  # numbers, and dates


def key_text(key: str) -> str:
    """Quoted where it has to be."""
    return key if _BARE.fullmatch(key) else _quoted(key)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
