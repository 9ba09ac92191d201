"""Proposals from their making to what they do, and every step that is refused."""

from typing import Any

import pytest

from assay_contracts import calls
from assay_contracts.local.genesis import contract_address
from contracts.electorate import (
    ABSTAIN,
    ACTIVE,
    AGAINST,
    DEFEATED,
    DENY,
    EXECUTED,
    EXPIRED,
    FOR,
    GOVERNANCE,
    MODEL,
    MODELS,
    NONE,
    PENDING,
    QUEUED,
    SUCCEEDED,
    TIMELOCK,
    Electorate,
    Voter,
    shared_electorate,
)
from contracts.evm import DEPLOYER, NOBODY, Refused
from contracts.network_evm import NetworkEvm

ANN, BEN, CAM = (Voter(number) for number in (1, 2, 3))


@shared_electorate
def voters() -> Electorate:
    """Ann earned 300, Ben 200, Cam 500 in the span of three epochs; before it, other sums."""
    made = Electorate()
    for voter in (ANN, BEN, CAM):
        made.bind(voter)
    made.earn({ANN: 5_000, BEN: 1})
    made.earn({ANN: 100, BEN: 200})
    made.earn({ANN: 200, CAM: 400})
    made.earn({CAM: 100})
    return made


def test_a_proposal_from_the_first_word_to_the_deed(voters: Electorate) -> None:
    proposal = voters.propose(ANN)
    ((name, event),) = voters.evm.events(GOVERNANCE)
    assert (name, event["id"], event["proposer"]) == ("Proposed", proposal, ANN.payee)
    assert (event["epochNow"], event["epochThen"]) == (4, 1)
    assert voters.state(proposal) == PENDING
    assert voters.refused_vote(ANN, proposal) == "WrongState"
    voters.evm.pass_time(voters.evm.wiring.voting_delay)
    assert voters.state(proposal) == ACTIVE
    assert [voters.vote(who, proposal) for who in (ANN, BEN)] == [300, 200]
    assert voters.vote(CAM, proposal, AGAINST) == 500
    assert voters.tally(proposal) == (500, 500, 0)


def test_it_passes_waits_and_is_done(voters: Electorate) -> None:
    proposal = voters.open(ANN)
    voters.vote(ANN, proposal)
    targets, payloads, _ = voters.actions(DENY)
    queue = (GOVERNANCE, "queue", proposal, targets, payloads)
    execute = (GOVERNANCE, "execute", proposal, targets, payloads)
    assert voters.evm.refused(DEPLOYER, *queue) == "WrongState"
    voters.end()
    assert voters.state(proposal) == SUCCEEDED
    assert voters.refused_vote(BEN, proposal) == "WrongState"
    assert voters.evm.refused(DEPLOYER, *execute) == "WrongState"
    voters.evm.send(DEPLOYER, *queue)
    ready = voters.evm.now + voters.evm.wiring.timelock_delay
    assert voters.evm.events(GOVERNANCE) == [("Queued", {"id": proposal, "executableFrom": ready})]
    assert voters.evm.ask(GOVERNANCE, "executableFrom", proposal) == ready
    assert voters.state(proposal) == QUEUED
    assert voters.evm.refused(DEPLOYER, *queue) == "WrongState"
    voters.evm.pass_time(voters.evm.wiring.timelock_delay - 1)
    assert voters.evm.refused(DEPLOYER, *execute) == "TimelockUnexpectedOperationState"
    assert voters.evm.ask(MODELS, "mayServe", MODEL)
    voters.evm.pass_time(1)
    voters.evm.send(NOBODY, *execute)
    assert not voters.evm.ask(MODELS, "mayServe", MODEL)
    assert voters.state(proposal) == EXECUTED
    assert voters.evm.refused(NOBODY, *execute) == "WrongState"


def test_anybody_may_execute_at_the_timelock_itself(voters: Electorate) -> None:
    proposal = voters.open(ANN)
    voters.vote(ANN, proposal)
    voters.end()
    targets, payloads, _ = voters.actions(DENY)
    voters.evm.send(DEPLOYER, GOVERNANCE, "queue", proposal, targets, payloads)
    voters.evm.pass_time(voters.evm.wiring.timelock_delay)
    salt = proposal.to_bytes(32)
    batch = (targets, [0], payloads, bytes(32), salt)
    voters.evm.send(NOBODY, TIMELOCK, "executeBatch", *batch)
    assert voters.state(proposal) == EXECUTED


@pytest.mark.parametrize(
    ("votes", "outcome"),
    [
        ({}, DEFEATED),
        ({BEN: FOR}, SUCCEEDED),  # 200 of 1,000 is the quorum
        ({BEN: ABSTAIN}, DEFEATED),
        ({BEN: AGAINST}, DEFEATED),
        ({ANN: FOR, CAM: AGAINST}, DEFEATED),
        ({CAM: FOR, ANN: AGAINST, BEN: AGAINST}, DEFEATED),  # 500 against 500
        ({CAM: FOR, ANN: AGAINST}, SUCCEEDED),
        ({ANN: FOR, CAM: ABSTAIN}, SUCCEEDED),
        ({ANN: FOR, BEN: AGAINST, CAM: ABSTAIN}, SUCCEEDED),
    ],
    ids=str,
)
def test_more_for_than_against_and_a_quorum(
    voters: Electorate, votes: dict[Voter, int], outcome: int
) -> None:
    proposal = voters.open(ANN)
    assert voters.evm.ask(GOVERNANCE, "quorumOf", proposal) == 200
    for voter, support in votes.items():
        voters.vote(voter, proposal, support)
    voters.end()
    assert voters.state(proposal) == outcome


def test_the_quorum_is_rounded_up(voters: Electorate) -> None:
    voters.earn({BEN: 1})
    voters.earn({BEN: 20})  # with Cam's 100: 121 in the span, and a fifth is 24.2
    proposal = voters.open(BEN)
    assert voters.evm.ask(GOVERNANCE, "quorumOf", proposal) == 25
    assert voters.vote(BEN, proposal) == 21
    voters.end()
    assert voters.state(proposal) == DEFEATED


def test_what_passed_is_queued_within_a_period_or_lapses(voters: Electorate) -> None:
    proposal = voters.open(CAM)
    voters.vote(CAM, proposal)
    voters.end()
    voters.evm.pass_time(voters.evm.wiring.voting_period - 1)
    assert voters.state(proposal) == SUCCEEDED
    voters.evm.pass_time(1)
    assert voters.state(proposal) == EXPIRED
    targets, payloads, _ = voters.actions(DENY)
    refused = voters.evm.refused(DEPLOYER, GOVERNANCE, "queue", proposal, targets, payloads)
    assert refused == "WrongState"


def test_only_what_was_voted_on_is_queued_and_done(voters: Electorate) -> None:
    proposal = voters.open(CAM)
    voters.vote(CAM, proposal)
    voters.end()
    other = (MODELS, calls.encode(MODELS, "setModel", MODEL, True, []))
    for acts in ((other,), (DENY, DENY), (("CreditToken", DENY[1]),)):
        targets, payloads, _ = voters.actions(*acts)
        refused = voters.evm.refused(DEPLOYER, GOVERNANCE, "queue", proposal, targets, payloads)
        assert refused == "OtherActions"
    good = voters.actions(DENY)[:2]
    voters.evm.send(DEPLOYER, GOVERNANCE, "queue", proposal, *good)
    voters.evm.pass_time(voters.evm.wiring.timelock_delay)
    wrong = voters.actions(other)[:2]
    refused = voters.evm.refused(DEPLOYER, GOVERNANCE, "execute", proposal, *wrong)
    assert refused == "OtherActions"


def test_every_act_in_governance_s_power(voters: Electorate) -> None:
    """In one proposal, as the timelock alone may."""
    acts = (
        ("NodeRegistry", calls.encode("NodeRegistry", "setMinBond", 77)),
        ("CreditLedger", calls.encode("CreditLedger", "setHoldersRequired", 3)),
        (MODELS, calls.encode(MODELS, "setOpen", False)),
        (MODELS, calls.encode(MODELS, "setModeration", bytes([1]) * 32, 1)),
        (MODELS, calls.encode(MODELS, "setModel", MODEL, True, [(ANN.account, 1, 500)])),
    )
    proposal = voters.open(CAM, *acts)
    voters.vote(CAM, proposal)
    voters.end()
    voters.carry(proposal, *acts)
    assert voters.evm.ask("NodeRegistry", "minBond") == 77
    assert voters.evm.ask("CreditLedger", "holdersRequired") == 3
    assert voters.evm.ask(MODELS, "version") == 3


def test_an_act_that_fails_undoes_the_others_and_may_be_tried_again(voters: Electorate) -> None:
    acts = (DENY, ("NodeRegistry", calls.encode("NodeRegistry", "setMinBond", 1_000_000)))
    proposal = voters.open(CAM, *acts)
    voters.vote(CAM, proposal)
    voters.end()
    targets, payloads, _ = voters.actions(*acts)
    voters.evm.send(DEPLOYER, GOVERNANCE, "queue", proposal, targets, payloads)
    voters.evm.pass_time(voters.evm.wiring.timelock_delay)
    execute = (GOVERNANCE, "execute", proposal, targets, payloads)
    assert voters.evm.refused(DEPLOYER, *execute) == "BondOutOfCaps"
    assert voters.evm.ask(MODELS, "mayServe", MODEL)
    assert voters.state(proposal) == QUEUED


@pytest.mark.parametrize("target", [TIMELOCK, GOVERNANCE, "SlashCourt", "Ed25519Verifier"])
def test_a_target_that_is_not_listed_is_refused(voters: Electorate, target: str) -> None:
    actions = voters.actions(DENY, (target, b""))
    refused = voters.evm.refused(ANN.payee, GOVERNANCE, "propose", actions, *voters.ballot(ANN))
    assert refused == "BadTarget"


@pytest.mark.parametrize(
    "actions",
    [
        ([], [], ""),
        (["model"], [], ""),
        (["model"] * 2, [b""], ""),
        (["model"] * 17, [b""] * 17, ""),
        (["model"], [bytes(4_097)], ""),
        (["model"], [b""], "x" * 1_025),
    ],
    ids=lambda actions: str([len(part) for part in actions]),
)
def test_what_a_proposal_holds_is_bounded(voters: Electorate, actions: Any) -> None:
    targets = [voters.evm.at[MODELS] for _ in actions[0]]
    given = (targets, *actions[1:])
    refused = voters.evm.refused(ANN.payee, GOVERNANCE, "propose", given, *voters.ballot(ANN))
    assert refused == "BadActions"


def test_the_largest_proposal_is_accepted(voters: Electorate) -> None:
    actions = ([voters.evm.at[MODELS]] * 16, [bytes(4_096)] * 16, "x" * 1_024)
    voters.evm.send(ANN.payee, GOVERNANCE, "propose", actions, *voters.ballot(ANN))


def test_who_proposes_must_have_earned_enough(voters: Electorate) -> None:
    dot = Voter(4)
    voters.bind(dot)
    voters.earn({dot: 5, ANN: 900})
    refused = voters.evm.refused(
        dot.payee, GOVERNANCE, "propose", voters.actions(DENY), *voters.ballot(dot)
    )
    assert refused == "TooLittleToPropose"
    assert voters.propose(CAM)


def test_without_a_final_epoch_there_is_no_governance() -> None:
    voters = Electorate()
    voters.bind(ANN)
    voters.earn_as({(ANN, 0): 5}, final=False)
    arguments = (voters.actions(DENY), *voters.ballot(ANN))
    refused = voters.evm.refused(ANN.payee, GOVERNANCE, "propose", *arguments)
    assert refused == "NoFinalEpoch"
    voters.evm.pass_time(voters.evm.wiring.window)
    proposal = voters.open(ANN)
    assert voters.vote(ANN, proposal) == 5  # the span begins before the first epoch
    voters.end()
    voters.carry(proposal)


def test_an_epoch_without_earnings_decides_nothing(voters: Electorate) -> None:
    for _ in range(3):
        voters.earn({})
    refused = voters.evm.refused(
        ANN.payee, GOVERNANCE, "propose", voters.actions(DENY), *voters.ballot(ANN)
    )
    assert refused == "NoWeight"


def test_unknown_proposals_and_supports(voters: Electorate) -> None:
    proposal = voters.open(ANN)
    assert voters.state(proposal + 1) == NONE
    assert voters.refused_vote(ANN, proposal, support=3) == "BadSupport"
    refused = voters.evm.refused(
        ANN.payee, GOVERNANCE, "vote", proposal + 1, FOR, *voters.ballot(ANN)
    )
    assert refused == "WrongState"
    for function in ("queue", "execute"):
        refused = voters.evm.refused(DEPLOYER, GOVERNANCE, function, 99, [], [])
        assert refused == "WrongState"


def test_governance_follows_the_ledger_that_the_token_names(voters: Electorate) -> None:
    evm = voters.evm
    config = evm.plan.ledger_config(evm.at["CreditLedger"], 4)
    next_ledger = evm.create(calls.constructor("CreditLedger", config))
    act = ("CreditToken", calls.encode("CreditToken", "setMinter", next_ledger))
    proposal = voters.open(CAM, act)
    voters.vote(CAM, proposal)
    voters.end()
    good = voters.actions(act)[:2]
    evm.send(DEPLOYER, GOVERNANCE, "queue", proposal, *good)
    running = voters.open(CAM)
    evm.pass_time(evm.wiring.timelock_delay - evm.wiring.voting_delay)
    evm.send(DEPLOYER, GOVERNANCE, "execute", proposal, *good)
    assert voters.vote(CAM, running) == 500
    evm.at["CreditLedger"] = next_ledger
    voters.earn({BEN: 50})
    proposal = voters.open(BEN)
    act = ("CreditLedger", calls.encode("CreditLedger", "setHoldersRequired", 0))
    assert voters.propose(BEN, act)  # the ledger of the day may be called, list or no list
    assert voters.vote(BEN, proposal) == 50  # epoch 2, of the old ledger, to 5, of the new one
    assert voters.vote(CAM, proposal) == 500


@pytest.mark.parametrize(
    "bent",
    [{"span": 0}, {"period": 0}, {"quorumBps": 0}, {"quorumBps": 10_001}, {"proposerBps": 10_001}],
    ids=str,
)
def test_governance_cannot_be_told_nonsense(bent: dict[str, int]) -> None:
    evm = NetworkEvm()
    config, targets = evm.plan.arguments()[GOVERNANCE]
    with pytest.raises(Refused, match="BadConfig"):
        evm.create(calls.constructor(GOVERNANCE, config | bent, targets))


@pytest.mark.parametrize(
    ("listed", "error"),
    [
        ([], "BadConfig"),
        ([bytes([n]) * 20 for n in range(1, 10)], "BadConfig"),
        ([NOBODY], "BadTarget"),
        ([bytes([1]) * 20] * 2, "BadTarget"),
        ([contract_address(DEPLOYER, 6)], "BadTarget"),  # the timelock
        ([contract_address(DEPLOYER, 8)], "BadTarget"),  # itself
    ],
)
def test_no_such_targets_can_be_listed(listed: list[bytes], error: str) -> None:
    evm = NetworkEvm()
    config, _ = evm.plan.arguments()[GOVERNANCE]
    with pytest.raises(Refused, match=error):
        evm.create(calls.constructor(GOVERNANCE, config, listed))
