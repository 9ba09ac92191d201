"""Prompt lookup against a plain reading of its rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from assay_node.engine.drafts import LENGTHS, REMEMBERED_MAX, Drafts


def _looked_up(tokens: list[int]) -> int | None:
    """Where what follows begins: after the latest earlier place of the longest known ending."""
    for length in LENGTHS:
        ending = tokens[-length:]
        for end in range(len(tokens) - 1, length - 1, -1):
            if len(ending) == length and tokens[end - length : end] == ending:
                return end
    return None


def _guessed(prompt: list[int], answer: list[int]) -> int | None:
    """The place that is followed after `answer`."""
    place = None
    text: list[int] = []
    for token in prompt + answer:
        right = place is not None and text[place] == token
        text.append(token)
        place = place + 1 if right and place is not None else _looked_up(text)
    return place


_TEXT = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@given(prompt=_TEXT, answer=_TEXT, count=st.integers(1, 12), stride=st.integers(1, 5))
def test_a_guess_is_what_followed_the_longest_known_ending(
    prompt: list[int], answer: list[int], count: int, stride: int
) -> None:
    tokens = list(prompt)
    drafts = Drafts(tokens)
    for begin in range(0, len(answer), stride):
        tokens += answer[begin : begin + stride]
        drafts.follow()
    place = _guessed(prompt, answer)
    guess = drafts.next(count)
    if place is None:
        assert guess == ()
        assert drafts.likelihood == 0.0
    else:
        period = len(tokens) - place
        assert guess == tuple(tokens[place + number % period] for number in range(count))
        assert 0.0 < drafts.likelihood < 1.0


def test_a_repetition_is_guessed_to_go_on() -> None:
    assert Drafts([1, 2, 3, 1, 2, 3, 1, 2]).next(5) == (3, 1, 2, 3, 1)


def test_the_longest_agreement_leads_before_the_latest() -> None:
    tokens = [1, 2, 3, 4, 5, 9, 9, 3, 4, 6, 9, 1, 2, 3, 4]
    assert Drafts(tokens).next(1) == (5,)


def test_right_guesses_become_likely_and_wrong_ones_unlikely() -> None:
    tokens = [*range(100), *range(4)]
    drafts = Drafts(tokens)
    before = drafts.likelihood
    for token in range(4, 90):
        tokens.append(token)
        drafts.follow()
    after = drafts.likelihood
    assert before < after
    assert after > 0.95
    unlucky = [1, 2, 3, 4, 5, *(1, 2, 3, 4)]
    drafts = Drafts(unlucky)
    for number in range(30):
        unlucky += [1000 + number, 1, 2, 3, 4]
        drafts.follow()
    assert drafts.likelihood < before / 2


def test_what_a_prompt_repeats_says_nothing_of_the_answer() -> None:
    assert Drafts([*range(50)] * 4).likelihood == Drafts([*range(100), *range(50)]).likelihood


def test_memory_is_bounded_and_holds_the_newest() -> None:
    tokens = list(range(3 * REMEMBERED_MAX))
    drafts = Drafts(list(tokens))
    assert len(drafts._places) + len(drafts._older) <= 2 * len(LENGTHS) * REMEMBERED_MAX
    for token in tokens:
        drafts._tokens.append(token)
    drafts.follow()
    assert len(drafts._places) + len(drafts._older) <= 2 * len(LENGTHS) * REMEMBERED_MAX
    newest = tokens[-REMEMBERED_MAX:]
    drafts._tokens += [7, *newest[:4]]
    drafts.follow()
    assert drafts.next(3) == tuple(newest[4:7])
