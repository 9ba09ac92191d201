"""Whether drafts are chosen where they pay, on machines and answers that are made up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from assay_node.engine.batcher import Batcher
from assay_node.engine.costs import passes
from assay_node.engine.drafts import Drafts
from assay_node.engine.jobs import Job
from assay_node.engine.payoff import DRAFT_TOKENS_MAX, PROBE_SHARE, Payoff
from assay_node.engine.plans import Feed

PAGE = [1000 + 37 * i % 911 for i in range(400)]
Seconds = Callable[[int], float]  # what a pass of so many rows takes


def _memory_bound(rows: int) -> float:
    """A large model: its weights take longer to read than a few rows to compute."""
    return 0.1 + 0.002 * rows


def _compute_bound(rows: int) -> float:
    return 0.002 + 0.01 * rows


def _small(rows: int) -> float:
    """SmolLM2-135M Q4_0 on one core, measured: 30 ms a row alone, 14 among many."""
    return 0.016 + 0.0137 * rows


@dataclass
class Machine:
    """Takes plans for `seconds`; every job draws its own `answers`."""

    seconds: Seconds
    answers: list[list[int]]
    prompt: list[int]
    payoff: Payoff | None
    clock: float = 0.0
    tokens: int = 0
    decodes: int = 0
    drafted: int = 0
    noise: random.Random = field(default_factory=lambda: random.Random(5))

    def run(self) -> float:
        """All answers at once; tokens per second from when all prompts are fed."""
        batcher = Batcher(
            slots=len(self.answers),
            context=16_384,
            chunk=48,
            total=192,
            waiting_max=99,
            drafting=self.payoff,
        )
        for job, answer in enumerate(self.answers):
            batcher.submit(job, [job, *self.prompt], len(answer))
        place = [0] * len(self.answers)
        while batcher.running or batcher.waiting:
            plan = batcher.plan()
            rows = passes((feed.slot, len(feed.tokens)) for feed in plan.feeds)
            took = sum(map(self.seconds, rows)) * self.noise.uniform(0.9, 1.1)
            for feed in plan.feeds:
                for number in range(feed.rows):
                    token = self.answers[feed.job][place[feed.job]]
                    place[feed.job] += 1
                    over = batcher.drawn(feed.job, token, ends=False) is not None
                    if over or (number < feed.drafts and token != feed.drafted[number]):
                        break
            if all(place):
                self.clock += took
                self.decodes += 1
                self.drafted += any(feed.drafts for feed in plan.feeds)
            if self.payoff is not None:
                self.payoff.took(plan.feeds, took)
        self.tokens = sum(place)
        return self.tokens / self.clock


def _gain(seconds: Seconds, answers: list[list[int]], prompt: list[int]) -> float:
    return (
        Machine(seconds, answers, prompt, Payoff()).run()
        / Machine(seconds, answers, prompt, None).run()
    )


def _free(number: int, length: int = 600) -> list[int]:
    draw = random.Random(number)
    return [draw.randrange(5000, 50_000) for _ in range(length)]


def _mixed(number: int) -> list[int]:
    """Phrases of a few tokens that come again, as all text has them; most go on in another way."""
    draw = random.Random(number)
    phrases = [[draw.randrange(50_000) for _ in range(3)] for _ in range(20)]
    return [token for _ in range(200) for token in draw.choice(phrases)]


def test_a_repeated_text_is_several_times_as_fast_where_weights_are_the_bottleneck() -> None:
    assert _gain(_memory_bound, [PAGE[8:]], PAGE) > 4.0


def test_it_is_faster_on_a_small_model_alone() -> None:
    assert _gain(_small, [PAGE[8:]], PAGE) > 1.5


def test_many_streams_that_repeat_gain_on_a_large_model() -> None:
    assert _gain(_memory_bound, [PAGE[8:]] * 8, PAGE) > 2.0


def test_little_is_drafted_where_a_row_costs_what_a_decode_does() -> None:
    machine = Machine(_compute_bound, [PAGE[8:]] * 8, PAGE, Payoff())
    without = Machine(_compute_bound, [PAGE[8:]] * 8, PAGE, None)
    assert machine.run() > 0.97 * without.run(), "the first probes count much in so short a run"
    assert machine.drafted < 0.1 * machine.decodes


@pytest.mark.parametrize("seconds", [_memory_bound, _small, _compute_bound])
@pytest.mark.parametrize("streams", [1, 4])
def test_free_text_is_as_fast_as_without(seconds: Seconds, streams: int) -> None:
    answers = [_free(number) for number in range(streams)]
    assert _gain(seconds, answers, PAGE[:50]) > 0.999


@pytest.mark.parametrize("seconds", [_small, _compute_bound])
@pytest.mark.parametrize("streams", [1, 4])
def test_phrases_that_go_on_otherwise_cost_little(seconds: Seconds, streams: int) -> None:
    answers = [_mixed(number) for number in range(streams)]
    assert _gain(seconds, answers, PAGE[:50]) > 0.97


def test_probes_take_a_small_share_of_a_long_time() -> None:
    def linear(rows: int) -> float:
        return 0.01 * rows

    machine = Machine(linear, [PAGE * 20] * 4, PAGE, Payoff())
    without = Machine(linear, [PAGE * 20] * 4, PAGE, None)
    assert machine.run() > (1.0 - 2 * PROBE_SHARE) * without.run()
    assert machine.drafted > 10, "never tried again"


def test_what_was_found_dear_at_first_is_tried_again() -> None:
    payoff = Payoff()
    slow = Machine(_compute_bound, [PAGE[8:]], PAGE, payoff)
    slow.run()
    fast = Machine(_memory_bound, [PAGE * 10], PAGE, payoff)
    assert fast.run() > 2.0 / _memory_bound(1), "one bad time is remembered for ever"


def _job(number: int, adapter: bytes | None = None, max_tokens: int = 99) -> Job:
    tokens = [*PAGE, *PAGE[:40]]
    job = Job(number, tokens, len(tokens), max_tokens, b"", 0, 1, len(tokens), adapter)
    job.slot = number
    job.drafts = Drafts(job.tokens)
    for token in PAGE[40:80]:
        job.tokens.append(token)
        job.drafts.follow()
    return job


def _knowing(payoff: Payoff) -> Payoff:
    for rows in (1, 2, 4, 8, 16):
        for _ in range(3):
            payoff._costs.took([rows], _memory_bound(rows))
    return payoff


def test_one_job_is_given_what_should_come_and_at_most_so_much() -> None:
    chosen = _knowing(Payoff()).choose([_job(0)], 192)
    assert chosen == {0: tuple(PAGE[80 : 80 + DRAFT_TOKENS_MAX])}
    assert _knowing(Payoff()).choose([_job(0)], 5) == {0: tuple(PAGE[80:83])}


def test_no_job_is_given_more_than_it_has_left_to_draw() -> None:
    assert _knowing(Payoff()).choose([_job(0, max_tokens=42)], 192) == {0: (PAGE[80],)}
    assert _knowing(Payoff()).choose([_job(0, max_tokens=41)], 192) == {}


def test_nothing_is_drafted_where_a_step_needs_several_decodes() -> None:
    assert _knowing(Payoff()).choose([_job(0), _job(1, b"a" * 32)], 192) == {}
    assert _knowing(Payoff()).choose([_job(0, b"a" * 32)], 192) != {}


def test_promises_that_are_not_kept_count_for_less() -> None:
    payoff, job = _knowing(Payoff()), _job(0, max_tokens=300)
    widths = []
    for number in range(90):
        widths.append(len(payoff.choose([job], 192).get(0, ())))
        rows = 1 + widths[-1]
        job.tokens.append(PAGE[80 + number])  # right as ever, but alone
        payoff.took([Feed(0, 0, (1,) * rows, 9, True, drafts=rows - 1)], _memory_bound(rows))
    assert widths[0] == DRAFT_TOKENS_MAX
    assert sum(widths[-10:]) < sum(widths[:10]) / 4


def test_before_anything_was_measured_nothing_is_drafted() -> None:
    assert Payoff().choose([_job(0)], 192) == {}
