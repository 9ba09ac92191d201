"""Reads a request's JSON body field by field; whatever is wrong becomes a Refusal that names it.

A body is bounded before it is parsed. Text is Unicode that can be written out again (no lone
surrogates), numbers are finite. A field nobody knows is refused with the nearest known one: an
option that is misspelt must not be ignored. `null` is as good as absent, as in OpenAI's API.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

from assay.gateway.refusal import Refusal, invalid, missing, unsupported

DEPTH_MAX: Final = 64
SHOWN_CHARACTERS: Final = 64  # of a value that is quoted back


def parse_body(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`; Refusal "invalid_json" or "invalid_type"."""
    try:
        body = strict_json(data)
    except TooDeep:
        said = f"the body is nested deeper than {DEPTH_MAX}"
        raise Refusal(400, "invalid_json", said) from None
    except ValueError:
        raise Refusal(400, "invalid_json", "the body is not JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise Refusal(400, "invalid_type", "the body must be a JSON object")
    if b"\\u" in data:  # only an escape can spell half a character
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Refusal(400, "invalid_json", "a text holds half a character") from None
    return body


class TooDeep(ValueError):
    """JSON nested deeper than DEPTH_MAX."""


def strict_json(data: bytes) -> Any:
    """What can be written again as JSON: in UTF-8, every number finite, of bounded depth.

    Raises ValueError.
    """
    try:
        body = _STRICT.decode(data.decode())
    except RecursionError:
        raise TooDeep from None
    _check_depth(body)
    return body


class Fields:
    """One JSON object under `path`; every reader returns its default where nothing is given."""

    def __init__(self, body: Mapping[str, Any], path: str = "") -> None:
        self.body, self.path = body, path

    @classmethod
    def of(cls, value: Any, path: str) -> Fields:
        """Fields of a nested object."""
        if not isinstance(value, dict):
            raise _wrong_type(path, "an object")
        return cls(value, path)

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def has(self, name: str) -> bool:
        return self.body.get(name) is not None

    def raw(self, name: str) -> Any:
        return self.body.get(name)

    def text(self, name: str, default: str | None = None, most: int = 1 << 24) -> str | None:
        value = self.body.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise _wrong_type(self.at(name), "a string")
        if len(value) > most:
            raise invalid(self.at(name), f"{self.at(name)} has at most {most} characters")
        return value

    def required_text(self, name: str, most: int = 1 << 24, least: int = 0) -> str:
        value = self.text(name, None, most)
        if value is None:
            raise missing(self.at(name))
        if len(value) < least:
            raise invalid(self.at(name), f"{self.at(name)} must not be empty")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.body.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _wrong_type(self.at(name), "true or false")
        return value

    def integer(self, name: str, least: int, most: int) -> int | None:
        value = self.body.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(self.at(name), "an integer")
        if not least <= value <= most:
            raise invalid(self.at(name), f"{self.at(name)} must be from {least} to {most}")
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        value = self.body.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(self.at(name), "a number")
        if not least <= value <= most:
            raise invalid(self.at(name), f"{self.at(name)} must be from {least} to {most}")
        return float(value)

    def choice(self, name: str, known: Iterable[str], default: str | None = None) -> str | None:
        value = self.text(name, default)
        names = tuple(known)
        if value is not None and value not in names:
            raise invalid(self.at(name), f"{self.at(name)} must be one of {', '.join(names)}")
        return value

    def items(self, name: str, most: int, least: int = 0) -> tuple[Any, ...]:
        """A list of `least` to `most`; () where nothing is given."""
        value = self.body.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise _wrong_type(self.at(name), "a list")
        if len(value) > most:
            raise invalid(self.at(name), f"{self.at(name)} has at most {most} entries")
        if len(value) < least:
            raise invalid(self.at(name), f"{self.at(name)} must not be empty")
        return tuple(value)

    def texts(self, name: str, most: int, least: int = 0) -> tuple[str, ...]:
        """A string or a list of `least` to `most` strings."""
        value = self.body.get(name)
        if isinstance(value, str):
            return (value,)
        found = self.items(name, most, least)
        if not all(isinstance(one, str) for one in found):
            raise _wrong_type(self.at(name), "a string or a list of strings")
        return found

    def object(self, name: str) -> Fields | None:
        value = self.body.get(name)
        return None if value is None else Fields.of(value, self.at(name))

    def required_object(self, name: str) -> Fields:
        if (found := self.object(name)) is None:
            raise missing(self.at(name))
        return found

    def only(self, known: frozenset[str], refused: Mapping[str, str] | None = None) -> None:
        """Refuse what is not `known`; `refused` says why of fields that cannot be served.

        One of those is let through where its value asks for nothing.
        """
        for name, value in self.body.items():
            if value is None or name in known:
                continue
            if refused is not None and name in refused:
                if value in (False, 0, [], {}, ""):
                    continue
                raise unsupported(self.at(name), refused[name])
            raise self._unknown(name, known)

    def _unknown(self, name: str, known: frozenset[str]) -> Refusal:
        near = difflib.get_close_matches(name[:SHOWN_CHARACTERS], sorted(known), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        shown = self.at(name[:SHOWN_CHARACTERS])
        return Refusal(400, "unknown_parameter", f"unknown field {shown!r}{hint}", param=shown)


def _wrong_type(path: str, wanted: str) -> Refusal:
    return Refusal(400, "invalid_type", f"{path} must be {wanted}", param=path)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _check_depth(body: Any) -> None:
    level, depth = [body] if isinstance(body, dict | list) else [], 0
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise TooDeep
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, dict | list)
        ]


def _finite(text: str) -> float:
    """A number with a point or an exponent. "1e999" is well-formed and no number of ours."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


_STRICT: Final = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def finite(value: float) -> float:
    """A logprob that JSON can say: minus infinity becomes the number OpenAI uses for it."""
    return value if math.isfinite(value) else -9999.0
