"""The lottery's arithmetic: rates are kept, roots bind, links lead back, notes survive."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_protocol.credit_tree import fold
from assay_protocol.errors import ProtocolError
from assay_protocol.lottery import (
    AnchorNote,
    RoundNote,
    audit_rate,
    is_drawn,
    link_before,
    round_seed,
    round_tree,
)
from assay_protocol.messages import DrawEntry

HASHES = st.binary(min_size=32, max_size=32)
ENTRIES = st.builds(
    DrawEntry,
    ticket=st.binary(min_size=16, max_size=16),
    receipt=HASHES,
    node=HASHES,
    numerator=st.integers(0, 1 << 31),
    denominator=st.integers(1, 1 << 31),
    asked=st.sampled_from(["sample", "now", "none"]),
    outcome=st.just("undrawn"),
)


def name(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8)).digest()


@pytest.mark.parametrize("rate", [(1, 20), (20, 37), (500, 10_000), (9_999, 10_000)])
def test_receipts_are_drawn_at_their_rate(rate: tuple[int, int]) -> None:
    seed, count = name(0), 20_000
    hits = sum(is_drawn(seed, name(i), *rate) for i in range(count))
    share = rate[0] / rate[1]
    assert abs(hits / count - share) < 4 * (share * (1 - share) / count) ** 0.5


@given(HASHES, HASHES, st.integers(0, 1 << 31), st.integers(1, 1 << 31), st.integers(0, 1 << 31))
def test_a_draw_is_a_function_and_grows_with_the_rate(
    seed: bytes, receipt: bytes, numerator: int, denominator: int, more: int
) -> None:
    hit = is_drawn(seed, receipt, numerator, denominator)
    assert hit == is_drawn(seed, receipt, numerator, denominator)
    assert not hit or is_drawn(seed, receipt, numerator + more, denominator)
    assert is_drawn(seed, receipt, denominator, denominator), "rate 1 is always drawn"
    assert not is_drawn(seed, receipt, 0, denominator), "rate 0 never"


@given(HASHES, HASHES, HASHES)
def test_both_halves_of_a_seed_matter(link: bytes, block: bytes, other: bytes) -> None:
    if other not in (link, block):
        assert (
            len({round_seed(link, block), round_seed(other, block), round_seed(link, other)}) == 3
        )
    assert link_before(link) != link


@given(st.lists(ENTRIES, min_size=1, max_size=9, unique_by=lambda one: one.receipt), st.data())
def test_a_root_binds_every_entry_in_whatever_order(entries: list[DrawEntry], data: Any) -> None:
    tree = round_tree(entries)
    assert tree.total == len(entries)
    assert round_tree(data.draw(st.permutations(entries))).root == tree.root
    place = data.draw(st.integers(0, len(entries) - 1))
    field, value = data.draw(
        st.sampled_from(
            [
                ("ticket", bytes(16)),
                ("node", bytes(32)),
                ("numerator", 77),
                ("denominator", 78),
                ("asked", "quorum"),
            ]
        )
    )
    changed = [*entries]
    changed[place] = replace(entries[place], **{field: value})
    assert (round_tree(changed).root == tree.root) == (changed == entries)
    told = [replace(one, outcome="passed") for one in entries]
    assert round_tree(told).root == tree.root, "what comes later is not in the root"


def test_a_node_can_be_shown_that_it_is_in_a_round() -> None:
    entries = [
        DrawEntry(
            ticket=bytes(16),
            receipt=name(i),
            node=bytes(32),
            numerator=1,
            denominator=2,
            asked="sample",
            outcome="undrawn",
        )
        for i in range(5)
    ]
    tree = round_tree(entries)
    leaf = round_tree([min(entries, key=lambda one: one.receipt)]).root
    assert fold(leaf, 1, 0, tree.proof(0)) == (tree.root, 5)


@given(st.integers(1, 1 << 31), st.integers(1, 1 << 31), st.integers(0, 255), HASHES)
def test_anchors_survive(chain: int, links: int, lag: int, anchor: bytes) -> None:
    note = AnchorNote(chain, links, lag, anchor)
    assert AnchorNote.decode(note.encode()) == note
    first = (chain - 1) * links + 1
    assert [note.position(n) for n in (first - 1, first, first + links - 1, first + links)] == [
        0,
        1,
        links,
        0,
    ]


@given(st.integers(0, 1 << 63), HASHES, st.integers(0, 4_096), st.integers(0, 10_000))
def test_roots_survive(number: int, root: bytes, count: int, bps: int) -> None:
    note = RoundNote(number, root, count, 20, bps)
    assert RoundNote.decode(note.encode()) == note


@given(st.binary(max_size=90))
def test_other_data_is_no_note(data: bytes) -> None:
    for kind in (AnchorNote, RoundNote):
        with pytest.raises(ProtocolError):
            kind.decode(data)
        with pytest.raises(ProtocolError):
            kind.decode(
                AnchorNote(1, 1, 0, bytes(32)).encode() + RoundNote(1, bytes(32), 1, 1, 1).encode()
            )


def test_rates_fall_with_the_record_and_end_at_the_least() -> None:
    rates = [n / d for n, d in (audit_rate(v, 20, 500) for v in range(1_000))]
    assert rates == sorted(rates, reverse=True)
    assert (rates[19], rates[40], rates[400], rates[-1]) == (1.0, 0.5, 0.05, 0.05)
    assert audit_rate(5, 0, 10_000) == (10_000, 10_000)
