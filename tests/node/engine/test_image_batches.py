"""How prompts with images are cut into decodes, and what of them is used again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node.engine.batcher import Batcher
from assay_node.engine.drafting import Chosen
from assay_node.engine.interface import PRIORITIES, PRIORITY_HIGH, PRIORITY_LOW
from assay_node.engine.jobs import Job
from assay_node.engine.plans import Feed, Plan, Restore, Trim
from assay_node.engine.spans import Seen, Spans
from assay_protocol.images import IMAGE_TOKEN, spans, spelled
from assay_protocol.messages import Image
from kv_memory import KvMemory

COUNT = 12  # positions of an image
CONTEXT = 120
CHUNK = 8
PICTURES = [Image(width=1, height=1, pixels=bytes([color] * 3)) for color in range(3)]


def _spelled(pictures: list[int], between: int) -> tuple[list[int], Spans]:
    """A prompt with those pictures, a few tokens before each and after the last."""
    text = [5]
    for picture in pictures:
        text += [7] * between + list(spelled(PICTURES[picture], COUNT))
    begins = spans(text, [PICTURES[picture] for picture in pictures], COUNT)
    return text + [7] * between, Spans(tuple(begins), COUNT)


def _batcher(slots: int = 1, chunk: int = CHUNK, total: int = 20) -> Batcher:
    return Batcher(slots=slots, context=CONTEXT, chunk=chunk, total=total, waiting_max=60)


def _whole(where: Spans, whole: bool) -> Spans:
    return Spans(where.begins, where.count, whole)


@given(st.lists(st.integers(0, 3), max_size=3), st.booleans(), st.integers(1, 30), st.data())
def test_pieces_follow_each_other_and_cross_no_border(
    gaps: list[int], whole: bool, most: int, data: st.DataObject
) -> None:
    begins, place = [], 0
    for gap in gaps:
        begins.append(place + gap)
        place += gap + COUNT
    where = Spans(tuple(begins), COUNT, whole)
    length = place + data.draw(st.integers(1, 3))
    begin, shown = 0, []
    while begin < length:
        end, seen = where.piece(begin, min(begin + most, length))
        assert begin < end <= length
        within = [n for n, first in enumerate(begins) if first <= begin < first + COUNT]
        assert (seen is None) == (not within)
        if seen is not None:
            assert seen == Seen(within[0], begin - begins[seen.number], whole)
            assert end <= begins[seen.number] + COUNT
            assert end - begin == COUNT if whole else end - begin <= most
            shown += [(seen.number, row) for row in range(seen.row, seen.row + end - begin)]
        else:
            assert not any(begin < first < end for first in begins)
        begin = end
    assert shown == [(number, row) for number in range(len(begins)) for row in range(COUNT)]


def test_an_image_is_reused_whole_or_not_at_all() -> None:
    text, where = _spelled([0], between=2)
    batcher = _batcher()
    batcher.submit(1, text[: where.begins[0] + 9], 1, spans=Spans())  # as one cut short left it
    while batcher.running or batcher.waiting:
        for feed in batcher.plan().feeds:
            if feed.draws:
                batcher.drawn(1, 3, ends=True)
    batcher.submit(2, text, 1, spans=where)
    assert batcher.plan().moves == (Trim(0, where.begins[0]),)


@pytest.mark.parametrize("whole", [True, False])
def test_another_question_about_a_picture_begins_after_it(whole: bool) -> None:
    batcher = _batcher()
    text, where = _spelled([0], between=3)
    for job, prompt, reused in (
        (1, [*text, 1], 0),
        (2, [*text, 2], len(text)),  # the same picture, another question
        (3, _spelled([1], between=3)[0], where.begins[0]),  # another picture
    ):
        batcher.submit(job, prompt, 1, spans=_whole(where, whole))
        plan = batcher.plan()
        assert plan.moves == (Trim(0, reused),)
        while True:
            if any(feed.draws for feed in plan.feeds):
                batcher.drawn(job, 9, ends=True)
                break
            plan = batcher.plan()


@pytest.mark.parametrize(
    ("whole", "steps"), [(False, [[[2], [0, 1]]]), (True, [[[0]], [[1]], [[2]]])]
)
def test_tokens_and_images_are_decoded_apart_and_whole_ones_alone(
    whole: bool, steps: list[list[list[int]]]
) -> None:
    text, where = _spelled([0], between=0)
    batcher = _batcher(slots=3, chunk=20, total=60)
    for job in range(2):
        batcher.submit(job, [job, *text[1:]], 1, spans=_whole(where, whole))
    batcher.plan()  # the first token of each
    batcher.submit(2, [9, 9, 9], 1)
    for groups in steps:  # a whole image a step, and no prompt after it
        plan = batcher.plan()
        assert [[feed.job for feed in feeds] for _, feeds in plan.groups] == groups
        for feed in plan.feeds:
            if feed.draws:
                batcher.drawn(feed.job, 3, ends=True)


class _Parrot:
    """Drafts what the prompt has, images and all."""

    def choose(self, jobs: list[Job], _rows: int) -> Chosen:
        return {job.id: tuple(job.tokens[:6]) for job in jobs}

    def took(self, _feeds: object, _seconds: float) -> None:
        pass


def test_no_image_is_drafted() -> None:
    batcher = _batcher(chunk=20)
    batcher.drafting = _Parrot()  # type: ignore[assignment]
    text, where = _spelled([0], between=1)  # two tokens, then the image
    batcher.submit(1, text, 9, spans=where)
    while not any(feed.draws for feed in batcher.plan().feeds):
        pass
    batcher.drawn(1, 3, ends=False)
    (feed,) = batcher.plan().feeds
    assert feed.drafted == (5, 7)


@dataclass
class _Asked:
    text: list[int]
    where: Spans
    priority: int
    left: int


_asked = st.builds(
    lambda pictures, between, priority, left: _Asked(*_spelled(pictures, between), priority, left),
    st.lists(st.integers(0, 2), max_size=3),
    st.integers(0, 9),
    st.sampled_from(PRIORITIES),
    st.integers(1, 12),
)


@given(st.lists(_asked, min_size=1, max_size=8), st.booleans(), st.integers(0, 4), st.booleans())
def test_every_job_is_fed_all_of_its_prompt_whatever_comes_in_between(
    asked: list[_Asked], whole: bool, pause: int, kept: bool
) -> None:
    batcher = _batcher(slots=2)
    memory = KvMemory(2, CONTEXT, tokens_max=100 if kept else 0)
    jobs: dict[int, _Asked] = {}
    for number, one in enumerate(asked):
        one.where = _whole(one.where, whole)
        jobs[number] = one
        batcher.submit(number, one.text, one.left, priority=one.priority, spans=one.where)
        for _ in range(pause):
            _step(batcher, memory, jobs)
    for _ in range(4_000):
        if not jobs:
            break
        _step(batcher, memory, jobs)
    assert not jobs, "a job waits for ever"


def _step(batcher: Batcher, memory: KvMemory, jobs: dict[int, _Asked]) -> None:
    plan = batcher.plan()
    for job in memory.make(plan):
        batcher.saved(job)
    memory.decode(plan.feeds, {feed.slot: (b"", 0) for feed in plan.feeds})
    restored = {move.job for move in plan.moves if isinstance(move, Restore)}
    begun = {move.slot for move in plan.moves if isinstance(move, Trim)}
    for feed in plan.feeds:
        one = jobs[feed.job]
        _check_piece(feed, one)
        inside = one.where.outside(feed.position) != feed.position
        assert not (inside and feed.slot in begun and feed.job not in restored)
    _check_bounds(plan)
    for feed in plan.feeds:
        if feed.draws:
            one = jobs[feed.job]
            assert memory.tokens(feed.slot) == one.text
            one.text.append(3)
            if batcher.drawn(feed.job, 3, ends=False) is not None:
                del jobs[feed.job]


def _check_piece(feed: Feed, one: _Asked) -> None:
    images = [token >= IMAGE_TOKEN for token in feed.tokens]
    assert all(images) if feed.seen is not None else not any(images)
    assert feed.tokens == tuple(one.text[feed.position : feed.position + len(feed.tokens)])
    if feed.seen is not None:
        assert one.where.begins[feed.seen.number] + feed.seen.row == feed.position
        assert not one.where.whole or len(feed.tokens) == COUNT


def _check_bounds(plan: Plan) -> None:
    wholes = [feed for feed in plan.feeds if feed.whole]
    assert len(wholes) <= 1
    assert all(len(feed.tokens) <= CHUNK for feed in plan.feeds if feed not in wholes)


def test_a_job_preempted_within_an_image_goes_on_there() -> None:
    text, where = _spelled([0], between=8)
    batcher, memory = _batcher(), KvMemory(1, CONTEXT, tokens_max=100)
    batcher.submit(1, text, 1, priority=PRIORITY_LOW, spans=where)
    for _ in range(3):  # up to the image, and eight places into it
        plan = batcher.plan()
        memory.make(plan)
        memory.decode(plan.feeds, {0: (b"", 0)})
    batcher.submit(2, [1], 1, priority=PRIORITY_HIGH)
    plan = batcher.plan()
    assert memory.make(plan) == [1]
    batcher.saved(1)
    memory.decode(plan.feeds, {0: (b"", 0)})
    batcher.drawn(2, 3, ends=True)
    plan = batcher.plan()
    assert plan.moves == (Restore(1, 0),)
    assert [(feed.position, feed.seen) for feed in plan.feeds] == [(17, Seen(0, 8, False))]
