"""Links lead back to their anchors, and a restart finds the very same ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.links import Links
from assay_protocol.lottery import link_before

SECRET = b"\x07" * 32


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 100])
def test_every_link_leads_back_to_its_anchor(length: int) -> None:
    links = Links(SECRET, length)
    for chain in (1, 2):
        link = links.anchor(chain)
        for number in range((chain - 1) * length + 1, chain * length + 1):
            assert links.chain_of(number) == chain
            assert link_before(links.of_round(number)) == link
            link = links.of_round(number)


@given(st.integers(1, 500), st.integers(1, 60))
def test_a_restart_goes_on_with_the_same_links(number: int, length: int) -> None:
    before, after = Links(SECRET, length), Links(SECRET, length)
    before.of_round(1)
    assert before.of_round(number) == after.of_round(number)
    assert Links(b"\x08" * 32, length).of_round(number) != after.of_round(number)


def test_no_two_rounds_share_a_link() -> None:
    links = Links(SECRET, 10)
    told = {links.of_round(number) for number in range(1, 51)}
    assert len(told) == 50
    assert not told & {links.anchor(chain) for chain in range(1, 6)}
