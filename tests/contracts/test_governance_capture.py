"""Ways to take the network over that must not work."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay_contracts import calls
from contracts.books import Books
from contracts.electorate import (
    ACTIVE,
    AGAINST,
    DENY,
    FOR,
    GOVERNANCE,
    TIMELOCK,
    Electorate,
    Voter,
    shared_electorate,
)
from contracts.evm import DEPLOYER, NOBODY
from contracts.network_evm import registration

ANN, BEN, EVE = (Voter(number) for number in (1, 2, 9))
AUDITOR, TREASURY = 4, 5


@shared_electorate
def voters() -> Electorate:
    """Ann 100 and Ben 100 in the span; Eve earned nothing in it, but much long ago."""
    made = Electorate()
    for voter in (ANN, BEN, EVE):
        made.bind(voter)
    made.earn({EVE: 10_000})
    for _ in range(2):
        made.earn({ANN: 50, BEN: 30})
    made.earn({BEN: 40})
    return made


def test_credit_of_an_epoch_that_is_not_final_proposes_nothing(voters: Electorate) -> None:
    epoch = voters.earn_as({(EVE, 0): 1_000_000}, final=False)
    places = voters.place(EVE, epoch), voters.place(EVE, epoch - 3)
    arguments = (voters.actions(DENY), *places)
    assert voters.evm.refused(EVE.payee, GOVERNANCE, "propose", *arguments) == "NotInTree"


def test_credit_earned_after_the_proposal_does_not_vote(voters: Electorate) -> None:
    proposal = voters.open(ANN)
    voters.evm.pass_time(0)
    epoch = voters.earn_as({(EVE, 0): 1_000_000}, final=False)
    late = voters.place(EVE, epoch), voters.place(EVE, 1)
    assert voters.refused_vote(EVE, proposal, late) == "NotInTree"


def test_credit_that_became_final_meanwhile_does_not_vote(voters: Electorate) -> None:
    epoch = voters.earn_as({(EVE, 0): 1_000_000}, final=False)
    voters.evm.pass_time(voters.evm.wiring.window - voters.evm.wiring.voting_delay - 1)
    proposal = voters.open(ANN)
    voters.evm.pass_time(10)
    assert voters.evm.ask("CreditLedger", "isFinal", epoch)
    assert voters.state(proposal) == ACTIVE
    late = voters.place(EVE, epoch), voters.place(EVE, 1)
    assert voters.refused_vote(EVE, proposal, late) == "NotInTree"
    assert voters.refused_vote(EVE, proposal) == "NoWeight"


def test_credit_from_before_the_span_does_not_vote(voters: Electorate) -> None:
    proposal = voters.open(ANN)
    assert voters.refused_vote(EVE, proposal) == "NoWeight"
    now, _ = voters.ballot(EVE, proposal)
    pretended = (
        (now, (now[0], 99, now[2])),  # another index
        (now, voters.place(ANN, 4)),  # another leaf, which has its place there
        ((now[0], 7, now[2]), voters.place(EVE, 1)),  # a place that is beyond the old tree
        (now, voters.place(EVE, 3)),  # the right leaf, of another epoch
    )
    errors = [voters.refused_vote(EVE, proposal, ballot) for ballot in pretended]
    assert errors == ["OtherLeaf", "OtherLeaf", "NotInTree", "NotInTree"]


def test_a_lowered_past_is_no_leaf_of_the_past(voters: Electorate) -> None:
    proposal = voters.open(ANN)
    now, (leaf, index, proof) = voters.ballot(BEN, proposal)
    assert leaf.account == EVE.account  # epoch 1 holds Eve alone: Ben was not yet there
    _, then = voters.ballot(EVE, proposal)
    lowered = (replace(then[0], cumulative=0), then[1], then[2])
    eve_now = voters.place(EVE, 4)
    assert voters.refused_vote(EVE, proposal, (eve_now, lowered)) == "NotInTree"
    raised = (replace(now[0], cumulative=10**9), now[1], now[2])
    assert voters.refused_vote(BEN, proposal, (raised, then)) == "NotInTree"
    assert (index, proof) == (0, b"")


def test_a_leaf_votes_once(voters: Electorate) -> None:
    proposal = voters.open(ANN)
    voters.vote(ANN, proposal)
    for support in (FOR, AGAINST):
        assert voters.refused_vote(ANN, proposal, support=support) == "AlreadyVoted"
    voters.vote(BEN, proposal, AGAINST)
    assert voters.tally(proposal) == (100, 100, 0)


def test_a_leaf_votes_once_whoever_is_its_payee(voters: Electorate) -> None:
    proposal = voters.open(ANN)
    voters.vote(ANN, proposal)
    voters.bind(ANN, EVE.payee)
    ballot = voters.ballot(ANN, proposal)
    assert voters.refused_vote(EVE, proposal, ballot) == "AlreadyVoted"
    voters.bind(ANN)
    assert voters.refused_vote(ANN, proposal) == "AlreadyVoted"
    assert voters.tally(proposal) == (100, 0, 0)


def test_who_votes_is_who_is_paid_when_it_votes(voters: Electorate) -> None:
    """An account that names another payee before it votes hands its one vote over, not a copy."""
    proposal = voters.open(ANN)
    voters.bind(BEN, EVE.payee)
    assert voters.refused_vote(BEN, proposal) == "NotPayee"
    ballot = voters.ballot(BEN, proposal)
    voters.evm.send(EVE.payee, GOVERNANCE, "vote", proposal, FOR, *ballot)
    voters.bind(BEN)
    assert voters.refused_vote(BEN, proposal) == "AlreadyVoted"
    assert voters.tally(proposal) == (100, 0, 0)


def test_an_account_without_a_payee_has_no_vote(voters: Electorate) -> None:
    fay = Voter(10)
    voters.earn({fay: 500})
    proposal = voters.open(ANN)
    assert voters.refused_vote(fay, proposal) == "NotPayee"


def test_the_treasury_has_no_vote_and_an_auditor_has_one(voters: Electorate) -> None:
    voters.earn_as({(ANN, TREASURY): 10_000, (ANN, AUDITOR): 7, (ANN, 0): 1})
    ballot = voters.ballot(ANN, role=TREASURY)
    arguments = (voters.actions(DENY), *ballot)
    assert voters.evm.refused(ANN.payee, GOVERNANCE, "propose", *arguments) == "NoVoteForRole"
    dot = Voter(11)
    voters.bind(dot)
    voters.earn_as({(dot, 0): 900})
    proposal = voters.open(dot)
    ballot = voters.ballot(ANN, proposal, role=TREASURY)
    assert voters.refused_vote(ANN, proposal, ballot) == "NoVoteForRole"
    assert voters.vote(ANN, proposal, role=AUDITOR) == 7
    assert voters.vote(ANN, proposal) == 1  # another leaf, another vote


def test_the_treasury_s_credit_raises_the_quorum_it_cannot_meet(voters: Electorate) -> None:
    """It is part of what was earned: a fifth of all, not of what may vote."""
    voters.earn_as({(EVE, TREASURY): 840})
    proposal = voters.open(ANN)
    assert voters.evm.ask(GOVERNANCE, "quorumOf", proposal) == (840 + 50 + 70) / 5


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=7))
def test_splitting_into_identities_gains_nothing(parts: list[int]) -> None:
    """One account with all, or one for each part: the same weight to a unit. Linear, so for any
    number of identities."""
    whole, rest = Voter(100), Voter(99)
    split = [Voter(101 + n) for n in range(len(parts))]
    voters = Electorate()
    for voter in (whole, rest, *split):
        voters.bind(voter)
    voters.earn({whole: sum(parts), rest: 3, **dict(zip(split, parts, strict=True))})
    proposal = voters.open(whole)
    voters.vote(whole, proposal, FOR)
    for voter in split:
        voters.vote(voter, proposal, AGAINST)
    assert voters.tally(proposal) == (sum(parts), sum(parts), 0)


def test_the_proposer_cannot_choose_the_span(voters: Electorate) -> None:
    """Were epochs left unsettled, an old one could be taken for the newest."""
    books = voters.books
    for _ in range(70):
        voters.earn_as({(BEN, 0): 1}, final=False)
    voters.evm.pass_time(voters.evm.wiring.window)
    arguments = (voters.actions(DENY), *voters.ballot(BEN))
    assert voters.evm.refused(BEN.payee, GOVERNANCE, "propose", *arguments) == "UnsettledEpochs"
    voters.evm.send(NOBODY, "CreditLedger", "settle", 50)
    proposal = voters.propose(BEN)
    assert voters.evm.ask(GOVERNANCE, "proposals", proposal)[1] == len(books.epochs) - 1
    assert isinstance(books, Books)


# ---- around the vote ----


def test_nobody_but_governance_schedules_and_nobody_cancels(voters: Electorate) -> None:
    evm = voters.evm
    target, payload = evm.at["CreditToken"], calls.encode("CreditToken", "setMinter", EVE.payee)
    batch = ([target], [0], [payload], bytes(32), bytes(32), evm.wiring.timelock_delay)
    proposal = voters.open(ANN)
    voters.vote(ANN, proposal)
    voters.end()
    acts = voters.actions(DENY)[:2]
    evm.send(DEPLOYER, GOVERNANCE, "queue", proposal, *acts)
    operation = evm.ask(GOVERNANCE, "proposals", proposal)[4]
    for who in (DEPLOYER, EVE.payee, ANN.payee):
        for function, arguments in (
            ("scheduleBatch", batch),
            ("cancel", (operation,)),
            ("grantRole", (bytes(32), who)),
            ("grantRole", (evm.ask(TIMELOCK, "PROPOSER_ROLE"), who)),
        ):
            refused = evm.refused(who, TIMELOCK, function, *arguments)
            assert refused == "AccessControlUnauthorizedAccount"
        assert evm.refused(who, TIMELOCK, "updateDelay", 0) == "TimelockUnauthorizedCaller"
        execute = ([target], [0], [payload], bytes(32), bytes(32))
        refused = evm.refused(who, TIMELOCK, "executeBatch", *execute)
        assert refused == "TimelockUnexpectedOperationState"


def test_the_timelock_s_roles_are_governance_s_alone(voters: Electorate) -> None:
    evm = voters.evm
    admin = bytes(32)
    proposer, canceller, executor = (
        evm.ask(TIMELOCK, role) for role in ("PROPOSER_ROLE", "CANCELLER_ROLE", "EXECUTOR_ROLE")
    )
    holders = {
        role: [
            name
            for name, who in {**evm.at, "nobody": NOBODY, "deployer": DEPLOYER}.items()
            if evm.ask(TIMELOCK, "hasRole", role, who)
        ]
        for role in (admin, proposer, canceller, executor)
    }
    assert holders == {
        admin: [TIMELOCK],  # which is no target, so no proposal reaches it
        proposer: [GOVERNANCE],
        canceller: [GOVERNANCE],  # which has no function that cancels
        executor: ["nobody"],  # that is anybody
    }
    assert not evm.ask(GOVERNANCE, "isTarget", evm.at[TIMELOCK])


def test_a_timelock_that_is_made_minter_is_no_target(voters: Electorate) -> None:
    """The ledger of the day may be called; that must not open the way to the timelock's roles."""
    evm = voters.evm
    act = ("CreditToken", calls.encode("CreditToken", "setMinter", evm.at[TIMELOCK]))
    proposal = voters.open(ANN, act)
    for voter in (ANN, BEN):
        voters.vote(voter, proposal)
    voters.end()
    voters.carry(proposal, act)
    assert evm.ask("CreditToken", "minter") == evm.at[TIMELOCK]
    grant = calls.encode(TIMELOCK, "grantRole", bytes(32), EVE.payee)
    arguments = (voters.actions((TIMELOCK, grant)), *voters.ballot(ANN))
    assert evm.refused(ANN.payee, GOVERNANCE, "propose", *arguments) == "BadTarget"


def test_a_consent_of_another_account_binds_nothing(voters: Electorate) -> None:
    """Else a vote could be taken with its account's pay."""
    consent = registration(voters.evm, EVE.identity, EVE.payee, "Bind")
    arguments = (ANN.account, EVE.payee, consent)
    assert voters.evm.refused(EVE.payee, "NodeRegistry", "bind", *arguments) == "BadSignature"
