"""Probes are cut to ordinary clients, and a node that tries to tell them apart guesses."""

from __future__ import annotations

import json
import random
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.probe_plan import STRETCH, Conversation, choose_personas, personas, plan_session
from assay.probe_shapes import (
    SESSION_JOBS_MAX,
    SESSION_PAUSE_MS,
    JobShape,
    arrange,
    read_shapes,
)
from assay_protocol.errors import AssayError
from sdk.probe_world import careless, client, probes_of, shapes_of, told_apart

DRAW = random.Random
KEYS = 400


def shape(account: int, at_ms: int, n_in: int = 50, n_out: int = 20) -> JobShape:
    return JobShape(account, at_ms, n_in, n_out, 64, {"temperature": 0.8})


@pytest.mark.slow
def test_a_node_cannot_tell_probes_from_clients() -> None:
    draw = DRAW(7)
    shapes = arrange(shapes_of([client(draw) for _ in range(KEYS)]))
    ordinary = [[seen for seen, _ in client(draw)] for _ in range(KEYS)]
    assert told_apart(ordinary, probes_of(draw, shapes, KEYS)) <= 0.55
    assert told_apart(ordinary, [careless(draw) for _ in range(KEYS)]) > 0.95, (
        "the classifier finds probes that can be told"
    )


@given(st.data())
def test_a_session_has_its_patterns_form_and_says_nothing_twice(data: st.DataObject) -> None:
    draw = DRAW(data.draw(st.integers()))
    jobs = data.draw(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, 10**8), st.integers(1, 500)),
            min_size=1,
            max_size=40,
        )
    )
    shapes = arrange([shape(*one) for one in jobs])
    pool = [Conversation(str(i), ("x",) * (1 + i % 3), 10 * i) for i in range(60)]
    (persona,) = choose_personas(shapes, 1, draw)
    for before, session in persona:
        assert before >= 0
        plan = plan_session(session, pool, draw)
        assert len(plan) == len(session.turns) or len({p.conversation for p in plan}) == len(pool)
        said = [(job.conversation.name, job.turn) for job in plan]
        assert len(set(said)) == len(said)
        for job, turn in zip(plan, session.turns, strict=False):
            assert job.pattern == turn
            assert job.turn == 0 or turn.follows
            assert abs(job.wait_ms - turn.wait_ms) <= turn.wait_ms * (2.72**STRETCH - 1) + 1


def test_sessions_end_at_pauses_and_at_their_bound() -> None:
    jobs = [shape(1, i * 1_000) for i in range(SESSION_JOBS_MAX + 5)]
    jobs.append(shape(1, jobs[-1].at_ms + SESSION_PAUSE_MS + 1))
    (account,) = arrange(jobs).accounts
    assert [len(session.turns) for session in account] == [SESSION_JOBS_MAX, 5, 1]
    assert account[2].start_ms == jobs[-1].at_ms


def test_turns_follow_where_the_prompt_can_hold_what_was_said() -> None:
    jobs = [shape(1, 0, 50, 20), shape(1, 9, 71, 5), shape(1, 18, 76, 5), shape(1, 27, 200, 1)]
    ((session,),) = arrange(jobs).accounts
    assert [turn.follows for turn in session.turns] == [False, True, False, True]


def test_keys_are_as_many_and_last_as_long_as_clients_do() -> None:
    old = [shape(account, at) for account in range(6) for at in (0, 100)]
    shapes = arrange([*old, shape(7, 90), shape(8, 95)])
    assert shapes.turnover == 2 / 8
    assert personas(shapes, 0.5) == 8
    assert personas(shapes, 0.001) == 1
    assert arrange([shape(1, 5)]).turnover == 1.0, "of one job nothing is known"


def test_shapes_are_read_as_they_are_written_or_refused_by_line() -> None:
    biased = JobShape(1, 7, 50, 20, 64, {"logit_bias": {"5": 1.5}}, True)
    lines = [json.dumps(asdict(one)) for one in (shape(0, 5), biased)]
    shapes = read_shapes("\n".join(lines))
    assert shapes.accounts[0][0].turns[0].shape == shape(0, 5)
    read = shapes.accounts[1][0].turns[0].shape
    assert (read.sampling, read.grammar) == ({"logit_bias": {5: 1.5}}, True)
    for wrong in ("", "{}", "[]", "x", lines[0].replace("50", "-1"), lines[0].replace("64", "1.5")):
        with pytest.raises(AssayError, match="config_invalid"):
            read_shapes(wrong)
    with pytest.raises(AssayError, match="line 2"):
        read_shapes(f"{lines[0]}\nnonsense")
