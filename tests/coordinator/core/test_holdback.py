"""When held pay is due: by what was earned after it, not by how many jobs that took."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.holdback import Holdback


def paid(prices: list[int], jobs: int) -> list[int]:
    """Which of jobs with these prices are paid, by their places, one after the other."""
    queue, out = Holdback(), []
    for place, price in enumerate(prices):
        queue.add(place.to_bytes(4), price)
        while queue.due(jobs):
            out.append(int.from_bytes(queue.take()))
    return out


@given(price=st.integers(1, 10**9), count=st.integers(0, 50), jobs=st.integers(0, 20))
def test_equal_jobs_are_paid_after_so_many_more(price: int, count: int, jobs: int) -> None:
    assert paid([price] * count, jobs) == list(range(max(0, count - jobs)))


def test_tiny_jobs_push_nothing_out() -> None:
    assert paid([36, *[1] * 2_159], 60) == []
    assert paid([36, *[1] * 2_160], 60)[0] == 0
    assert paid([36, 1_000, 1_160], 60) == [0], "as much of any size does"


def test_jobs_that_cost_nothing_hold_up_nobody() -> None:
    assert paid([0, 0, 0], 60) == [0, 1]
    assert paid([5], 60) == []
    assert paid([5], 0) == [0]


@given(
    prices=st.lists(st.integers(0, 40), max_size=60),
    jobs=st.integers(1, 8),
    dropped=st.sets(st.integers(0, 59)),
)
def test_it_is_the_sum_of_what_is_there(prices: list[int], jobs: int, dropped: set[int]) -> None:
    """Held against a list that is summed anew each time; some are taken out on the way."""
    queue, plain = Holdback(), deque[tuple[int, int]]()
    for place, price in enumerate(prices):
        queue.add(place.to_bytes(4), price)
        plain.append((place, price))
        if place % 7 == 6:
            queue.drop({one.to_bytes(4) for one in dropped})
            plain = deque(one for one in plain if one[0] not in dropped)
        while queue.due(jobs):
            place_paid, price_paid = plain.popleft()
            assert sum(other for _, other in plain) >= jobs * price_paid
            assert int.from_bytes(queue.take()) == place_paid
        assert [int.from_bytes(ticket) for ticket in queue] == [one for one, _ in plain]
        if len(plain) > 1:
            assert sum(other for _, other in list(plain)[1:]) < jobs * plain[0][1]
