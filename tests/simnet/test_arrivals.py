"""Workloads and churn: recorded ones are read strictly, drawn ones follow their laws."""

from __future__ import annotations

from itertools import islice, takewhile
from pathlib import Path

import pytest

from assay_simnet.arrivals import sessions
from assay_simnet.churn import Random, Traced, read_trace
from assay_simnet.schema import ScenarioError, Source
from assay_simnet.seeds import Streams
from assay_simnet.traces import NAMES, load
from simnet.scenario_texts import SMALL, scenario

MINUTE = 60_000_000


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_columns_of_the_real_ones(name: str) -> None:
    asks = load(name, None)
    assert asks[0].at_us == 0
    assert all(ask.n_in and ask.n_out for ask in asks)
    assert [ask.at_us for ask in asks] == sorted(ask.at_us for ask in asks)


def test_seven_digits_of_a_second_and_failed_requests(tmp_path: Path) -> None:
    burst = load("burstgpt", None)
    assert len(burst) == 5, "a request without a response is left out"
    assert {ask.session for ask in burst} == {"s1", "s2", "s3"}
    file = tmp_path / "a.csv"
    file.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,374,44\n2023-11-16 18:17:04.0319600,396,109\n"
    )
    assert [ask.at_us for ask in load("azure-2023-conv", file)] == [0, 52_000]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("TIMESTAMP,ContextTokens\n1,2\n", "no column 'GeneratedTokens'"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no rows"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2\n", "a.csv:2"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\nnow,2,3\n", "a.csv:3"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n1,-2,3\n", "negative"),
    ],
)
def test_bad_traces_say_where(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        load("azure-2024", file)
    assert why in str(caught.value)


def _count(more: str, until_us: int) -> int:
    work = scenario(text=SMALL + more).workload
    coming = sessions(work, Streams(3).stream("w"), [])
    return sum(1 for _ in takewhile(lambda turns: turns.at_us < until_us, coming))


def test_sessions_come_at_their_rate_and_in_a_crowd() -> None:
    assert _count("", 60 * MINUTE) == pytest.approx(3_600, rel=0.06)
    gamma = _count('arrivals = "gamma"\n', 60 * MINUTE)
    assert gamma == pytest.approx(3_600, rel=0.06)
    surge = 'surge_at = "10 min"\nsurge_for = "10 min"\nsurge_factor = 5.0\n'
    assert _count(surge, 20 * MINUTE) == pytest.approx(600 + 3_000, rel=0.06)


def test_turns_of_a_session_hold_what_was_said() -> None:
    work = scenario(text=SMALL + "turns = 3.0\n").workload
    some = list(islice(sessions(work, Streams(3).stream("w"), []), 400))
    assert sum(len(turns.asks) for turns in some) / 400 == pytest.approx(3.0, rel=0.15)
    longest = max(some, key=lambda turns: len(turns.asks))
    first, second = longest.asks[:2]
    assert second.n_in > first.n_in + first.n_out or second.n_in == work.prompt_most
    assert len(longest.pauses_us) == len(longest.asks) - 1


def test_a_trace_is_played_faster_and_again() -> None:
    work = scenario(text=SMALL + 'arrivals = "trace"\nrate_scale = 2.0\n').workload
    asks = load("azure-2023-conv", None)
    played = list(islice(sessions(work, Streams(3).stream("w"), asks), 2 * len(asks)))
    assert played[1].at_us == asks[1].at_us // 2
    times = [turns.at_us for turns in played]
    assert times == sorted(times)


@pytest.mark.parametrize("model", ["exponential", "weibull", "pareto", "diurnal"])
def test_stays_have_their_mean(model: str) -> None:
    churn = Random(model, Streams(2).stream(model), 60 * MINUTE, 5 * MINUTE, 2.5, "na")
    now, stays = 0, []
    for _ in range(4_000):
        stay = churn.stays_us(now)
        stays.append(stay)
        now += stay + churn.away_us(now)
    # By day more leave than come: who is there at night stays longer, so the mean is a little off.
    off = 0.25 if model == "diurnal" else 0.06
    assert sum(stays) / len(stays) == pytest.approx(60 * MINUTE, rel=off)


def test_recorded_stays_go_around() -> None:
    rows = read_trace(Source("up.csv", "up_s,away_s\n10,1\n20,2\n"))
    churn = Traced(rows, 1)
    seen = [(churn.stays_us(0), churn.away_us(0)) for _ in range(3)]
    assert seen == [(20_000_000, 2_000_000), (10_000_000, 1_000_000), (20_000_000, 2_000_000)]
    for text in ("up_s\n1\n", "up_s,away_s\n", "up_s,away_s\n0,1\n", "up_s,away_s\nx,1\n"):
        with pytest.raises(ScenarioError, match=r"up\.csv"):
            read_trace(Source("up.csv", text))
