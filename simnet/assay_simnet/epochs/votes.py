"""What share of credit a cartel must hold to pass a rule change: the contract's count, for arrays.

Governance.sol decides: a leaf weighs what it earned in the span; it passes if for > against and for
+ abstained reach the quorum, which is of all that was earned in the span. The parameters are those
of production's deployments. `passed` is held to the real contract by a test that casts hundreds of
votes on it. The cartel's members all vote for, honest ones with the scenario's turnout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from assay_contracts.deploy.plan import BPS, LOCAL, PUBLIC, Parameters
from assay_simnet.economy import Vote
from assay_simnet.epochs.chances import Wholes
from assay_simnet.epochs.purses import exact_sum

PARAMETERS: Final[dict[str, Parameters]] = {"local": LOCAL, "public": PUBLIC}


def passed(yes: int, no: int, abstained: int, earned: int, quorum_bps: int) -> bool:
    """As the contract has it: a quorum is rounded up."""
    return yes > no and yes + abstained >= quorum(earned, quorum_bps)


def quorum(earned: int, quorum_bps: int) -> int:
    return -(-earned * quorum_bps // BPS)


def span_us(vote: Vote, epoch_us: int) -> int:
    """How long the span is whose earnings vote, for epochs of that length."""
    return PARAMETERS[vote.network].span * epoch_us


@dataclass(frozen=True)
class Captured:
    """One vote by chance: the least cartel, as a share of what was earned, and in leaves."""

    share: float
    leaves: int


def least(vote: Vote, weights: Wholes, chance: np.random.Generator) -> Captured:
    """Members are won over one by one, at random or the richest first, until it passes."""
    earned = exact_sum(weights)
    order = chance.permutation(len(weights))
    if vote.cartel == "richest":
        order = order[np.argsort(-weights[order], kind="stable")]
    ordered = weights[order]
    votes = chance.random(len(ordered)) < vote.turnout
    against = votes & (chance.random(len(ordered)) < vote.against)
    yes = ordered.cumsum()
    no = exact_sum(np.where(against, ordered, 0)) - np.where(against, ordered, 0).cumsum()
    aside = votes & ~against
    abstained = exact_sum(np.where(aside, ordered, 0)) - np.where(aside, ordered, 0).cumsum()
    wins = (yes > no) & (yes + abstained >= quorum(earned, PARAMETERS[vote.network].quorum_bps))
    first = int(np.argmax(wins))
    assert wins[first], "all leaves together always win"
    return Captured(int(yes[first]) / earned, first + 1)


def capture(
    vote: Vote, weights: Wholes, fee_share: float, chance: np.random.Generator
) -> dict[str, Any]:
    """Figures of all trials. `weights`: credit earned in the span, of each leaf that may vote;
    `fee_share`: what of a price its node does not get."""
    rules = PARAMETERS[vote.network]
    weights = weights[weights > 0]
    if not vote.trials or not len(weights):
        return {}
    earned = exact_sum(weights)
    found = [least(vote, weights, chance) for _ in range(vote.trials)]
    shares = sorted(one.share for one in found)
    middle = shares[len(shares) // 2]
    own = middle / (1 - middle) * earned if middle < 1 else float("inf")
    return {
        "leaves": len(weights),
        "earned": earned,
        "proposers": int((weights * BPS >= earned * rules.proposer_bps).sum())
        if earned < 1 << 48
        else sum(int(one) * BPS >= earned * rules.proposer_bps for one in weights),
        "quorum": quorum(earned, rules.quorum_bps),
        "cartel_share": {
            "p5": round(shares[len(shares) * 5 // 100], 5),
            "p50": round(middle, 5),
            "p95": round(shares[len(shares) * 95 // 100], 5),
        },
        "cartel_leaves": sorted(one.leaves for one in found)[len(found) // 2],
        # a newcomer that buys answers of its own nodes until it has that share pays this in fees
        "wash_fee": round(own * fee_share / max(1e-12, 1 - fee_share)),
    }
