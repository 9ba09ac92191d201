"""What a request asks for: names from its path, a page's length, where the page begins, filters.

Everything is a string of a stranger's until it went through here; what does not fit is
AssayError("query_invalid") that names it. A cursor is the sort key of the last item of a page, so
pages neither skip nor repeat what was there all the time, however much comes in between (only nodes
move in their list, as they work).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from assay_protocol.errors import AssayError

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 200
TEXT_CHARS_MAX: Final = 200
NUMBER_MAX: Final = (1 << 63) - 1

Cursor = tuple[int | bytes, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """`names`: from the path; `query`: the pairs after the question mark, as they came."""

    names: Mapping[str, str]
    query: Sequence[tuple[str, str]]

    def check(self, known: Collection[str]) -> None:
        """Only `known` words, each once: what is misspelt must not be taken for nothing."""
        words = [word for word, _ in self.query]
        for word in words:
            if word not in known:
                expected = ", ".join(sorted(known)) or "nothing"
                raise _invalid(f"{word[:40]!r} is not asked for here: {expected} is")
            if words.count(word) > 1:
                raise _invalid(f"{word} is there twice")

    def name(self, word: str, size: int) -> bytes:
        """A key or id of the path: `size` bytes in hex."""
        return _hex(word, self.names[word], size)

    def number(self, word: str) -> int:
        """A number of the path."""
        return _number(word, self.names[word])

    def filter(self, word: str, allowed: Collection[str]) -> str:
        """One of `allowed`; empty: any."""
        text = self._text(word)
        if text and text not in allowed:
            raise _invalid(f"{word} is one of {', '.join(allowed)}")
        return text

    def key(self, word: str, size: int = 32) -> bytes:
        """A key to filter by; empty: any."""
        text = self._text(word)
        return _hex(word, text, size) if text else b""

    def limit(self) -> int:
        """How many items a page has at most."""
        text = self._text("limit")
        number = _number("limit", text) if text else LIMIT_DEFAULT
        if not 1 <= number <= LIMIT_MAX:
            raise _invalid(f"limit is from 1 to {LIMIT_MAX}")
        return number

    def after(self, *sizes: int) -> Cursor | None:
        """The cursor's parts: for each of `sizes` that many bytes, or for 0 a number. None: from
        the beginning."""
        text = self._text("after")
        if not text:
            return None
        parts = text.split(".")
        if len(parts) != len(sizes):
            raise _invalid("after is not a cursor of this list")
        pairs = zip(parts, sizes, strict=True)
        return tuple(_hex("after", p, size) if size else _number("after", p) for p, size in pairs)

    def _text(self, word: str) -> str:
        text = dict(self.query).get(word, "")
        if len(text) > TEXT_CHARS_MAX:
            raise _invalid(f"{word} is too long")
        return text


def cursor(*parts: int | bytes) -> str:
    """The text of a cursor, for `after`."""
    return ".".join(part.hex() if isinstance(part, bytes) else str(part) for part in parts)


def _number(word: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= NUMBER_MAX):
        raise _invalid(f"{word} holds no number")
    return int(text)


def _hex(word: str, text: str, size: int) -> bytes:
    try:
        value = bytes.fromhex(text) if len(text) == 2 * size else b""
    except ValueError:
        value = b""
    if len(value) != size:
        raise _invalid(f"{word} is {2 * size} hex digits")
    return value


def _invalid(text: str) -> AssayError:
    return AssayError("query_invalid", text)
