"""Writes vectors/messages.json: what every implementation of the protocol must agree on, in bytes.

Everything is derived from names, so the file changes only when the protocol does. Bytes are hex.
`messages`: decoding `hex` gives `fields`, encoding them gives `hex`. `refused`: decoding gives the
error. `ignored`: decoding gives nothing, or the message `as`. `signed`, `hashes` and `sketches` say
what signing.py, hashing.py and sketches.py compute. Run `make vectors` after a change of any.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import struct
import types
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import msgpack
import numpy as np

from assay_protocol import codec, grammars, hashing, messages, sketches
from assay_protocol.errors import ProtocolError
from assay_protocol.limits import SKETCH_BYTES
from assay_protocol.signing import Identity, digest, seal

PATH: Final = Path(__file__).parent / "vectors" / "messages.json"
SEED: Final = hashlib.blake2b(b"vectors", digest_size=32).digest()
_BYTES_MOST: Final = 40  # long enough to show the form, short enough to read
_ITEMS_MOST: Final = 2
# What a `Signed` field carries, by its name.
_SIGNED: Final = {
    "ticket": messages.Ticket,
    "receipt": messages.Receipt,
    "ack": messages.Ack,
    "progress": messages.Progress,
    "statement": messages.AuditStatement,
    "seal": messages.Seal,
}


def main() -> None:
    PATH.write_text(render())
    print(PATH)


def render() -> str:
    """The whole file."""
    return json.dumps(build(), indent=1, ensure_ascii=True) + "\n"


def build() -> dict[str, Any]:
    return {
        "messages": [vector for cls in codec.TYPES.values() for vector in _of_message(cls)],
        "refused": _refused(),
        "ignored": _ignored(),
        "signed": _signed(),
        "hashes": _hashes(),
        "sketches": _sketches(),
    }


def to_json(value: Any) -> Any:
    """A field as it stands in the file."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def example(cls: type, *, full: bool) -> Any:
    """A `cls` whose fields follow from their names; optional ones are there only if `full`."""
    hints = get_type_hints(cls, include_extras=True)
    values = {}
    for item in dataclasses.fields(cls):
        if item.default is None and not full:
            continue
        values[item.name] = _value(_present(hints[item.name]), cls.__name__, item.name, full)
    return cls(**values)


def _of_message(cls: type) -> list[dict[str, Any]]:
    number = next(number for number, known in codec.TYPES.items() if known is cls)
    least, full = example(cls, full=False), example(cls, full=True)
    cases = [(cls.__name__, least)]
    if full != least:
        cases.append((f"{cls.__name__} with every optional field", full))
    return [
        {"name": name, "type": number, "hex": codec.encode(v).hex(), "fields": to_json(v)}
        for name, v in cases
    ]


def _value(hint: Any, owner: str, name: str, full: bool) -> Any:
    if hint == messages.Signed:
        return seal(Identity(SEED), example(_SIGNED[re.sub(r"s\d+$", "", name)], full=False))
    base: Any = hint
    bound: Any = None
    if get_origin(hint) is Annotated:
        base, bound = get_args(hint)
    if get_origin(base) is tuple:
        size = max(bound.least, min(bound.most, _ITEMS_MOST))
        return tuple(_value(get_args(base)[0], owner, f"{name}{i}", full) for i in range(size))
    if dataclasses.is_dataclass(base):
        assert isinstance(base, type)
        return example(base, full=full)
    return _plain(base, bound, f"{owner}.{name}")


def _plain(base: Any, bound: Any, path: str) -> Any:
    seed = hashlib.blake2b(path.encode(), digest_size=64).digest()
    if base is bytes:
        size = bound.most if bound.most <= _BYTES_MOST else max(bound.least, _BYTES_MOST)
        return (seed * (size // 64 + 1))[:size]
    if base is str:
        return path[: bound.most].lower()
    if base is float:
        return seed[0] / 256
    if base is bool:
        return True
    return bound.least + int.from_bytes(seed[:3], "little") % (bound.most - bound.least + 1)


def _present(hint: Any) -> Any:
    """X for `X | None`."""
    if isinstance(hint, types.UnionType):
        return next(item for item in get_args(hint) if item is not types.NoneType)
    options = [item for item in get_args(hint) if item is not types.NoneType]
    return options[0] if types.NoneType in get_args(hint) else hint


def _refused() -> list[dict[str, Any]]:
    booked = example(messages.ReceiptBooked, full=True)
    ticket = booked.ticket
    cases: list[tuple[str, bytes]] = [
        ("no bytes", b""),
        ("not a map", msgpack.packb([16])),
        ("no type", msgpack.packb({2: ticket, 4: 1})),
        ("the type is not the first key", msgpack.packb({2: ticket, 4: 1, 0: 16})),
        ("the type's key is false", b"\x83\xc2" + msgpack.packb({0: 16, 2: ticket, 4: 1})[2:]),
        ("the type is a boolean", msgpack.packb({0: True})),
        ("an unknown even type", msgpack.packb({0: 1 << 20})),
        ("type zero", msgpack.packb({0: 0})),
        ("a negative odd type", msgpack.packb({0: -1})),
        ("a required field is missing", msgpack.packb({0: 16, 2: ticket})),
        ("an unknown even field", msgpack.packb({0: 16, 2: ticket, 4: 1, 6: 0})),
        ("fields out of order", msgpack.packb({0: 16, 4: 1, 2: ticket})),
        ("a negative field", msgpack.packb({0: 16, -1: 0, 2: ticket, 4: 1})),
        ("a text key", msgpack.packb({0: 16, 2: ticket, 4: 1, "x": 1})),
        ("a boolean for an integer", msgpack.packb({0: 16, 2: ticket, 4: True})),
        ("a float for an integer", msgpack.packb({0: 16, 2: ticket, 4: 1.0})),
        ("text for bytes", msgpack.packb({0: 16, 2: "x" * 16, 4: 1})),
        ("too few bytes", msgpack.packb({0: 16, 2: ticket[:15], 4: 1})),
        ("too many bytes", msgpack.packb({0: 16, 2: ticket + b"x", 4: 1})),
        ("a negative amount", msgpack.packb({0: 16, 2: ticket, 4: -1})),
        (
            "an integer longer than needed",
            msgpack.packb({0: 16, 2: ticket, 4: 1})[:-1] + b"\xcc\x01",
        ),
        ("a key twice", b"\x84" + msgpack.packb({0: 16, 2: ticket, 4: 1})[1:] + b"\x04\x01"),
        ("bytes after the end", codec.encode(booked) + b"\x00"),
        ("bytes missing at the end", codec.encode(booked)[:-1]),
        ("an optional field that is nil", msgpack.packb({0: 2, 1: None, 2: "busy", 4: ""})),
        ("a temperature that is not a number", _sampler(float("nan"))),
        ("an infinite temperature", _sampler(float("inf"))),
        ("an integer for a temperature", _sampler(1)),
    ]
    return [{"name": name, "hex": data.hex(), "error": _code(name, data)} for name, data in cases]


def _sampler(temperature: float) -> bytes:
    raw = msgpack.unpackb(
        codec.encode(example(messages.SubmitJob, full=False)), strict_map_key=False
    )
    raw[8][2] = temperature
    packed: bytes = msgpack.packb(raw)
    return packed


def _code(name: str, data: bytes) -> str:
    try:
        codec.decode(data)
    except ProtocolError as error:
        return error.code
    raise AssertionError(f"{name}: was not refused")


def _ignored() -> list[dict[str, Any]]:
    done = messages.Done()
    return [
        {"name": "an unknown odd type", "hex": msgpack.packb({0: 65_537, 2: 1}).hex()},
        {
            "name": "an unknown odd field",
            "hex": msgpack.packb({0: 4, 65_537: [1, {"a": 2}]}).hex(),
            "as": codec.encode(done).hex(),
        },
    ]


def _signed() -> list[dict[str, Any]]:
    signer = Identity(SEED)
    return [
        {
            "name": cls.__name__,
            "seed": SEED.hex(),
            "key": signer.public_key.hex(),
            "domain": f"assay/1/{cls.__name__}\0".encode().hex(),
            "body": codec.encode(example(cls, full=False)).hex(),
            "blob": (blob := seal(signer, example(cls, full=False))).hex(),
            "digest": digest(blob).hex(),
        }
        for cls in _SIGNED.values()
    ]


def _hashes() -> dict[str, Any]:
    ticket, nonce = bytes(range(16)), bytes(range(32, 64))
    return {
        "ticket": ticket.hex(),
        "nonce": nonce.hex(),
        "prompt_hash": {
            "prompt": (prompt := hashing.pack_tokens((1, 2, 3))).hex(),
            "is": hashing.prompt_hash(nonce, prompt).hex(),
        },
        "grammar_hash": {
            "grammar": (grammar := grammars.pack_grammar("regex", "(yes|no)").hex()),
            "is": hashing.grammar_hash(nonce, bytes.fromhex(grammar)).hex(),
        },
        "nonce_commitment": hashing.nonce_commitment(nonce).hex(),
        "job_seed": hashing.job_seed(ticket, nonce).hex(),
        "commitment": {"reveal": b"reveal".hex(), "is": hashing.commitment(nonce, b"reveal").hex()},
        "told": {
            "logprobs": (told := struct.pack("<IfIf", 2, -0.5, 3, -1.5)).hex(),
            "is": _told(ticket, nonce, told),
        },
        "answers": [_answer(ticket, nonce, count) for count in (0, 1, 16, 17, 48, 80)],
    }


def _told(ticket: bytes, nonce: bytes, told: bytes) -> str:
    running = hashing.RunningHash(hashing.TOLD, ticket, nonce)
    running.update(told)
    return running.digest().hex()


def _sketches() -> dict[str, Any]:
    seed = hashing.job_seed(bytes(range(16)), bytes(range(32, 64)))
    cases = ((0, 49_152), (1, 49_152), (2_047, 151_936), (70_000, 7))
    rows = (
        [0.0] * 16,
        [1.5, 0.5, -3.25, 2.0, 0.0, 0.125, 8.0, 7.5, 1.0, 4.0, -2.0, -2.0, 6.5, 1.5, 0.25, 9.0],
        [20.0, -20.0, 19.5, -19.5, *([1e-3, 0.0] * 6)],
        [1e-6, 0.0, -1e-6, 0.0, *([0.0] * 12)],
    )
    gaps = (0.0, 0.0099, 0.01, 0.0103, 0.25, 1.0, 17.9, 18.5, 1e9)
    return {
        "seed": seed.hex(),
        "tokens": [
            {
                "position": position,
                "n_vocab": n_vocab,
                "is": sketches.sketch_tokens(seed, position, n_vocab).tolist(),
            }
            for position, n_vocab in cases
        ],
        "bytes": [
            {"logits": row, "is": sketches.sketch(np.array([row], np.float32)).hex()}
            for row in rows
        ],
        "gap_codes": [{"gap": gap, "is": sketches.gap_code(gap)} for gap in gaps],
    }


def _answer(ticket: bytes, nonce: bytes, count: int) -> dict[str, Any]:
    """Tokens 7, 8, 9, ... whose logits are 0.5, 1.5, 2.5, ..., their sketches bytes 0, 1, 2, ..."""
    output = hashing.pack_tokens(range(7, 7 + count))
    logits = struct.pack(f"<{count}f", *(i + 0.5 for i in range(count)))
    running = hashing.OutputHash(ticket, nonce)
    running.update(output)
    ends = hashing.leaf_hashes(ticket, nonce, output)
    told = bytes(i % 256 for i in range(SKETCH_BYTES * count))
    raws = hashing.raw_hashes(logits)
    return {
        "output": output.hex(),
        "logits": logits.hex(),
        "output_hash": running.digest().hex(),
        "leaf_ends": [end.hex() for end in ends],
        "root": hashing.leaves_root(ends, logits).hex(),
        "sketches": told.hex(),
        "raws": [raw.hex() for raw in raws],
        "sketched_root": hashing.sketched_root(ends, raws, told).hex(),
    }


if __name__ == "__main__":
    main()
