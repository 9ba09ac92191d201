"""Auditors are drawn by the seed, weighted by proven work, and fresh keys come last."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.choice import choose
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.registry import Node
from assay_coordinator.core.standing import fresh_row

POLICY = replace(Policy(), probation_audits=4, experienced_audits=100, auditor_weight_max=300)
SEED = b"\x05" * 32


def nodes(*verified: int) -> list[Node]:
    return [
        Node(replace(fresh_row(bytes([i]) * 32, bytes([i]) * 32, 0), state="active", verified=v))
        for i, v in enumerate(verified)
    ]


def shares(free: list[Node], draws: int = 4_000) -> list[float]:
    taken = Counter(choose(POLICY, SEED, i.to_bytes(32), 0, free).key for i in range(draws))
    return [taken[node.key] / draws for node in free]


def test_work_up_to_a_cap_is_the_weight() -> None:
    low, high, capped = shares(nodes(100, 300, 30_000))
    assert abs(low - 1 / 7) < 0.03
    assert abs(high - 3 / 7) < 0.03
    assert abs(capped - 3 / 7) < 0.03


def test_a_crowd_of_fresh_keys_decides_nothing_beside_a_record() -> None:
    free = nodes(*[0] * 50, 99, 4)
    assert set(shares(free, 500)[:50]) == {0.0}
    assert shares([*free, *nodes(150)], 100)[-1] == 1.0, "experienced ones go first"


def test_where_all_are_fresh_all_have_the_same_chance() -> None:
    assert all(abs(share - 0.25) < 0.04 for share in shares(nodes(0, 0, 0, 0)))


@given(st.permutations(range(6)), st.binary(min_size=32, max_size=32), st.integers(0, 9))
def test_the_order_of_candidates_does_not_matter_and_turns_do(
    order: list[int], receipt: bytes, turn: int
) -> None:
    free = nodes(5, 5, 5, 5, 5, 5)
    first = choose(POLICY, SEED, receipt, turn, free)
    assert choose(POLICY, SEED, receipt, turn, [free[i] for i in order]) is first
    turns = {choose(POLICY, SEED, receipt, n, free).key for n in range(60)}
    assert len(turns) > 1, "who declines is not asked for ever"
