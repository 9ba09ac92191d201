"""The simulated chain and what is posted on it through production's outbox."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_coordinator.core.events import EpochPosted, PostEpoch, PostRound, RoundMined
from assay_protocol.lottery import RoundNote
from assay_simnet.mined_chain import MinedChain, Sent
from assay_simnet.posts import LAG, Posts
from simnet.planted_bugs import posts_again

BLOCK = 12_000_000
PASS = 2_000_000


def _chain() -> MinedChain:
    return MinedChain(bytes(32), 0, BLOCK)


def _round(number: int) -> PostRound:
    note = RoundNote(number, bytes(32), 1, 1, 1)
    return PostRound(number, note.encode(), 1, 64, bytes([1]) * 32)


def _epoch(number: int) -> PostEpoch:
    return PostEpoch(number, bytes([number]) * 32, number, 1, 1, bytes(32), bytes(32))


def _until_posted(posts: Posts, now: int, most: int = 2_000) -> tuple[list[object], int]:
    """What is told, in order; and when all of it was."""
    told: list[object] = []
    for _ in range(most):
        told += posts.go(now)
        if not posts.open:
            return told, now
        now += PASS
    raise AssertionError("it is never posted")


def test_a_transaction_is_in_the_next_block() -> None:
    chain = _chain()
    assert chain.look(11_999_999).number == 0
    assert chain.send(11_999_999, Sent("a", b"a", 0))
    assert chain.find(b"a") is None
    assert chain.look(BLOCK).number == 1
    found = chain.find(b"a")
    assert found is not None
    assert (found.place.block, found.place.block_hash) == (1, chain.hash(1))
    assert not chain.send(BLOCK, Sent("b", b"b", 0)), "that nonce is spent"


def test_a_nonce_waits_for_those_before_it() -> None:
    chain = _chain()
    chain.send(0, Sent("b", b"b", 1))
    chain.look(3 * BLOCK)
    assert chain.find(b"b") is None
    chain.send(3 * BLOCK, Sent("a", b"a", 0))
    chain.look(4 * BLOCK)
    assert [one.sent.key for one in chain.mined] == ["a", "b"]


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_re_org_makes_other_blocks_of_the_same_height(forgotten: bool) -> None:
    chain = _chain()
    chain.send(0, Sent("e1", b"e1", 0, epoch=1))
    before = [chain.hash(n) for n in range(1, chain.look(3 * BLOCK).number + 1)]
    assert chain.epoch == 1
    chain.reorganise(3 * BLOCK, 3, lambda: forgotten)
    assert chain.look(3 * BLOCK).number == 3
    assert not {chain.hash(n) for n in (1, 2, 3)} & set(before)
    assert (chain.epoch, chain.find(b"e1")) == (0, None)
    chain.look(4 * BLOCK)
    found = chain.find(b"e1")
    assert (found is None) == forgotten
    assert chain.epoch == (not forgotten)


def test_a_round_is_drawn_by_the_block_after_its_root_s_and_epochs_come_in_order() -> None:
    posts = Posts(_chain(), 0)
    for effect in (_round(1), _epoch(1), _round(2), _epoch(2)):
        posts.submit(0, effect)
    told, _ = _until_posted(posts, 0)
    rounds = [one for one in told if isinstance(one, RoundMined)]
    assert [one.number for one in rounds] == [1, 2]
    assert [one.epoch for one in told if isinstance(one, EpochPosted)] == [1, 2]
    for one in rounds:
        posted = posts.chain.find(one.posted)
        assert posted is not None
        assert one.block == posted.place.block + LAG
        assert one.block_hash == posts.chain.hash(one.block)
    assert list(posts.wrong()) == []


def test_what_is_final_waits_for_its_confirmations() -> None:
    times = []
    for confirmations in (0, 12):
        posts = Posts(_chain(), confirmations)
        posts.submit(0, _round(1))
        times.append(_until_posted(posts, 0)[1])
    assert times[1] - times[0] == 12 * BLOCK


def test_another_process_over_the_same_rows_posts_nothing_again() -> None:
    posts = Posts(_chain(), 2)
    posts.submit(0, _round(1))
    posts.go(0)
    posts.restart()
    posts.submit(PASS, _round(1))  # the core asks again for what was not told
    told, _ = _until_posted(posts, PASS)
    assert len(told) == 1
    assert len(list(posts.chain.mined)) == 2


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("round"), st.integers(0, 3)),
        st.tuples(st.just("epoch"), st.integers(0, 3)),
        st.tuples(st.just("re-org"), st.integers(1, 4)),
        st.tuples(st.just("outage"), st.integers(1, 30)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("passes"), st.integers(1, 30)),
    ),
    max_size=30,
)


def _history(acts: list[tuple[str, int]], seed: int, confirmations: int = 4) -> Posts:
    """After all that, and once everything is posted."""
    posts, now, told = Posts(_chain(), confirmations), 0, []
    chance = random.Random(seed)
    asked: dict[str, list[PostRound | PostEpoch]] = {"round": [], "epoch": []}
    for act, number in acts:
        match act:
            case "round" | "epoch":
                make = _round if act == "round" else _epoch
                asked[act].append(make(len(asked[act]) + 1))
                posts.submit(now, asked[act][-1])
            case "re-org":
                posts.chain.reorganise(now, number, lambda: chance.random() < 0.5)
            case "outage":
                posts.forget()
                now += number * PASS
            case "restart":
                posts.restart()
                for effect in [*asked["round"], *asked["epoch"]]:
                    posts.submit(now, effect)
            case _:
                for _ in range(number):
                    told += posts.go(now)
                    now += PASS
    told += _until_posted(posts, now)[0]
    for what, cls in (("round", RoundMined), ("epoch", EpochPosted)):
        names = [
            getattr(one, "number", getattr(one, "epoch", 0)) for one in told if type(one) is cls
        ]
        assert sorted(set(names)) == list(range(1, len(asked[what]) + 1))
    return posts


@given(ACTS, st.integers(0, 99))
def test_whatever_the_chain_does_everything_is_there_once(
    acts: list[tuple[str, int]], seed: int
) -> None:
    assert list(_history(acts, seed).wrong()) == []


def test_an_outbox_that_signs_anew_after_a_re_org_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    posts_again(monkeypatch)
    posts, now = Posts(_chain(), 4), 0
    posts.submit(now, _round(1))
    for number in range(50):
        if number == 10:
            posts.chain.reorganise(now, 2, lambda: False)
        posts.go(now)
        now += PASS
    assert any(ident == "L5" and "2 times" in why for ident, why in posts.wrong())
