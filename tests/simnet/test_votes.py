"""What a cartel needs: the count for arrays is the contract's, vote by vote."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_contracts.deploy.plan import LOCAL
from assay_protocol.signing import Identity
from assay_simnet.drivers.levels import open_driver
from assay_simnet.economy import Vote
from assay_simnet.epochs.votes import capture, least, passed
from assay_simnet.grid import base
from assay_simnet.scenario import source_of
from contracts.electorate import (
    ABSTAIN,
    AGAINST,
    DEFEATED,
    FOR,
    SUCCEEDED,
    Electorate,
    Voter,
)

VOTERS = 120


@dataclass(frozen=True)
class Numbered(Voter):
    """One of more than 255."""

    @property
    def identity(self) -> Identity:
        return Identity(self.number.to_bytes(32))

    @property
    def payee(self) -> bytes:
        return bytes(18) + (self.number + 256).to_bytes(2)


@pytest.mark.slow
def test_the_contract_counts_hundreds_of_votes_as_we_do() -> None:
    """Two proposals before one electorate: a cartel of the least share that passes, and the same
    with its last member staying at home."""
    chance = np.random.Generator(np.random.Philox(key=5))
    weights = chance.integers(1, 10**6, VOTERS)
    electorate = Electorate()
    voters = [Numbered(number + 1) for number in range(VOTERS)]
    for voter in voters:
        electorate.bind(voter)
    electorate.earn(dict(zip(voters, (int(w) for w in weights), strict=True)))
    order = chance.permutation(VOTERS)
    honest = chance.random(VOTERS)  # by place in the order
    support = np.where(honest < 0.3, AGAINST, np.where(honest < 0.4, ABSTAIN, -1))
    earned, quorum_bps = int(weights.sum()), electorate.evm.wiring.quorum_bps

    def ours(cartel: int) -> tuple[int, int, int]:
        yes = int(weights[order[:cartel]].sum())
        rest = order[cartel:]
        no = int(weights[rest[support[cartel:] == AGAINST]].sum())
        return yes, no, int(weights[rest[support[cartel:] == ABSTAIN]].sum())

    wins = [passed(*ours(k), earned, quorum_bps) for k in range(VOTERS + 1)]
    cartel = wins.index(True)
    for members, state in ((cartel, SUCCEEDED), (cartel - 1, DEFEATED)):
        with electorate.evm.undone():
            proposal = electorate.open(voters[int(np.argmax(weights))])
            for place, voter in enumerate(order):
                choice = FOR if place < members else int(support[place])
                if choice >= 0:
                    electorate.vote(voters[voter], proposal, choice)
            assert electorate.tally(proposal) == ours(members)
            electorate.end()
            assert electorate.state(proposal) == state


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=60), st.floats(0, 1), st.floats(0, 1))
def test_the_least_cartel_passes_and_one_member_less_does_not(
    parts: list[int], turnout: float, against: float
) -> None:
    vote = Vote(trials=1, turnout=turnout, against=against, cartel="richest")
    weights = np.array(parts, np.int64)
    found = least(vote, weights, np.random.Generator(np.random.Philox(key=1)))
    assert 1 <= found.leaves <= len(parts)
    richest = sorted(parts, reverse=True)
    assert found.share == pytest.approx(sum(richest[: found.leaves]) / sum(parts))
    assert sum(richest[: found.leaves]) * 10_000 >= sum(parts) * LOCAL.quorum_bps * (1 - 1e-9) or (
        turnout * (1 - against) > 0
    )


def test_the_shipped_vote_needs_what_honest_voters_leave() -> None:
    """With turnout t, against, a cartel of c passes from c = (1 - c) t on, if the quorum is met."""
    run = open_driver(base(source_of("governance-capture")), 1)
    run.run()
    share = run.summary()["governance"]["cartel_share"]
    turnout = run.scenario.governance.turnout
    assert share["p50"] == pytest.approx(turnout / (1 + turnout), abs=0.02)
    assert share["p5"] <= share["p50"] <= share["p95"]


def test_without_honest_votes_the_quorum_is_what_is_needed() -> None:
    weights = np.full(1_000, 1_000, np.int64)
    vote = Vote(trials=3, turnout=0.0)
    figures = capture(vote, weights, 0.1, np.random.Generator(np.random.Philox(key=1)))
    assert figures["cartel_share"]["p50"] == LOCAL.quorum_bps / 10_000
    assert figures["proposers"] == 0  # nobody of a thousand alike has earned a hundredth
    everybody = Vote(trials=3, turnout=1.0)
    figures = capture(everybody, weights, 0.1, np.random.Generator(np.random.Philox(key=1)))
    assert figures["cartel_share"]["p50"] == 0.501
