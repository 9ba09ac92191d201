"""Hashes bind exactly what they say: kinds, parts, order and length."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from assay_protocol import hashing
from assay_protocol.errors import ProtocolError
from assay_protocol.limits import LEAF_TOKENS

TICKET, NONCE = bytes(16), bytes(range(32))
_TOKENS = st.lists(st.integers(0, (1 << 32) - 1), max_size=70)


def _root(output: bytes, logits: bytes, ticket: bytes = TICKET, nonce: bytes = NONCE) -> bytes:
    return hashing.leaves_root(hashing.leaf_hashes(ticket, nonce, output), logits)


@given(_TOKENS)
def test_tokens_come_back(tokens: list[int]) -> None:
    assert hashing.unpack_tokens(hashing.pack_tokens(tokens)) == tuple(tokens)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_odd_lengths_are_refused(length: int) -> None:
    for unpack in (hashing.unpack_tokens, hashing.unpack_logits):
        with pytest.raises(ProtocolError, match="malformed"):
            unpack(bytes(length))


def test_kinds_of_hash_never_coincide() -> None:
    a, b = bytes(32), bytes(32)
    made = [
        hashing.prompt_hash(a, b),
        hashing.job_seed(a, b),
        hashing.commitment(a, b),
        hashing.nonce_commitment(a),
        hashing.OutputHash(TICKET, NONCE).digest(),
        hashing.leaf_hash(0, a, b),
        hashing.leaves_root((), b""),
    ]
    assert len(set(made)) == len(made)


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 40))
def test_parts_cannot_slide_into_each_other(a: bytes, b: bytes, cut: int) -> None:
    both = a + b
    assume((both[:cut], both[cut:]) != (a, b))
    assert hashing.prompt_hash(a, b) != hashing.prompt_hash(both[:cut], both[cut:])


def test_seed_depends_on_the_ticket_and_on_the_nonce() -> None:
    seeds = {hashing.job_seed(t * 16, n * 32) for t in (b"a", b"b") for n in (b"c", b"d")}
    assert len(seeds) == 4


@given(_TOKENS, st.lists(st.integers(0, 20), max_size=6))
def test_the_running_hash_does_not_see_how_tokens_came(tokens: list[int], cuts: list[int]) -> None:
    whole, parts = (hashing.OutputHash(TICKET, NONCE) for _ in range(2))
    whole.update(hashing.pack_tokens(tokens))
    at = 0
    for size in [*cuts, len(tokens)]:
        parts.update(hashing.pack_tokens(tokens[at : at + size]))
        at += size
    assert (whole.digest(), whole.count) == (parts.digest(), parts.count)


def test_a_copy_goes_its_own_way() -> None:
    first = hashing.OutputHash(TICKET, NONCE)
    second = first.copy()
    second.update(bytes(4))
    assert (first.count, second.count) == (0, 1)
    assert first.digest() == hashing.OutputHash(TICKET, NONCE).digest() != second.digest()


@given(_TOKENS, st.data())
def test_the_root_binds_every_token_and_logit(tokens: list[int], data: st.DataObject) -> None:
    assume(tokens)
    output = hashing.pack_tokens(tokens)
    logits = bytes(i % 251 for i in range(len(output)))
    root = _root(output, logits)
    at, bit = data.draw(st.integers(0, len(output) - 1)), data.draw(st.integers(0, 7))
    flip = bytearray(output)
    flip[at] ^= 1 << bit
    assert _root(bytes(flip), logits) != root
    flip = bytearray(logits)
    flip[at] ^= 1 << bit
    assert _root(output, bytes(flip)) != root
    assert _root(output, logits, ticket=b"\x01" * 16) != root
    assert _root(output, logits, nonce=bytes(32)) != root


def test_roots_of_every_length_differ() -> None:
    roots = {_root(bytes(4 * n), bytes(4 * n)) for n in range(5 * LEAF_TOKENS + 2)}
    assert len(roots) == 5 * LEAF_TOKENS + 2


@pytest.mark.parametrize("leaves", [2, 3, 4, 5])
def test_the_root_binds_the_order_of_leaves(leaves: int) -> None:
    ends = [bytes([i]) * 32 for i in range(leaves)]
    logits = bytes(4 * LEAF_TOKENS * leaves)
    root = hashing.leaves_root(ends, logits)
    assert hashing.leaves_root(ends[::-1], logits) != root
    assert hashing.leaves_root([*ends[1:], ends[0]], logits) != root
    with pytest.raises(ProtocolError, match="malformed"):
        hashing.leaves_root([*ends, ends[-1]], logits)  # an odd leaf is never paired with itself
    with pytest.raises(ProtocolError, match="malformed"):
        hashing.leaves_root(ends[:-1], logits)
