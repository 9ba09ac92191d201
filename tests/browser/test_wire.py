"""Bytes in JavaScript: the protocol's own vectors, and what Python makes of any others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assay_protocol import messages
from assay_protocol.codec import TYPES
from assay_protocol.errors import CODES
from assay_protocol.signing import ED25519, Identity
from browser.javascript import MODULES, Call
from browser.schemas import described
from contracts.ed25519_points import OFF_CURVE, SMALL, UNREDUCED, Secret, forged

VECTORS = Path(__file__).parents[2] / "protocol" / "spec" / "vectors"
WIRE: dict[str, Any] = json.loads((VECTORS / "messages.json").read_text())
assert messages.Ticket in TYPES.values()  # importing them fills the table
ALL = [described(cls) for cls in TYPES.values()]


def test_the_tables_of_messages_are_those_of_the_classes(javascript: Call) -> None:
    for schema in javascript("schemas")["value"]:
        assert schema == described(TYPES[schema["number"]])


def test_errors_are_told_in_the_same_words() -> None:
    text = (MODULES / "errors.js").read_text()
    listed = [line for line in text.splitlines() if line.startswith("  ") and '."' in line]
    told = dict(line.strip().rstrip(",").split(": ", 1) for line in listed)
    assert len(told) >= 8
    assert {code: json.loads(said) for code, said in told.items()} == {c: CODES[c] for c in told}


def test_every_vector_of_every_message_is_read(javascript: Call) -> None:
    for vector, found in decoded(javascript, "messages"):
        assert as_json(found["value"]) == vector["fields"], vector["name"]


def test_every_refused_vector_is_refused_with_its_code(javascript: Call) -> None:
    for vector, found in decoded(javascript, "refused"):
        assert found.get("error") == vector["error"], vector["name"]
    for vector, found in decoded(javascript, "ignored"):
        assert found == {"value": {} if "as" in vector else None}, vector["name"]


def decoded(javascript: Call, part: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    blobs = [bytes.fromhex(vector["hex"]) for vector in WIRE[part]]
    return zip(WIRE[part], javascript("decodeEach", ALL, blobs)["value"], strict=True)


def test_signed_vectors_open_and_no_flipped_bit_does(javascript: Call) -> None:
    known = {schema["name"] for schema in javascript("schemas")["value"]}
    for vector in (one for one in WIRE["signed"] if one["name"] in known):
        blob, key = bytes.fromhex(vector["blob"]), bytes.fromhex(vector["key"])
        assert javascript("hashes", "digest", blob)["value"].hex() == vector["digest"]
        bad = [
            blob[:at] + bytes([blob[at] ^ 1 << at % 8]) + blob[at + 1 :] for at in range(len(blob))
        ]
        first, *others = javascript("openEach", vector["name"], [blob, *bad], key)["value"]
        assert "value" in first
        assert {found["error"] for found in others} == {"bad_signature"}


def test_hash_vectors(javascript: Call) -> None:
    said = WIRE["hashes"]
    ticket, nonce = bytes.fromhex(said["ticket"]), bytes.fromhex(said["nonce"])

    def hashed(name: str, *parts: bytes) -> str:
        found: bytes = javascript("hashes", name, *parts)["value"]
        return found.hex()

    for name, call in (("prompt", "promptHash"), ("grammar", "grammarHash")):
        vector = said[f"{name}_hash"]
        assert hashed(call, nonce, bytes.fromhex(vector[name])) == vector["is"]
    assert hashed("nonceCommitment", nonce) == said["nonce_commitment"]
    assert hashed("jobSeed", ticket, nonce) == said["job_seed"]
    told = bytes.fromhex(said["told"]["logprobs"])
    assert hashed("toldHash", ticket, nonce, told) == said["told"]["is"]
    for answer in said["answers"]:
        output = bytes.fromhex(answer["output"])
        assert hashed("outputHash", ticket, nonce, output) == answer["output_hash"]


@given(
    size=st.integers(0, 700), byte=st.integers(0, 255), person=st.text("abcdefgh xyz", max_size=16)
)
@example(size=128, byte=1, person="")
@example(size=256, byte=0, person="assay prompt")
def test_blake2b_is_hashlib_s(node: Call, size: int, byte: int, person: str) -> None:
    data = bytes((byte + 7 * i) % 256 for i in range(size))
    theirs = hashlib.blake2b(data, digest_size=32, person=person.encode()).digest()
    assert node("blake2b", data, person)["value"] == theirs


@given(key=st.binary(min_size=1, max_size=64), data=st.binary(max_size=300))
def test_with_a_key_and_twice_as_long_it_is_hashlib_s_too(
    node: Call, key: bytes, data: bytes
) -> None:
    theirs = hashlib.blake2b(data, digest_size=64, key=key, person=b"assay sketch").digest()
    found = node("blake2b", data, "assay sketch", key, 64)
    assert found["value"] == theirs


def python_reads(data: bytes, *, canonical: bool) -> bool:
    try:
        raw = msgpack.unpackb(data, strict_map_key=False)
        return not canonical or msgpack.packb(raw) == data
    except Exception:  # msgpack raises a dozen kinds
        return False


ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.sampled_from([0, 127, 128, 255, 256, 65535, 65536, -1, -32, -33, -128, -129, -32769])
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=300)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
    | st.builds(msgpack.Timestamp, st.integers(0, 1 << 40), st.integers(0, 999_999_999))
)
KEYS = st.integers() | st.text(max_size=8) | st.binary(max_size=4) | st.booleans() | st.floats()
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(KEYS.filter(lambda key: key == key), inner, max_size=20)
    ),
    max_leaves=30,
)


@given(st.data())
def test_what_python_reads_is_read_and_nothing_else(node: Call, data: st.DataObject) -> None:
    """Whole values, and the same with one byte changed, taken out or put in."""
    value = data.draw(VALUES)
    try:
        packed = bytearray(msgpack.packb(value))
    except (OverflowError, ValueError):
        packed = bytearray(msgpack.packb([data.draw(st.binary(max_size=64))]))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(packed) - 1))
        changed = data.draw(st.binary(max_size=2))
        packed[at : at + 1] = changed
    for canonical in (True, False):
        found = "value" in node("unpack", bytes(packed), canonical)
        assert found == python_reads(bytes(packed), canonical=canonical), bytes(packed).hex()


@given(st.binary(max_size=24))
@example(b"\x91\x82\x00\xc0\x00\xc0")  # a key twice
def test_any_bytes_are_read_as_python_does(node: Call, data: bytes) -> None:
    for canonical in (True, False):
        found = "value" in node("unpack", data, canonical)
        assert found == python_reads(data, canonical=canonical)


@pytest.mark.parametrize("depth", [1, 512, 1024, 1025, 5000])
def test_nesting_ends_where_python_s_does(javascript: Call, depth: int) -> None:
    data = b"\x91" * depth + b"\xc0"
    assert ("value" in javascript("unpack", data, True)) == (depth <= 1024)


def test_no_key_or_point_passes_that_libsodium_refuses(javascript: Call) -> None:
    good = Identity(b"\1" * 32)
    signature = good.sign(b"x")
    cases = [
        (good.public_key, signature),
        (good.public_key, signature[:63]),
        (b"\1" * 31, signature),
    ]
    cases += [(key, key + bytes(32)) for key in (*SMALL, *UNREDUCED, OFF_CURVE)]
    cases += [(good.public_key, point + bytes(32)) for point in (*SMALL, *UNREDUCED)]
    verdicts = javascript("isSignedEach", b"x", cases)["value"]
    assert verdicts == [ED25519.verify(key, b"x", signed) for key, signed in cases]
    assert verdicts == [True] + [False] * (len(cases) - 1)


def test_points_of_mixed_order_pass_where_they_do_in_libsodium(javascript: Call) -> None:
    made = [
        forged(Secret(77, part), Secret(99 + i, other), b"x")
        for part in (0, 1, 4)
        for other in (0, 3, 4)
        for i in range(6)
    ]
    cases = [(key, r + s.to_bytes(32, "little")) for key, r, s in made]
    verdicts = javascript("isSignedEach", b"x", cases)["value"]
    assert verdicts == [ED25519.verify(key, b"x", signed) for key, signed in cases]
    assert 0 < sum(verdicts) < len(verdicts)


def test_a_signature_with_a_large_scalar_is_refused(javascript: Call) -> None:
    """s + L satisfies the equation and is another signature of the same message."""
    signer, data = Identity(b"\2" * 32), b"data"
    good = signer.sign(data)
    order = (1 << 252) + 27742317777372353535851937790883648493
    other = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    cases = [(signer.public_key, good), (signer.public_key, other)]
    assert [ED25519.verify(key, data, signed) for key, signed in cases] == [True, False]
    assert javascript("isSignedEach", data, cases)["value"] == [True, False]


def as_json(value: Any) -> Any:
    """As messages.json has fields."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [as_json(one) for one in value]
    if isinstance(value, dict):
        return {name: as_json(one) for name, one in value.items()}
    return value
