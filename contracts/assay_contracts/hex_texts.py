"""0x texts as JSON-RPC has them, in questions and in answers. What is none gives None."""

from __future__ import annotations

import re
from typing import Any, Final

_PREFIX: Final = "0x"
_NUMBER: Final = re.compile(r"0x[0-9a-fA-F]+")


def hexed(raw: bytes) -> str:
    return f"{_PREFIX}{raw.hex()}"


def data_of(raw: Any, size: int | None = None, *, odd: bool = False) -> bytes | None:
    """The bytes, of which there are `size` if given. `odd`: digits may be, as a number's are."""
    if not isinstance(raw, str) or not raw.startswith(_PREFIX):
        return None
    digits = raw[len(_PREFIX) :]
    if odd and len(digits) % 2:
        digits = f"0{digits}"
    try:
        data = bytes.fromhex(digits)
    except ValueError:
        return None
    # fromhex skips blanks, which are not hex.
    return data if 2 * len(data) == len(digits) and size in (None, len(data)) else None


def number_of(raw: Any, digits_max: int) -> int | None:
    """The number; leading zeros are accepted within `digits_max` digits."""
    if not isinstance(raw, str) or len(raw) > len(_PREFIX) + digits_max:
        return None
    return int(raw, 16) if _NUMBER.fullmatch(raw) else None


def no_data(size: int | None) -> str:
    """What is wrong with a text that `data_of` finds nothing in."""
    return "not 0x data" if size is None else f"not 0x data of {size} bytes"
