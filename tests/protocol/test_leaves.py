"""Leaves: written token by token as all at once, and refused when they are of something else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import leaf_hashes, leaves_root, pack_tokens, raw_hashes, sketched_root
from assay_protocol.leaves import LeafWriter, Leaves, leaves_of
from assay_protocol.limits import LEAF_TOKENS, SKETCH_BYTES

FLOAT, LOGPROB = "llama.cpp/F", "openai/L"


def numbers(count: int) -> tuple[bytes, bytes]:
    """Logits and sketches, no two alike."""
    logits = struct.pack(f"<{count}f", *(i + 0.5 for i in range(count)))
    return logits, b"".join(i.to_bytes(SKETCH_BYTES, "little") for i in range(count))


def ends(count: int) -> tuple[bytes, ...]:
    return leaf_hashes(bytes(16), bytes(32), pack_tokens(range(count)))


@given(st.lists(st.integers(1, 40), max_size=8))
def test_written_in_pieces_or_at_once_they_are_the_same(pieces: list[int]) -> None:
    count, writer, at = sum(pieces), LeafWriter(FLOAT), 0
    logits, sketches = numbers(count)
    for piece in pieces:
        end = at + piece
        writer.add(logits[4 * at : 4 * end], sketches[SKETCH_BYTES * at : SKETCH_BYTES * end])
        at = end
    leaves = writer.leaves()
    assert leaves == leaves_of(logits, sketches)
    leaves.check(FLOAT, count)
    hashes = ends(count)
    assert leaves.root(FLOAT, hashes) == sketched_root(hashes, raw_hashes(logits), sketches)
    assert leaves.size == 32 * -(-count // LEAF_TOKENS) + SKETCH_BYTES * count


@given(st.integers(0, 80), st.integers(0, 80))
def test_first_leaves_are_the_first_of_all(count: int, more: int) -> None:
    logits, sketches = numbers(count + more)
    whole, first = leaves_of(logits, sketches), leaves_of(*numbers(count))
    assert whole.sketches.startswith(first.sketches)
    full = 32 * (count // LEAF_TOKENS)
    assert whole.raws[:full] == first.raws[:full]


def test_logprobs_are_kept_as_they_are() -> None:
    logits, _ = numbers(20)
    writer = LeafWriter(LOGPROB)
    writer.add(logits[:36], b"")
    writer.add(logits[36:], b"")
    leaves = writer.leaves()
    assert leaves == Leaves(logits=logits)
    leaves.check(LOGPROB, 20)
    assert leaves.root(LOGPROB, ends(20)) == leaves_root(ends(20), logits)


def test_every_number_is_in_the_root() -> None:
    logits, sketches = numbers(40)
    hashes = ends(40)
    root = leaves_of(logits, sketches).root(FLOAT, hashes)
    for at in (0, 16, 39):
        other = bytearray(logits)
        other[4 * at] ^= 1
        assert leaves_of(bytes(other), sketches).root(FLOAT, hashes) != root
        other = bytearray(sketches)
        other[SKETCH_BYTES * at] ^= 1
        assert leaves_of(logits, bytes(other)).root(FLOAT, hashes) != root
    assert leaves_of(logits, sketches).root(FLOAT, hashes[::-1]) != root


def test_no_tokens_have_no_leaves() -> None:
    assert leaves_of(b"", b"") == Leaves() == LeafWriter(FLOAT).leaves()
    assert Leaves().root(FLOAT, ()) == leaves_root((), b"")


@pytest.mark.parametrize(
    ("class_id", "leaves"),
    [
        (FLOAT, Leaves()),
        (FLOAT, Leaves(bytes(32), bytes(200))),
        (FLOAT, Leaves(bytes(96), bytes(200))),
        (FLOAT, Leaves(bytes(64), bytes(190))),
        (FLOAT, Leaves(bytes(64), bytes(200), bytes(80))),
        (FLOAT, Leaves(logits=bytes(80))),
        (LOGPROB, Leaves(bytes(64), bytes(200))),
        (LOGPROB, Leaves(logits=bytes(76))),
    ],
)
def test_leaves_of_other_shapes_are_refused(class_id: str, leaves: Leaves) -> None:
    Leaves(bytes(64), bytes(200)).check(FLOAT, 20)
    Leaves(logits=bytes(80)).check(LOGPROB, 20)
    with pytest.raises(ProtocolError):
        leaves.check(class_id, 20)


@given(st.binary(max_size=80), st.binary(max_size=80), st.lists(st.binary(max_size=40), max_size=3))
def test_any_bytes_have_a_root_or_are_refused(
    raws: bytes, sketches: bytes, hashes: list[bytes]
) -> None:
    try:
        root = Leaves(raws, sketches).root(FLOAT, hashes)
    except ProtocolError:
        return
    assert len(root) == 32
