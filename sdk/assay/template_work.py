"""Bounds what one rendering of a chat template may do, before it is done.

A template comes with a model, from whoever published it. The sandbox keeps it from our objects; it
does not keep it from a loop of 10^9 turns, or from a text of 10^9 letters that is never written. So
work is counted, in steps: each call, filter, operator and turn of a loop is one, and so are
TEXT_STEP characters that are made, read or compared. The count depends on the template and the chat
alone, never on the machine, so it refuses here what it refuses everywhere. What can grow more than
its parts (repetition, powers, replacing, joining, formatting) is counted before it is made.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sized, ValuesView
from typing import Any, Final

from jinja2.utils import Namespace

from assay_protocol.errors import AssayError

STEPS_MAX: Final = 1 << 21  # of one rendering: one to three seconds
TEXT_STEP: Final = 16
BITS_MAX: Final = 1_024  # of an integer
DEPTH_MAX: Final = 64  # of values in values
STRIPPED_MAX: Final = 64  # characters to strip are looked for one by one
_ESCAPED: Final = 4  # times as long as it is a text gets within a list, about
_CONTAINERS: Final = (list, tuple, Mapping, KeysView, ValuesView, ItemsView)


class Work:
    """What is left of one rendering's steps. Every method raises AssayError("malformed") where they
    do not suffice, or where nothing could."""

    def __init__(self, steps: int = STEPS_MAX) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise AssayError("malformed", "the chat template does too much for one prompt")

    def text(self, characters: int) -> None:
        """So much text is made or read."""
        self.spend(1 + characters // TEXT_STEP)

    def made(self, value: Any) -> Any:
        """The `value` that an operation gave; one that gives item by item is counted so."""
        if isinstance(value, str):
            self.text(len(value))
        elif isinstance(value, int):
            if value.bit_length() > BITS_MAX:
                raise AssayError("malformed", f"integers in a template have {BITS_MAX} bits")
        elif isinstance(value, Sized):
            self.spend(len(value))
        elif isinstance(value, Iterator):
            return self._counted(value)
        return value

    def each(self, value: Any) -> Any:
        """`value`, to be gone through."""
        if isinstance(value, Sized):
            self.spend(len(value))
            return value
        return self._counted(value) if isinstance(value, Iterator) else value

    def spelled(self, value: Any, indent: int = 0, depth: int = 0) -> None:
        """`value` is written or compared, with all that is in it."""
        if isinstance(value, str):
            self.text(len(value) * (_ESCAPED if depth else 1))
        elif isinstance(value, Namespace):
            raise AssayError("malformed", "a template writes a namespace")
        elif not isinstance(value, _CONTAINERS):
            self.spend(1 + depth * indent // TEXT_STEP)
        elif depth > DEPTH_MAX:
            raise AssayError("malformed", "a template nests values too deep")
        else:
            self.spend(1 + depth * indent // TEXT_STEP)
            for item in value.items() if isinstance(value, Mapping) else value:
                self.spelled(item, indent, depth + 1)

    def repeated(self, value: Any, times: Any) -> None:
        """`value * times`, either way round."""
        if isinstance(times, str | list | tuple):
            value, times = times, value
        if isinstance(value, str | list | tuple) and isinstance(times, int):
            size = len(value) * max(0, times)
            self.text(size) if isinstance(value, str) else self.spend(size)

    def power(self, base: Any, exponent: Any) -> None:
        """`base ** exponent`."""
        whole = isinstance(base, int) and isinstance(exponent, int)
        if whole and base.bit_length() * max(0, exponent) > 2 * BITS_MAX:
            raise AssayError("malformed", f"integers in a template have {BITS_MAX} bits")

    def formatted(self, characters: int, fields: int | None, values: Iterable[Any]) -> None:
        """A format of so many characters and fields, each of which may be any of `values` and
        three digits wide; None: wider."""
        if fields is None:
            raise AssayError("malformed", "a template formats with a width that is too large")
        before = self.left
        for value in values:
            self.spelled(value)
        self.spend((before - self.left) * fields)
        self.text(1_000 * fields + characters)

    def replaced(self, text: str, old: str, new: str) -> None:
        self.text(len(text) + text.count(old) * len(new))

    def joined(self, between: str, parts: Iterable[Any]) -> list[Any]:
        """The parts, that are put together with `between`."""
        found = []
        for part in self.each(parts):
            self.spelled(part)
            self.text(len(between))
            found.append(part)
        return found

    def _counted(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.spend(1)
            yield item
