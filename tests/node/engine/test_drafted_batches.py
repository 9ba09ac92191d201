"""Drafts in the scheduler's plans: what is rejected leaves nothing behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from assay_node.engine.batcher import Batcher
from assay_node.engine.drafting import Chosen
from assay_node.engine.interface import PRIORITY_HIGH, PRIORITY_LOW
from assay_node.engine.jobs import Job
from assay_node.engine.plans import Copy, Feed, Save, Trim
from scheduling import CHUNK, SLOTS, TOTAL, Scheduling

END = 9
WRONG = 77


@dataclass
class Scripted:
    """Drafts `right` tokens of the answer that is coming, then `wrong` others."""

    right: int = 0
    wrong: int = 0
    taken: list[Feed] = field(default_factory=list)

    def choose(self, jobs: Sequence[Job], rows: int) -> Chosen:
        each = rows // len(jobs)
        return {
            job.id: (*_coming(job.id, len(job.tokens), self.right), *[WRONG] * self.wrong)[:each]
            for job in jobs
        }

    def took(self, feeds: Sequence[Feed], seconds: float) -> None:
        raise AssertionError("nothing is decoded here")


def _answer(job: int, position: int) -> int:
    """The token a job draws at a position of its text: END now and then."""
    return (3 * job + position * position) % 11 % 10


def _coming(job: int, position: int, count: int) -> list[int]:
    return [_answer(job, position + number) for number in range(count)]


def _batcher(scripted: Scripted, slots: int = 1) -> Batcher:
    return Batcher(
        slots=slots, context=80, chunk=CHUNK, total=20, waiting_max=60, drafting=scripted
    )


def _begin(batcher: Batcher, job: int, max_tokens: int, **options: int) -> None:
    batcher.submit(job, [100 + job], max_tokens, **options)
    batcher.plan()
    batcher.drawn(job, 5, ends=False)


def test_drafts_follow_the_newest_token_and_are_taken_while_they_are_drawn() -> None:
    batcher = _batcher(Scripted(right=2, wrong=1))
    _begin(batcher, 1, 30)
    (feed,) = batcher.plan().feeds
    assert (feed.tokens, feed.drafts, feed.rows) == ((5, *_coming(1, 2, 2), WRONG), 3, 4)
    assert feed.drafted == feed.tokens[1:]
    for token in _coming(1, 2, 3):
        batcher.drawn(1, token, ends=False)
    plan = batcher.plan()
    assert plan.moves == (Trim(0, 4),)
    assert plan.feeds[0].position == 4
    assert plan.feeds[0].tokens[0] == _answer(1, 4)


def test_nothing_is_trimmed_where_every_draft_was_drawn() -> None:
    batcher = _batcher(Scripted(right=3))
    _begin(batcher, 1, 30)
    batcher.plan()
    for token in _coming(1, 2, 4):
        batcher.drawn(1, token, ends=False)
    plan = batcher.plan()
    assert plan.moves == ()
    assert plan.feeds[0].position == 5


def test_no_draft_could_be_drawn_after_the_last_token() -> None:
    batcher = _batcher(Scripted(right=7))
    _begin(batcher, 1, 4)
    (feed,) = batcher.plan().feeds
    assert feed.rows == 3
    finishes = [batcher.drawn(1, token, ends=False) for token in _coming(1, 2, 3)]
    assert finishes == [None, None, "length"]


def test_a_sequence_gives_no_more_than_the_exact_road_bears() -> None:
    batcher = _batcher(Scripted(right=30))
    _begin(batcher, 1, 60)
    (feed,) = batcher.plan().feeds
    assert len(feed.tokens) == CHUNK


def test_nothing_is_drafted_while_a_prompt_is_fed_or_where_it_may_not_be() -> None:
    batcher = _batcher(Scripted(right=3), slots=3)
    _begin(batcher, 1, 30)
    batcher.submit(2, [7] * 20, 30, may_draft=False)
    for _ in range(3):
        assert [feed.drafts for feed in batcher.plan().feeds] == [0, 0]
        batcher.drawn(1, 5, ends=False)
    batcher.drawn(2, 5, ends=False)
    assert [feed.drafts for feed in batcher.plan().feeds] == [3, 0]


def test_a_stop_among_drafts_leaves_only_what_was_drawn() -> None:
    batcher = _batcher(Scripted(right=5))
    _begin(batcher, 1, 30)
    batcher.plan()
    first, second = _coming(1, 2, 2)
    assert batcher.drawn(1, first, ends=False) is None
    assert batcher.drawn(1, second, ends=True) == "stop"
    batcher.submit(2, [101, 5, first, second, *_coming(1, 4, 4)], 2)
    plan = batcher.plan()
    assert plan.moves == (Trim(0, 4),), "the drafts after the stop were taken for known"


def test_rejected_drafts_are_gone_before_a_state_is_saved_or_copied() -> None:
    scripted = Scripted(right=1, wrong=4)
    batcher = _batcher(scripted, slots=2)
    batcher.submit(1, list(range(100, 120)), 30, priority=PRIORITY_LOW)
    while not batcher.plan().feeds[0].draws:
        assert batcher.running == 1
    batcher.drawn(1, 5, ends=False)
    batcher.plan()
    for token in _coming(1, 21, 2):
        batcher.drawn(1, token, ends=False)
    batcher.submit(2, list(range(100, 121)), 30, priority=PRIORITY_LOW)
    plan = batcher.plan()
    assert plan.moves == (Trim(0, 22), Copy(0, 1), Trim(1, 20))
    scripted.right = scripted.wrong = 0
    batcher.drawn(1, 5, ends=False)
    batcher.drawn(2, 5, ends=False)
    scripted.wrong = 4
    batcher.plan()
    batcher.drawn(1, 5, ends=False)
    batcher.drawn(2, 5, ends=False)
    batcher.submit(3, [3], 2, priority=PRIORITY_HIGH)
    moves = batcher.plan().moves
    assert moves[:3] == (Trim(0, 24), Trim(1, 22), Save(2, 1))


class Drafting(Scheduling):
    """Jobs of all classes and two tenants that share beginnings, while drafts come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.scripted = Scripted()
        self.batcher.drafting = self.scripted

    @rule(right=st.integers(0, 5), wrong=st.integers(0, 5))
    def draft(self, right: int, wrong: int) -> None:
        self.scripted.right, self.scripted.wrong = right, wrong

    def _step(self, token: int) -> None:
        feeds = self._decoded()
        assert sum(len(feed.tokens) for feed in feeds) <= TOTAL + SLOTS
        for feed in feeds:
            if feed.draws:
                text = self.jobs[feed.job].text
                assert self.memory.tokens(feed.slot) == [*text, *feed.drafted], "not its text"
                self._draw(feed)

    def _draw(self, feed: Feed) -> None:
        """Each row's token is the job's next one if all drafts before it were; the others end."""
        asked = self.jobs[feed.job]
        for number in range(feed.rows):
            token = _answer(feed.job, len(asked.text))
            asked.text.append(token)
            asked.drawn += 1
            finish = self.batcher.drawn(feed.job, token, ends=token == END)
            over = token == END or asked.drawn == asked.max_tokens
            assert (finish is not None) == over
            if over:
                del self.jobs[feed.job]
                return
            if number < feed.drafts and token != feed.drafted[number]:
                return


TestDrafting = Drafting.TestCase
TestDrafting.settings = settings(max_examples=60, stateful_step_count=40)
