"""A key seals heights that only rise, and never two hashes at one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from assay_node.core.voter import HASHES_MAX, Voted, Voter

ONE, TWO = b"\x01" * 32, b"\x02" * 32


def test_it_seals_what_it_executed_and_was_asked_about() -> None:
    voter = Voter(Voted())
    assert voter.due(3) is None
    voter.executed(3, ONE)
    assert voter.due(None) is None
    assert voter.due(4) is None
    assert voter.due(3) == Voted(3, ONE)


def test_a_vote_is_sent_again_until_it_is_answered() -> None:
    voter = Voter(Voted())
    voter.executed(3, ONE)
    voter.sealed(Voted(3, ONE))
    assert voter.due(3) == Voted(3, ONE)
    voter.answered(2)
    assert voter.due(3) == Voted(3, ONE)
    voter.answered(3)
    assert voter.due(3) is None


def test_another_hash_at_a_sealed_height_is_never_sealed() -> None:
    voter = Voter(Voted(3, ONE))  # as the disk has it, from an earlier life
    voter.executed(3, TWO)
    voter.executed(2, TWO)
    assert voter.due(3) is None
    assert voter.due(2) is None
    voter.executed(4, TWO)
    assert voter.due(4) == Voted(4, TWO)


def test_what_is_remembered_is_bounded() -> None:
    voter = Voter(Voted())
    for number in range(HASHES_MAX + 5):
        voter.executed(number, ONE)
    assert voter.head == HASHES_MAX + 4
    assert voter.due(4) is None
    assert voter.due(5) == Voted(5, ONE)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["executed", "vote", "restart"]),
            st.integers(1, 6),
            st.sampled_from([ONE, TWO]),
        ),
        max_size=60,
    )
)
def test_no_history_seals_twice(steps: list[tuple[str, int, bytes]]) -> None:
    voter, sealed = Voter(Voted()), dict[int, bytes]()
    for what, number, digest in steps:
        if what == "executed":
            voter.executed(number, digest)
        elif what == "restart":
            voter = Voter(voter.voted)
        elif (due := voter.due(number)) is not None:
            voter.sealed(due)
            assert sealed.setdefault(due.number, due.hash) == due.hash
            assert max(sealed) == due.number
