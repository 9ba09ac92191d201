"""How much of an answer an audit replays."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.coverage import replay_tokens
from assay_coordinator.core.entropy import Entropy

ENTROPY = Entropy(bytes(32))


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2_048))
def test_it_is_all_or_whole_leaves(digest: bytes, n_out: int) -> None:
    tokens = replay_tokens(ENTROPY, digest, n_out)
    assert tokens == n_out or (tokens % 16 == 0 and 16 <= tokens < n_out)
    assert tokens == replay_tokens(ENTROPY, digest, n_out), "all auditors replay the same"


def test_half_are_whole_and_the_rest_is_even() -> None:
    seen = Counter(replay_tokens(ENTROPY, i.to_bytes(32, "big"), 96) for i in range(4_000))
    assert set(seen) == {16, 32, 48, 64, 80, 96}
    assert 0.46 < seen[96] / 4_000 < 0.54
    assert all(0.08 < seen[tokens] / 4_000 < 0.12 for tokens in (16, 32, 48, 64, 80))
