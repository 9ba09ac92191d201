"""The protocol's messages as the pages' schema.js describes them, made from Python's classes."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from assay_protocol.codec import TYPES


def described(cls: type) -> dict[str, Any]:
    """A message or a part of one, as `told` gives it from JavaScript."""
    hints = get_type_hints(cls, include_extras=True)
    required = [one for one in dataclasses.fields(cls) if one.default is not None]
    optional = [one for one in dataclasses.fields(cls) if one.default is None]
    fields = [(2 * i + 2, one) for i, one in enumerate(required)]
    fields += [(2 * i + 1, one) for i, one in enumerate(optional)]
    return {
        "is": "struct",
        "name": cls.__name__,
        "number": next((number for number, known in TYPES.items() if known is cls), None),
        "fields": [
            [number, {"field": one.name, "kind": _kind(_present(hints[one.name]))}]
            for number, one in fields
        ],
    }


def _kind(hint: Any) -> dict[str, Any]:
    base, bound = get_args(hint)[:2] if get_origin(hint) is Annotated else (hint, None)
    if dataclasses.is_dataclass(base):
        assert isinstance(base, type)
        return described(base)
    if get_origin(base) is tuple:
        of = _kind(get_args(base)[0])
        return {"is": "list", "of": of, "least": bound.least, "most": bound.most}
    if base is float or base is bool:
        return {"is": "float" if base is float else "boolean"}
    name = {bytes: "bytes", str: "text", int: "integer"}[base]
    return {"is": name, "least": bound.least, "most": bound.most}


def _present(hint: Any) -> Any:
    """X for `X | None`."""
    if type(None) not in get_args(hint):
        return hint
    return next(one for one in get_args(hint) if one is not type(None))
