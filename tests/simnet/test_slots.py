"""The driver's clock and its machines, against what queueing theory says of them."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, lgamma, log

import pytest

from assay_simnet.drivers.buckets import Buckets
from assay_simnet.drivers.slots import Slots
from assay_simnet.seeds import Stream, Streams

MS = 1_000
SECOND = 1_000_000


def test_what_is_due_within_a_tick_happens_at_its_end_in_order() -> None:
    buckets, seen = Buckets(0, MS), list[tuple[int, str]]()
    note: Callable[[str], None] = lambda name: seen.append((buckets.now, name))  # noqa: E731
    buckets.at(1_500, note, "b")
    buckets.at(1_100, note, "c")
    buckets.at(900, note, "a")
    buckets.at(5_001, note, "d")
    buckets.run(4 * MS)
    assert seen == [(MS, "a"), (2 * MS, "b"), (2 * MS, "c")]
    assert buckets.now == 4 * MS
    buckets.run(10 * MS)
    assert seen[-1] == (6 * MS, "d")
    assert buckets.done == 4


def test_time_passes_to_the_end_of_the_tick_that_was_asked_for() -> None:
    buckets = Buckets(0, 4 * MS)
    buckets.run(9 * MS)
    assert buckets.now == 12 * MS


def test_nothing_happens_in_the_tick_that_asked_for_it() -> None:
    buckets, seen = Buckets(0, MS), list[int]()

    def again() -> None:
        seen.append(buckets.now)
        if len(seen) < 3:
            buckets.after(0, again)

    buckets.after(0, again)
    buckets.run(10 * MS)
    assert seen == [MS, 2 * MS, 3 * MS]


def _mean_stay_us(servers: int, jobs: int, gap_us: int, service: Callable[[], float]) -> float:
    """Of a queue with Poisson arrivals, measured in the driver's own clock and slots."""
    buckets, slots, stays = Buckets(0, MS), Slots(servers), list[int]()
    arrivals = Streams(11).stream("arrivals")

    def arrive(left: int) -> None:
        slots.want(begin, buckets.now)
        if left:
            buckets.after(round(arrivals.exponential(gap_us)), arrive, left - 1)

    def begin(came: int) -> None:
        buckets.after(round(service()), end, came)

    def end(came: int) -> None:
        slots.free()
        stays.append(buckets.now - came)

    arrive(jobs)
    buckets.run(1 << 62)
    assert len(stays) == jobs + 1
    return sum(stays) / len(stays)


def _erlang_c(servers: int, load: float) -> float:
    """The chance to wait in M/M/k at an offered load of `load` servers (Erlang 1917)."""
    term, terms = 1.0, 1.0
    for k in range(1, servers):
        term *= load / k
        terms += term
    last = term * load / servers / (1 - load / servers)
    return last / (terms + last)


@pytest.mark.slow
@pytest.mark.parametrize("servers", [1, 4])
def test_queues_of_exponential_services_are_those_of_theory(servers: int) -> None:
    mean, load = 2 * SECOND, 0.6 * servers
    stream = Streams(12).stream("services")
    found = _mean_stay_us(servers, 150_000, round(mean / load), lambda: stream.exponential(mean))
    wait = _erlang_c(servers, load) * mean / (servers - load)
    assert found == pytest.approx(mean + wait, rel=0.02)


@pytest.mark.slow
def test_a_queue_of_other_services_is_pollaczeks_and_khinchins() -> None:
    mean, load, shape = 2 * SECOND, 0.6, 4.0
    stream: Stream = Streams(13).stream("services")
    found = _mean_stay_us(1, 150_000, round(mean / load), lambda: stream.gamma(mean, shape))
    wait = load * mean * (1 + 1 / shape) / 2 / (1 - load)
    assert found == pytest.approx(mean + wait, rel=0.02)


def _crommelins_wait(servers: int, load: float) -> float:
    """The mean wait in M/D/k, in services, at `load` servers: exact, an M/G/k that is not M/M/k
    (Crommelin 1932; sums of Poisson terms until what is left is nothing)."""
    wait, most = 0.0, 400
    for turn in range(1, most):
        mean = turn * load
        term = exp(turn * servers * log(mean) - mean - lgamma(turn * servers + 1))
        at_least, beyond = 0.0, 0.0
        for place in range(turn * servers, turn * servers + 2_000):
            at_least += term
            if place > turn * servers:
                beyond += term
            term *= mean / (place + 1)
        wait += at_least - servers / load * beyond
    return wait


def test_crommelins_formula_is_pollaczeks_for_one_server() -> None:
    assert _crommelins_wait(1, 0.8) == pytest.approx(0.8 / (2 * (1 - 0.8)), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("servers", [2, 4])
def test_several_servers_of_equal_services_are_crommelins(servers: int) -> None:
    mean, load = 2 * SECOND, 0.8 * servers
    found = _mean_stay_us(servers, 150_000, round(mean / load), lambda: mean)
    assert found == pytest.approx(mean * (1 + _crommelins_wait(servers, load)), rel=0.02)
