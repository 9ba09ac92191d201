"""When held pay is due: by its age and by what was earned after it, however many jobs that took."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.holdback import Held, Holdback


def paid(prices: list[int], jobs: int, age: int = 0) -> list[int]:
    """Which of jobs with these prices are paid, by their places, one after the other. One is booked
    a microsecond."""
    queue, out = Holdback(), []
    for place, price in enumerate(prices):
        queue.add(Held(place.to_bytes(4), price, place))
        while queue.due(place, jobs, age):
            out.append(int.from_bytes(queue.take()))
    return out


@given(
    price=st.integers(1, 10**9),
    count=st.integers(0, 50),
    jobs=st.integers(1, 20),
    age=st.integers(0, 60),
)
def test_equal_jobs_are_paid_after_so_many_more_and_so_long(
    price: int, count: int, jobs: int, age: int
) -> None:
    assert paid([price] * count, jobs, age) == list(range(max(0, count - max(jobs, age))))


def test_tiny_jobs_push_nothing_out() -> None:
    assert paid([36, *[1] * 2_159], 60) == []
    assert paid([36, *[1] * 2_160], 60)[0] == 0
    assert paid([36, 1_000, 1_160], 60) == [0], "as much of any size does"


def test_no_sum_pushes_out_what_is_young() -> None:
    """An owner may buy from himself for any sum at once."""
    assert paid([36, *[10**12] * 99], 60, age=100) == []
    assert paid([36, *[10**12] * 100], 60, age=100) == [0]


def test_jobs_that_cost_nothing_hold_up_nobody() -> None:
    assert paid([0, 0, 0], 60) == [0, 1]
    assert paid([5], 60) == []


@given(prices=st.lists(st.integers(0, 40), max_size=20), age=st.integers(0, 100))
def test_where_nothing_is_held_all_is_paid_at_once(prices: list[int], age: int) -> None:
    assert paid(prices, 0, age) == list(range(len(prices)))


@given(
    prices=st.lists(st.integers(0, 40), max_size=60),
    jobs=st.integers(1, 8),
    age=st.integers(0, 40),
    dropped=st.sets(st.integers(0, 59)),
)
def test_it_is_the_sum_of_what_is_there(
    prices: list[int], jobs: int, age: int, dropped: set[int]
) -> None:
    """Held against a list that is summed anew each time; some are taken out on the way. Whatever is
    paid has had its time, and leaves `jobs` times as much behind."""
    queue, plain = Holdback(), deque[tuple[int, int]]()
    for place, price in enumerate(prices):
        queue.add(Held(place.to_bytes(4), price, place))
        plain.append((place, price))
        if place % 7 == 6:
            queue.drop({one.to_bytes(4) for one in dropped})
            plain = deque(one for one in plain if one[0] not in dropped)
        while queue.due(place, jobs, age):
            place_paid, price_paid = plain.popleft()
            assert place - place_paid >= age
            assert sum(other for _, other in plain) >= jobs * price_paid
            assert int.from_bytes(queue.take()) == place_paid
        assert [int.from_bytes(ticket) for ticket in queue] == [one for one, _ in plain]
        if len(plain) > 1 and place - plain[0][0] >= age:
            assert sum(other for _, other in list(plain)[1:]) < jobs * plain[0][1]
