"""From totals to rates and quantiles, through restarts: held against what really happened."""

from __future__ import annotations

from bisect import bisect_left
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.top.core.histograms import Histogram
from assay.top.core.metric_text import histogram, samples
from assay.top.core.pace import MINUTE_US, Pace, Totals, restarted, step

BOUNDS = (0.1, 0.5, 1.0, 5.0)
VALUES = st.lists(st.floats(0.0, 9.0), max_size=30)
SECOND = 1_000_000


def counted(values: list[float]) -> Histogram:
    """The histogram that a process has after these values."""
    counts = tuple(float(sum(value <= bound for value in values)) for bound in BOUNDS)
    return Histogram((*BOUNDS, inf), (*counts, float(len(values))))


@given(VALUES, VALUES)
def test_a_difference_is_the_histogram_of_what_came_between(
    before: list[float], between: list[float]
) -> None:
    whole = counted(before + between)
    assert not whole.fell(counted(before))
    assert whole.less(counted(before)) == counted(between)
    assert counted(before).plus(counted(between)) == whole


@given(VALUES.filter(bool), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    found = counted(values).quantile(share)
    rank = next(n for n in range(1, len(values) + 1) if n >= share * len(values))
    true = sorted(values)[rank - 1]
    at = bisect_left(BOUNDS, true)
    assert found is not None
    if at == len(BOUNDS):
        assert found == BOUNDS[-1]
    else:
        assert (BOUNDS[at - 1] if at else 0.0) <= found <= BOUNDS[at]


def test_quantiles_are_those_of_prometheus() -> None:
    # histogram_quantile(0.5, ...) of 10 values up to 0.1 and 10 from there to 0.5
    half = Histogram((*BOUNDS, inf), (10.0, 20.0, 20.0, 20.0, 20.0))
    assert half.quantile(0.5) == 0.1
    assert half.quantile(0.75) == pytest.approx(0.3)
    assert counted([]).quantile(0.5) is None
    assert counted([100.0]).quantile(0.95) == 5.0


@given(st.lists(st.tuples(st.floats(allow_nan=False), st.floats()), max_size=6))
def test_what_is_no_histogram_is_refused(buckets: list[tuple[float, float]]) -> None:
    made = Histogram.of(buckets)
    if made is not None:
        assert list(made.counts) == sorted(made.counts)
        assert made.bounds[-1] == inf
        made.quantile(0.5)
        assert made.less(made).total == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=40))
def test_nothing_is_lost_or_counted_twice_over_restarts(
    happened: list[tuple[int, bool]],
) -> None:
    """Each interval: so many tokens, after a restart or not. Processes are told apart."""
    pace, total, process, values = Pace(), 0, 0, []  # type: ignore[var-annotated]
    pace.feed(Totals(at=0, process="0", tokens_out=0, first=counted([])))
    for number, (tokens, anew) in enumerate(happened, start=1):
        if anew:
            total, process, values = 0, process + 1, []
        total += tokens
        values += [0.3] * tokens
        pace.feed(
            Totals(
                at=number * SECOND, process=str(process), tokens_out=total, first=counted(values)
            )
        )
    assert list(pace.history()) == [float(tokens) for tokens, _ in happened]
    assert pace.rate("tokens_out") == sum(t for t, _ in happened[-5:]) / len(happened[-5:])
    quantile = pace.quantile("first", 0.5)
    assert (quantile is not None) == any(tokens for tokens, _ in happened)
    assert quantile is None or 0.1 <= quantile <= 0.5


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_restart_that_no_process_id_tells_shows_by_a_total_that_fell(old: int, new: int) -> None:
    before, after = Totals(at=0, tokens_out=old), Totals(at=SECOND, tokens_out=new)
    gained = step(before, after).tokens_out
    assert restarted(before, after) == (new < old)
    assert gained == (new if new < old else new - old)


def test_one_fall_means_that_all_totals_are_new() -> None:
    before = Totals(at=0, tokens_out=10, jobs=1, first=counted([0.2]))
    after = Totals(at=SECOND, tokens_out=50, jobs=2, first=counted([2.0]))
    seen = step(before, after)
    assert (seen.tokens_out, seen.jobs, seen.first) == (50, 2, counted([2.0]))


def test_the_same_moment_again_is_no_step_and_a_clock_set_back_begins_anew() -> None:
    pace = Pace()
    assert pace.rate("tokens_out") is None
    for at, tokens in ((0, 0), (SECOND, 5), (SECOND, 5)):
        pace.feed(Totals(at=at, tokens_out=tokens))
    assert pace.history() == (5.0,)
    pace.feed(Totals(at=0, tokens_out=9))
    assert pace.history() == ()
    assert pace.rate("tokens_out") is None


def test_a_minute_is_a_minute_or_the_last_look() -> None:
    pace = Pace()
    for second in range(0, 90):
        pace.feed(Totals(at=second * SECOND, jobs=second))
    assert pace.seconds() == 60
    assert pace.a_minute("jobs") == 60
    pace.feed(Totals(at=89 * SECOND + 5 * MINUTE_US, jobs=89 + 50))
    assert (pace.seconds(), pace.a_minute("jobs")) == (300, 10)


def test_prometheus_text_is_read() -> None:
    text = """# HELP assay_generation_tokens_total Tokens.
assay_generation_tokens_total 5.0
assay_jobs_total{outcome="done"} 1.0
other_total 3
assay_bad_total NaN
assay_x_seconds_bucket{le="0.1"} 1.0
assay_x_seconds_bucket{le="+Inf"} 2.0
assay_x_seconds_count 2.0
"""
    read = samples(text)
    assert read["generation_tokens_total"] == 5
    assert read['jobs_total{outcome="done"}'] == 1
    assert not {"other_total", "bad_total"} & set(read)
    assert histogram(read, "x_seconds") == Histogram((0.1, inf), (1.0, 2.0))
    assert histogram(read, "y_seconds") is None
    assert histogram(samples('assay_x_bucket{le="1"} 2'), "x") is None


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    read = samples(f"assay_a_bucket{text}\n{text} 1\nassay_{text}")
    histogram(read, "a")
