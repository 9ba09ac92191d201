"""What one machine takes: finely shared, or in steps as llama.cpp computes."""

from __future__ import annotations

import pytest

from assay_simnet.pace import Pace
from assay_simnet.population import Speed

FINE = Speed(slots=4, prefill_us=10.0, decode_us=100.0)
STEPS = Speed(
    slots=4,
    prefill_us=10.0,
    decode_us=100.0,
    decode_shares=(0.5,),
    request_us=7.0,
    redraw_us=3.0,
    step_tokens=48,
)


def test_a_fine_machine_is_shared_and_answers_go_on() -> None:
    pace = Pace(FINE)
    assert pace.read(0, 20) == 200
    assert pace.read(0, 20) == 400
    assert pace.draw(0, 5, taken=3) == 500
    assert pace.first(taken=3) == 100
    pace.has_read()
    assert pace.replay(0, 10, 10) == 400
    for _ in range(2):
        pace.has_read()
    assert pace.read(0, 1) == 10


def test_who_comes_waits_for_the_step_and_shares_the_next_ones() -> None:
    pace = Pace(STEPS)
    assert pace.read(0, 96) == 960  # two steps
    # At 100 there are 380 left of the first step; the next one holds 48 tokens of each prompt,
    # but of the second there are only 10.
    assert pace.read(100, 10) == pytest.approx(380 + 480 + 100)
    assert pace.read(2_000, 10) == 100  # all of that is over
    assert pace.first(taken=3) == 7


def test_answers_stand_still_while_a_prompt_is_read() -> None:
    pace = Pace(STEPS)
    assert pace.draw(0, 4, taken=2) == 800  # two decode, each at half its speed
    pace.read(0, 20)
    assert pace.draw(50, 4, taken=2) == 400 + 150  # one decodes, the other is being read
    pace.has_read()
    assert pace.draw(500, 4, taken=2) == 800


def test_an_audit_draws_again_what_it_read() -> None:
    pace = Pace(STEPS)
    assert pace.replay(0, 20, 10) == 300 + 30
    assert pace.draw(0, 1, taken=2) == 100 + 330
