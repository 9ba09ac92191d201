"""The codec against every message, and against any bytes at all."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_protocol import codec, limits, messages
from assay_protocol.errors import ProtocolError
from protocol_cases import any_message, damaged, messages_of

_NAMES = {number: cls.__name__ for number, cls in codec.TYPES.items()}


def _decode(data: bytes) -> object | None:
    """decode(), where only ProtocolError counts as a refusal."""
    try:
        return codec.decode(data)
    except ProtocolError:
        return None


def _refusal(raw: Any) -> str:
    with pytest.raises(ProtocolError) as caught:
        codec.decode(msgpack.packb(raw))
    return caught.value.code


@pytest.mark.parametrize("number", sorted(codec.TYPES), ids=_NAMES.get)
@settings(max_examples=15)
@given(st.data())
def test_every_message_comes_back_as_it_was(number: int, data: st.DataObject) -> None:
    value = data.draw(messages_of(codec.TYPES[number]))
    encoded = codec.encode(value)
    assert codec.decode(encoded) == value
    assert codec.decode_as(type(value), encoded) == value
    assert codec.encode(codec.decode(encoded)) == encoded


@settings(max_examples=400)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_nothing_or_a_protocol_error(data: bytes) -> None:
    _decode(data)


@settings(max_examples=300)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(1 << 63), (1 << 64) - 1)
        | st.floats()
        | st.binary()
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.integers(0, 20) | st.booleans(), inner),
    ),
    st.sampled_from([0, False, 0.0, 2, 16, 90, 110]),
)
def test_any_msgpack_value_gives_the_same_three(value: Any, number: Any) -> None:
    _decode(msgpack.packb(value))
    _decode(msgpack.packb({0: number, 1: value, 2: value}))


@settings(max_examples=400)
@given(st.data())
def test_damaged_messages_never_pass_in_two_forms(data: st.DataObject) -> None:
    original = codec.encode(data.draw(any_message()))
    changed = data.draw(damaged(original))
    value = _decode(changed)
    if value is not None and len(codec.encode(value)) == len(changed):
        assert codec.encode(value) == changed  # shorter only if unknown odd fields were dropped


@pytest.mark.parametrize("key", [False, 0.0])
def test_the_type_key_is_an_integer(key: Any) -> None:
    assert _refusal({key: 4}) == "malformed"


def test_the_type_comes_first() -> None:
    assert _refusal({2: bytes(16), 4: 1, 0: 16}) == "malformed"


@given(st.integers(0, 1 << 20))
def test_it_is_ok_to_be_odd(half: int) -> None:
    odd, even = 1_001 + 2 * half, 1_002 + 2 * half
    assert codec.decode(msgpack.packb({0: odd, 2: b"new"})) is None
    assert _refusal({0: even, 2: b"new"}) == "unknown_message"
    assert codec.decode(msgpack.packb({0: 4, odd: "new"})) == messages.Done()
    assert _refusal({0: 4, even: "new"}) == "malformed"


def test_the_rule_holds_inside_structs() -> None:
    route = {2: bytes(32), 4: []}
    grant = {0: 12, 2: bytes(65), 4: route}
    known = codec.decode(msgpack.packb(grant))
    assert codec.decode(msgpack.packb(grant | {4: route | {7: 1}})) == known
    assert _refusal(grant | {4: route | {8: 1}}) == "malformed"


def test_missing_and_nil_fields_are_refused() -> None:
    assert _refusal({0: 16, 2: bytes(16)}) == "malformed"
    assert _refusal({0: 2, 1: None, 2: "busy", 4: ""}) == "malformed"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ({0: 16, 2: bytes(15), 4: 1}, "malformed"),
        ({0: 16, 2: bytes(17), 4: 1}, "oversized"),
        ({0: 16, 2: bytes(16), 4: -1}, "malformed"),
        ({0: 16, 2: bytes(16), 4: 1 << 63}, "malformed"),
        ({0: 16, 2: bytes(16), 4: True}, "malformed"),
        ({0: 2, 2: "é" * 65, 4: ""}, "oversized"),  # 130 bytes of UTF-8
        ({0: 12, 2: bytes(65), 4: {2: bytes(32), 4: ["a"] * 9}}, "oversized"),
        ({0: 12, 2: bytes(65), 4: [bytes(32), []]}, "malformed"),
        ({0: 12, 2: bytes(65), 4: {2: bytes(32), 4: "a"}}, "malformed"),
    ],
)
def test_bounds(raw: Any, code: str) -> None:
    assert _refusal(raw) == code


def test_a_message_over_the_limit_is_not_parsed() -> None:
    with pytest.raises(ProtocolError, match="oversized"):
        codec.decode(bytes(limits.MESSAGE_BYTES_MAX + 1))


@pytest.mark.parametrize("depth", [300, 600, 2_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    data = b"\x82\x00\x04\x01" + b"\x91" * depth + b"\xc0"
    assert _decode(data) in (messages.Done(), None)


def test_a_float_field_takes_whole_numbers_in_one_form() -> None:
    whole: Any = 1
    as_int = messages.Sampler(temperature=whole, top_k=0, top_p=whole, min_p=0)
    as_float = messages.Sampler(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
    job = {"model": bytes(32), "prompt_hash": bytes(32), "n_in": 1, "max_tokens": 1}
    rest: Any = job | {"nonce_commitment": bytes(32), "exclude": (), "only": ()}
    one = codec.encode(messages.SubmitJob(sampler=as_int, **rest))
    assert one == codec.encode(messages.SubmitJob(sampler=as_float, **rest))
    assert codec.decode_as(messages.SubmitJob, one).sampler == as_float


def test_decode_as_refuses_another_type() -> None:
    with pytest.raises(ProtocolError, match="unexpected_message"):
        codec.decode_as(messages.Error, codec.encode(messages.Done()))


def test_fields_are_numbered_by_declaration() -> None:
    error = messages.Error(code="busy", detail="", retry_after_ms=5)
    assert codec.encode(error) == b"\x84\x00\x02\x01\x05\x02\xa4busy\x04\xa0"


def test_what_was_encoded_is_known_again_while_that_lasts() -> None:
    def made(number: int) -> messages.Error:
        return messages.Error(code="busy", detail=str(number))

    first = made(1)
    with codec.remembering(2):
        body = codec.encode(first)
        assert codec.decode(bytes(bytearray(body))) is first
        with pytest.raises(ProtocolError):
            codec.decode(body[:-1])
        codec.encode(made(2))
        codec.encode(made(3))  # one more than are remembered
        assert codec.decode(body) is not first
        assert codec.decode(body) == first
    kept = codec.encode(first)
    assert codec.decode(kept) is not first
    with codec.remembering(0):
        assert codec.decode(codec.encode(first)) is not first
