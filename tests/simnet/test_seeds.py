"""Streams: named, apart from one another, and of the laws they say."""

from __future__ import annotations

from statistics import fmean, pvariance

import pytest

from assay_simnet.seeds import Shares, Stream, Streams, Zipf

COUNT = 40_000


def _stream(name: str = "test") -> Stream:
    return Streams(5).stream(name)


def test_a_stream_is_its_name_and_seed() -> None:
    first = [_stream().uniform() for _ in range(3)]
    assert first[0] == first[1] == first[2]
    assert _stream("other").uniform() != first[0]
    assert Streams(6).stream("test").uniform() != first[0]


def test_draws_of_one_stream_shift_no_other() -> None:
    streams = Streams(5)
    one, other = streams.stream("one"), streams.stream("other")
    for _ in range(10):
        one.uniform()
    assert other.uniform() == Streams(5).stream("other").uniform()


@pytest.mark.parametrize("law", ["exponential", "gamma 0.5", "gamma 4", "weibull", "pareto"])
def test_means_are_what_was_asked_for(law: str) -> None:
    stream = _stream(law)
    draw = {
        "exponential": lambda: stream.exponential(3.0),
        "gamma 0.5": lambda: stream.gamma(3.0, 0.5),
        "gamma 4": lambda: stream.gamma(3.0, 4.0),
        "weibull": lambda: stream.weibull(3.0, 0.6),
        "pareto": lambda: stream.pareto(3.0, 3.0),
    }[law]
    drawn = [draw() for _ in range(COUNT)]
    assert min(drawn) >= 0
    assert fmean(drawn) == pytest.approx(3.0, rel=0.05)


def test_the_spread_of_gamma_follows_its_shape() -> None:
    stream = _stream()
    drawn = [stream.gamma(2.0, 4.0) for _ in range(COUNT)]
    assert pvariance(drawn) == pytest.approx(1.0, rel=0.05)  # mean^2 / shape


def test_a_share_of_none_or_all_draws_nothing() -> None:
    stream, twin = _stream(), _stream()
    assert not stream.chance(0.0)
    assert stream.chance(1.0)
    assert stream.uniform() == twin.uniform()


def test_shares_and_zipf_follow_their_weights() -> None:
    stream = _stream()
    shares = Shares({"a": 3.0, "b": 1.0, "c": 0.0})
    drawn = [shares.draw(stream) for _ in range(COUNT)]
    assert drawn.count("a") / COUNT == pytest.approx(0.75, abs=0.02)
    assert "c" not in drawn
    zipf = Zipf(100, 1.0)
    ranks = [zipf.draw(stream) for _ in range(COUNT)]
    assert 1 <= min(ranks) <= max(ranks) <= 100
    assert ranks.count(1) / ranks.count(2) == pytest.approx(2.0, rel=0.1)
