"""Bytes <-> messages: canonical msgpack, an explicit type table, hard limits, one evolution rule.

A message is a msgpack map with integer keys in ascending order. Key 0 holds the message type; the
fields follow. Fields are numbered by their declaration: required fields 2, 4, 6, ... and optional
ones (default None, left out when None) 1, 3, 5, .... New fields are only ever appended.

The evolution rule ("it is OK to be odd"): an unknown odd field is ignored and an unknown even
field is refused; an unknown odd message type decodes to None and an unknown even one is refused.

Canonical means that encoding what was decoded gives the same bytes, so a hash of the bytes names
the message. Any input gives a message, None, or `ProtocolError`; nothing else leaves `decode`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeVar, Union, dataclass_transform, get_args, get_origin
from typing import get_type_hints as type_hints

import msgpack

from assay_protocol import limits
from assay_protocol.errors import ProtocolError

_T = TypeVar("_T")
_Check = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Size:
    """Bound on the length of bytes (bytes), str (UTF-8 bytes) or a tuple (items)."""

    least: int
    most: int

    @classmethod
    def exactly(cls, n: int) -> Size:
        return cls(n, n)


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive bound on an integer."""

    least: int
    most: int


TYPES: Final[dict[int, type]] = {}
_Encoder = Callable[[Any], Any] | None  # None: as it is
_ENCODE: Final[dict[type, tuple[tuple[int, str, _Encoder], ...]]] = {}
_DECODE: Final[dict[type, dict[int, tuple[str, _Check]]]] = {}
_REQUIRED: Final[dict[type, int]] = {}
_TYPE_OF: Final[dict[type, int]] = {}
_MADE: Final[dict[bytes, object]] = {}  # by their bytes, where a process is `remembering`
_most_made = 0


@dataclass_transform(frozen_default=True, kw_only_default=True)
def message(number: int) -> Callable[[type[_T]], type[_T]]:
    """Register a frozen, slotted, keyword-only dataclass as message type `number`."""

    def register(cls: type[_T]) -> type[_T]:
        made = struct(cls)
        assert number > 0, f"{cls.__name__}: numbers start at 1"
        assert number not in TYPES, f"{number} is {TYPES[number].__name__}"
        TYPES[number] = made
        _TYPE_OF[made] = number
        return made

    return register


@dataclass_transform(frozen_default=True, kw_only_default=True)
def struct(cls: type[_T]) -> type[_T]:
    """Make `cls` a frozen, slotted dataclass that can be a field of messages."""
    made: type[_T] = dataclass(frozen=True, slots=True, kw_only=True)(cls)
    hints = type_hints(made, include_extras=True)
    encoders: list[tuple[int, str, _Encoder]] = []
    decoders: dict[int, tuple[str, _Check]] = {}
    next_required, next_optional = 2, 1
    for item in fields(made):  # type: ignore[arg-type]  # `made` is a dataclass by construction
        optional = item.default is None
        assert optional or item.default is MISSING, (
            f"{cls.__name__}.{item.name}: only None defaults"
        )
        if optional:
            number, next_optional = next_optional, next_optional + 2
        else:
            number, next_required = next_required, next_required + 2
        hint = _without_none(hints[item.name]) if optional else hints[item.name]
        encoders.append((number, item.name, _encoder(hint)))
        decoders[number] = (item.name, _decoder(hint, f"{cls.__name__}.{item.name}"))
    _ENCODE[made] = tuple(sorted(encoders))
    _DECODE[made] = decoders
    _REQUIRED[made] = (next_required - 2) // 2
    return made


def encode(value: object) -> bytes:
    """The canonical bytes of a message. Bounds are asserted: exceeding one here is our own bug."""
    number = _TYPE_OF[type(value)]
    data: bytes = msgpack.packb(_to_map(value, {0: number}))
    assert len(data) <= limits.MESSAGE_BYTES_MAX, f"{type(value).__name__} of {len(data)} bytes"
    if _most_made:
        if len(_MADE) >= _most_made:
            _MADE.clear()
        _MADE[data] = value
    return data


@contextmanager
def remembering(most: int) -> Iterator[None]:
    """While this lasts, `decode` knows again up to `most` messages that were encoded meanwhile.

    For simulations, which hold both ends of every connection: decoding what was encoded gives an
    equal message, so only time is saved. With 0 all bytes are decoded as they always are.
    """
    global _most_made
    before, _most_made = _most_made, most
    try:
        yield
    finally:
        _most_made = before
        _MADE.clear()


def decode(data: bytes) -> object | None:
    """The message in `data`; None for an unknown odd type. Raises ProtocolError on all else."""
    if _MADE and (made := _MADE.get(data)) is not None:
        return made
    if len(data) > limits.MESSAGE_BYTES_MAX:
        raise ProtocolError("oversized", f"message of {len(data)} bytes")
    raw = _unpack(data)
    number = _type_number(raw)
    cls = TYPES.get(number)
    if cls is None:
        if number % 2 == 1 and number > 0:
            return None
        raise ProtocolError("unknown_message", f"type {number}")
    return _from_map(cls, raw)


def decode_as(cls: type[_T], data: bytes) -> _T:
    """The message in `data`, which must be a `cls`; raises ProtocolError otherwise."""
    value = decode(data)
    if not isinstance(value, cls):
        raise ProtocolError("unexpected_message", f"wanted {cls.__name__}")
    return value


def _unpack(data: bytes) -> Any:
    try:
        raw = msgpack.unpackb(data, strict_map_key=False)
        canonical = msgpack.packb(raw) == data
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError("malformed", f"not msgpack: {type(error).__name__}") from error
    if not canonical:
        raise ProtocolError("malformed", "not canonical msgpack")
    return raw


def _type_number(raw: Any) -> int:
    """The type in the first entry of `raw`, which is taken out.

    The key's own type matters: False and 0.0 are equal to 0 in Python but other bytes on the wire.
    """
    first = next(iter(raw), None) if isinstance(raw, dict) else None
    if type(first) is not int or first != 0 or type(raw[0]) is not int:
        raise ProtocolError("malformed", "not a map that begins with a type at key 0")
    number: int = raw.pop(0)
    return number


def _to_map(value: Any, into: dict[int, Any] | None = None) -> dict[int, Any]:
    """`value`'s fields by number, after what is in `into` already."""
    made = {} if into is None else into
    for number, name, encoder in _ENCODE[type(value)]:
        if (item := getattr(value, name)) is not None:
            made[number] = item if encoder is None else encoder(item)
    return made


def _from_map(cls: type[_T], raw: dict[Any, Any]) -> _T:
    table = _DECODE[cls]
    values: dict[str, Any] = {}
    required, last = 0, 0
    for number, item in raw.items():
        if type(number) is not int or number <= last:
            raise ProtocolError("malformed", f"{cls.__name__}: keys must be ascending integers")
        last = number
        known = table.get(number)
        if known is None:
            if number % 2 == 0:
                raise ProtocolError("malformed", f"{cls.__name__}: unknown required field {number}")
            continue
        values[known[0]] = known[1](item)
        required += number % 2 == 0
    if required != _REQUIRED[cls]:
        raise ProtocolError("malformed", f"{cls.__name__}: a required field is missing")
    return cls(**values)


def _without_none(hint: Any) -> Any:
    """X for `X | None`; an annotated X keeps its annotations."""
    if get_origin(hint) in (Union, UnionType):
        rest = [item for item in get_args(hint) if item is not NoneType]
        assert len(rest) == 1, hint
        return rest[0]
    return hint


def _split(hint: Any) -> tuple[Any, Any]:
    if get_origin(hint) is Annotated:
        base, *bounds = get_args(hint)
        assert len(bounds) == 1, hint
        return base, bounds[0]
    return hint, None


def _encoder(hint: Any) -> _Encoder:
    base, _ = _split(hint)
    if base is float:
        return float  # callers may write 1 for 1.0; the wire has one form
    if base in (int, str, bytes, bool):
        return None
    if get_origin(base) is tuple:
        item = _encoder(get_args(base)[0])
        return list if item is None else lambda values: [item(value) for value in values]
    assert base in _ENCODE, hint
    return _to_map


def _decoder(hint: Any, where: str) -> _Check:
    base, bound = _split(hint)
    if get_origin(base) is tuple:
        return _tuple_check(_decoder(get_args(base)[0], where), bound, where)
    if base in _DECODE:
        return _struct_check(base, where)
    if base is bool or base is float:
        return _plain_check(base, where)
    if base is int:
        assert isinstance(bound, Range), where
        return _int_check(bound.least, bound.most, where)
    assert base in (bytes, str), where
    assert isinstance(bound, Size), where
    return _sized_check(base, bound, where)


def _int_check(least: int, most: int, where: str) -> _Check:
    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ProtocolError("malformed", f"{where}: integer in [{least}, {most}] wanted")
        return value

    return check


def _sized_check(base: Any, bound: Size, where: str) -> _Check:
    def check(value: Any) -> Any:
        if type(value) is not base:
            raise ProtocolError("malformed", f"{where}: {base.__name__} wanted")
        size = len(value) if base is bytes else len(value.encode())
        if not bound.least <= size <= bound.most:
            code = "oversized" if size > bound.most else "malformed"
            raise ProtocolError(code, f"{where}: {bound.least} to {bound.most} bytes wanted")
        return value

    return check


def _plain_check(base: Any, where: str) -> _Check:
    def check(value: Any) -> Any:
        if type(value) is not base or (base is float and not math.isfinite(value)):
            raise ProtocolError("malformed", f"{where}: finite {base.__name__} wanted")
        return value

    return check


def _tuple_check(item: _Check, bound: Any, where: str) -> _Check:
    assert isinstance(bound, Size), where

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ProtocolError("malformed", f"{where}: list wanted")
        if not bound.least <= len(value) <= bound.most:
            code = "oversized" if len(value) > bound.most else "malformed"
            raise ProtocolError(code, f"{where}: {bound.least} to {bound.most} items wanted")
        return tuple(item(one) for one in value)

    return check


def _struct_check(cls: type, where: str) -> _Check:
    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ProtocolError("malformed", f"{where}: map wanted")
        return _from_map(cls, value)

    return check
