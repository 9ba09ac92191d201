"""The owner's limits: wall-clock windows, the gate, and what a node does behind a closed one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.limits import (
    COOLING_C,
    DAYS,
    MINUTES_A_DAY,
    Gate,
    Limits,
    Surroundings,
    Terms,
    parse_window,
)
from assay_protocol.codec import decode, encode
from assay_protocol.errors import AssayError, RemoteError
from assay_protocol.messages import AuditDecline, Heartbeat
from node.core.node_bench import CLIENT, END, SECOND, Bench, make_bench, make_ticket
from node.core.test_audits import task

MONDAY, SATURDAY = 0, 5
NOON = Surroundings(weekday=MONDAY, minute=12 * 60, idle_seconds=None, celsius=None)


# windows


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("08:00-09:00", [(0, 480), (6, 539)], [(0, 479), (0, 540)]),
        ("22:00-07:00", [(0, 1_320), (1, 0), (0, 0), (3, 419)], [(0, 420), (0, 1_319)]),
        ("fri 22:00-07:00", [(4, 1_320), (5, 419)], [(4, 0), (5, 1_320), (6, 0)]),
        ("sun 23:00-01:00", [(6, 1_380), (0, 59)], [(0, 1_380), (1, 0), (6, 0)]),
        ("sat,sun 00:00-24:00", [(5, 0), (6, 1_439)], [(0, 0), (4, 1_439)]),
        ("fri-mon 00:00-24:00", [(4, 0), (0, 1_439)], [(1, 0), (3, 1_439)]),
        ("00:00-00:00", [(0, 0), (6, 1_439)], []),
        ("MON 18:30-24:00", [(0, 1_110), (0, 1_439)], [(1, 0), (0, 1_109)]),
    ],
)
def test_a_window_is_read_as_people_write_it(
    text: str, inside: list[tuple[int, int]], outside: list[tuple[int, int]]
) -> None:
    window = parse_window(text)
    assert [at for at in inside if not window.holds(*at)] == []
    assert [at for at in outside if window.holds(*at)] == []


UNREADABLE = """
always
8-9
25:00-26:00
08:60-09:00
24:00-08:00
08:00-24:01
mo 08:00-09:00
mon-xyz 08:00-09:00
mon, 08:00-09:00
08:00-09:00 mon
"""


@pytest.mark.parametrize("text", ["", *UNREADABLE.split("\n")[1:-1]])
def test_a_window_that_cannot_be_read_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(AssayError) as caught:
        parse_window(text)
    assert caught.value.code == "config_invalid"
    assert repr(text)[1:-1] in caught.value.message


minutes = st.integers(0, MINUTES_A_DAY - 1)


@given(begin=minutes, end=minutes, day=st.integers(0, 6))
def test_a_window_is_open_for_its_length_each_week_and_in_one_piece(
    begin: int, end: int, day: int
) -> None:
    text = f"{DAYS[day]} {begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"
    window = parse_window(text)
    week = [window.holds(at // MINUTES_A_DAY, at % MINUTES_A_DAY) for at in range(7 * 1_440)]
    assert sum(week) == window.length == ((end - begin) % MINUTES_A_DAY or MINUTES_A_DAY)
    edges = sum(week[at] != week[at - 1] for at in range(len(week)))
    assert edges == 2


# the gate


def test_without_limits_the_gate_is_open() -> None:
    assert Gate(Limits()).handle(replace(NOON, idle_seconds=0, celsius=200)) == ""


def test_hours_close_and_open_it() -> None:
    gate = Gate(Limits(windows=(parse_window("mon 11:00-12:01"), parse_window("sat 00:00-01:00"))))
    assert gate.handle(NOON) == ""
    assert gate.handle(replace(NOON, minute=12 * 60 + 1)) == "hours"
    assert gate.handle(replace(NOON, weekday=SATURDAY, minute=59)) == ""


def test_it_waits_until_nobody_is_there() -> None:
    gate = Gate(Limits(idle_seconds=600))
    answers = [gate.handle(replace(NOON, idle_seconds=idle)) for idle in (0, 599, 600, 9_999, 3)]
    assert answers == ["in_use", "in_use", "", "", "in_use"]


def test_a_hot_device_cools_before_it_works_again() -> None:
    gate = Gate(Limits(celsius_max=80))
    cool = 80 - COOLING_C
    seen = [80, 81, 80, cool + 1, cool, 80]
    answers = [gate.handle(replace(NOON, celsius=celsius)) for celsius in seen]
    assert answers == ["", "hot", "hot", "hot", "", ""]


def test_a_day_s_bytes_are_counted_over_restarts_and_forgotten_at_midnight() -> None:
    def seen(day: int, sent: int) -> Surroundings:
        return replace(NOON, day=day, sent_bytes=sent)

    limits = Limits(sent_bytes_max=100)
    gate = Gate(limits)
    assert [gate.handle(seen(7, sent)) for sent in (0, 60, 99)] == ["", "", ""]
    later = Gate(limits, gate.sent)
    assert [later.handle(seen(7, sent)) for sent in (0, 1, 50)] == ["", "sent", "sent"]
    assert later.sent.bytes == 149
    assert later.handle(seen(8, 50)) == "", "a new day"
    assert later.handle(seen(8, 150)) == "sent"


@pytest.mark.parametrize(
    "limits", [Limits(idle_seconds=60), Limits(celsius_max=80), Limits(sent_bytes_max=1)]
)
def test_what_is_limited_and_cannot_be_seen_closes_it(limits: Limits) -> None:
    assert Gate(limits).handle(NOON) == "unseen"


@given(
    st.lists(
        st.tuples(
            st.integers(0, 6),
            minutes,
            st.none() | st.integers(0, 10_000),
            st.none() | st.integers(0, 150),
        )
    )
)
def test_an_open_gate_means_that_every_limit_holds(seen: list[tuple[int, int, int, int]]) -> None:
    window = parse_window("mon-fri 22:00-07:00")
    gate = Gate(Limits((window,), idle_seconds=300, celsius_max=70))
    for weekday, minute, idle, celsius in seen:
        if gate.handle(Surroundings(weekday, minute, idle, celsius)) == "":
            assert window.holds(weekday, minute)
            assert idle is not None
            assert idle >= 300
            assert celsius is not None
            assert celsius <= 70


# the node behind it


def refused(bench: Bench, number: int, **changes: object) -> str:
    with pytest.raises(RemoteError) as caught:
        bench.start(number, make_ticket(number, **changes))
    return caught.value.code


def beats(bench: Bench, effects: list[do.Effect]) -> list[bool]:
    messages = [decode(request.body) for request in bench.requests(effects, Heartbeat)]
    return [message.draining for message in messages if isinstance(message, Heartbeat)]


def test_a_paused_node_says_so_at_once_finishes_and_comes_back() -> None:
    bench = make_bench()
    client = bench.start(1, make_ticket(1))
    effects = bench.post(on.Pause("hours"))
    assert beats(bench, effects) == [True]
    assert do.Log("paused", (("reason", "hours"),)) in effects
    bench.answer_heartbeat(effects)
    assert refused(bench, 2) == "draining", "a code that is no mark against a node"
    assert beats(bench, bench.later(SECOND)) == [], "said once"
    client.draw(11, END, finish="stop")
    client.reply()
    assert bench.node.tally.jobs_done == 1
    assert not bench.of(do.Drained), "it stays"
    assert bench.post(on.Pause("hours")) == []
    effects = bench.post(on.Pause(""))
    assert beats(bench, effects) == [False]
    bench.answer_heartbeat(effects)
    bench.start(3, make_ticket(3))
    assert bench.node.running == 1


def test_a_pause_outlives_the_session() -> None:
    bench = make_bench()
    bench.answer_heartbeat(bench.post(on.Pause("hot")))
    bench.post(on.SessionDown())
    bench.register()
    assert beats(bench, bench.done) == [True, True], "the coordinator forgot it with the lease"
    assert refused(bench, 2) == "draining"


def test_a_paused_node_takes_no_audit_and_drains_like_another() -> None:
    bench = make_bench()
    bench.answer_heartbeat(bench.post(on.Pause("in_use")))
    [declined] = bench.notices(bench.post(on.Noticed(encode(task()))))
    assert isinstance(declined, AuditDecline)
    effects = bench.post(on.Drain())
    bench.answer_heartbeat(effects)
    assert bench.of(do.Drained) == [do.Drained()]


def test_a_private_node_serves_only_whom_its_owner_named() -> None:
    others = make_bench(terms=Terms(clients=frozenset({b"o" * 32})))
    assert refused(others, 1) == "forbidden"
    mine = make_bench(terms=Terms(clients=frozenset({CLIENT.public_key})))
    mine.start(1, make_ticket(1))
    assert mine.node.running == 1
    unwanted = make_bench(terms=Terms(refused=frozenset({CLIENT.public_key})))
    assert refused(unwanted, 1) == "forbidden"


@pytest.mark.parametrize(("price_in", "price_out"), [(99, 400), (100, 399)])
def test_a_price_below_the_owners_is_refused(price_in: int, price_out: int) -> None:
    bench = make_bench(terms=Terms(price_in_min=100, price_out_min=400))
    assert refused(bench, 1, price_in=price_in, price_out=price_out) == "forbidden"
    bench.start(2, make_ticket(2))
    assert bench.node.running == 1
