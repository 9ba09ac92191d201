"""Signatures: only the right key, over the right kind of message, over unchanged bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol.codec import encode
from assay_protocol.errors import ProtocolError
from assay_protocol.messages import Ack, Done, Progress
from assay_protocol.signing import ED25519, Identity, digest, open_signed, peek, seal
from protocol_cases import CLIENT, NODE, STRANGER, damaged, messages_of

PROGRESS = Progress(ticket=bytes(16), count=32, output_hash=bytes(32))
BLOB = seal(NODE, PROGRESS)


def _refused(blob: bytes, key: bytes = NODE.public_key) -> str:
    with pytest.raises(ProtocolError) as caught:
        open_signed(Progress, blob, key)
    return caught.value.code


@given(messages_of(Progress))
def test_what_was_sealed_opens(value: Progress) -> None:
    assert open_signed(Progress, seal(NODE, value), NODE.public_key) == value


def test_another_key_is_refused() -> None:
    assert _refused(BLOB, STRANGER.public_key) == "bad_signature"


def test_a_signature_of_another_kind_of_message_is_refused() -> None:
    ack = Ack(ticket=PROGRESS.ticket, count=32, output_hash=PROGRESS.output_hash)
    moved = seal(NODE, ack)[:64] + encode(PROGRESS)
    assert _refused(moved) == "bad_signature"
    assert _refused(NODE.sign(encode(PROGRESS)) + encode(PROGRESS)) == "bad_signature"


@given(damaged(BLOB))
def test_damaged_blobs_are_refused(blob: bytes) -> None:
    if blob != BLOB:
        assert _refused(blob) == "bad_signature"


@pytest.mark.parametrize("length", range(len(BLOB)))
def test_truncated_blobs_are_refused(length: int) -> None:
    assert _refused(BLOB[:length]) == "bad_signature"


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=40))
def test_any_signature_and_key_lengths_are_just_false(
    data: bytes, signature: bytes, key: bytes
) -> None:
    assert ED25519.verify(key, data, signature) is False


def test_a_signature_counts_for_its_own_bytes_only() -> None:
    """Bytes moved from the signed data into the signature must not pass."""
    signature = NODE.sign(b"ab")
    assert ED25519.verify(NODE.public_key, b"ab", signature)
    assert not ED25519.verify(NODE.public_key, b"b", signature + b"a")
    assert not ED25519.verify(NODE.public_key, signature[-1:] + b"ab", signature[:-1])


def test_the_identity_keys_are_refused() -> None:
    """Keys of small order would accept a signature on anything."""
    for key in (bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"):
        assert not ED25519.verify(key, b"data", key + bytes(32))


def test_a_good_signature_on_a_bad_body_is_malformed() -> None:
    body = b"\x80"
    assert _refused(NODE.sign(b"assay/1/Progress\0" + body) + body) == "malformed"
    other = encode(Done())
    assert _refused(NODE.sign(b"assay/1/Progress\0" + other) + other) == "unexpected_message"


def test_peek_reads_without_a_key() -> None:
    assert peek(Progress, bytes(64) + encode(PROGRESS)) == PROGRESS


def test_digest_names_the_whole_blob() -> None:
    assert digest(BLOB) != digest(seal(CLIENT, PROGRESS))
    assert len(digest(BLOB)) == 32


def test_an_identity_never_shows_its_seed() -> None:
    seed = bytes(range(32))
    assert seed.hex()[:16] not in repr(Identity(seed))
    with pytest.raises(ProtocolError, match="key_invalid"):
        Identity(bytes(31))
