"""Strategies for every message, derived from the type table, and a job to test with."""

from __future__ import annotations

import dataclasses
import types
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from assay_protocol import codec, hashing
from assay_protocol.messages import Sampler, Ticket
from assay_protocol.signing import Identity

_BYTES_MORE = 80  # drawn lengths stay near the least allowed
_ITEMS_MORE = 3

COORDINATOR = Identity(bytes([1] * 32))
NODE = Identity(bytes([2] * 32))
CLIENT = Identity(bytes([3] * 32))
STRANGER = Identity(bytes([4] * 32))
NONCE = bytes(range(32))
PROMPT = hashing.pack_tokens((5, 6, 7))


def make_ticket(**changes: Any) -> Ticket:
    """A new job's ticket for NODE and CLIENT, valid until microsecond 1,000."""
    values: dict[str, Any] = {
        "ticket": bytes(16),
        "client": CLIENT.public_key,
        "node": NODE.public_key,
        "model": bytes(32),
        "prompt_hash": hashing.prompt_hash(NONCE, PROMPT),
        "n_in": 3,
        "sampler": Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05),
        "max_tokens": 400,
        "start": 0,
        "nonce_commitment": hashing.nonce_commitment(NONCE),
        "seed_ticket": bytes(16),
        "price_in": 10,
        "price_out": 30,
        "issued_at": 0,
        "expires_at": 1_000,
        "epoch": 0,
    }
    return Ticket(**(values | changes))


def messages_of(cls: type) -> st.SearchStrategy[Any]:
    """Any `cls` a peer may send, within its bounds."""
    hints = get_type_hints(cls, include_extras=True)
    parts = {}
    for item in dataclasses.fields(cls):
        hint = hints[item.name]
        options = [one for one in get_args(hint) if one is not types.NoneType]
        optional = item.default is None
        drawn = _values(options[0] if optional else hint)
        parts[item.name] = st.none() | drawn if optional else drawn
    return st.builds(cls, **parts)


def any_message() -> st.SearchStrategy[Any]:
    return st.sampled_from(sorted(codec.TYPES)).flatmap(lambda n: messages_of(codec.TYPES[n]))


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` after one to three small changes: a flipped bit, a cut, bytes put in or doubled."""
    change = st.tuples(st.integers(0, 3), st.integers(0, 1 << 16), st.integers(0, 255))
    return st.lists(change, min_size=1, max_size=3).map(lambda changes: _change(data, changes))


def _change(data: bytes, changes: list[tuple[int, int, int]]) -> bytes:
    for kind, where, value in changes:
        at = where % (len(data) + 1)
        if kind == 0 and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << value % 8)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + bytes([value]) + data[at:]
        else:
            data = data[:at] + data[at - value % 8 : at] + data[at:]
    return data


def _values(hint: Any) -> st.SearchStrategy[Any]:
    base: Any = hint
    bound: Any = None
    if get_origin(hint) is Annotated:
        base, bound = get_args(hint)
    if get_origin(base) is tuple:
        most = min(bound.most, bound.least + _ITEMS_MORE)
        items = _values(get_args(base)[0])
        return st.lists(items, min_size=bound.least, max_size=most).map(tuple)
    if dataclasses.is_dataclass(base):
        assert isinstance(base, type)
        return messages_of(base)
    if base is bytes:
        most = min(bound.most, bound.least + _BYTES_MORE)
        return st.binary(min_size=bound.least, max_size=most)
    if base is str:
        letters = st.characters(exclude_categories=["Cs"])
        most = min(bound.most, bound.least + _BYTES_MORE)
        drawn = st.text(letters, min_size=bound.least, max_size=most)
        return drawn.filter(lambda text: len(text.encode()) <= bound.most)
    if base is int:
        return st.integers(bound.least, bound.most)
    return st.booleans() if base is bool else st.floats(allow_nan=False, allow_infinity=False)
