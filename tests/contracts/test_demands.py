"""Data that is kept back: leaves are demanded, shown, or the epoch goes."""

import pytest

from assay_protocol.credit_tree import CreditLeaf
from contracts.books import Books, Epoch, account
from contracts.evm import DEPLOYER, TIMELOCK, Evm

ALICE, BOB = (bytes([n]) * 20 for n in (0xA1, 0xB0))
LEDGER = "CreditLedger"
LEAVES = 20


@pytest.fixture
def evm() -> Evm:
    made = Evm()
    made.give(ALICE, 10_000, LEDGER)
    return made


@pytest.fixture
def epoch(evm: Evm) -> Epoch:
    """Posted as epoch 1."""
    made = Books().book({(account(i), 0): [i + 1] for i in range(LEAVES)})
    evm.send(DEPLOYER, LEDGER, "post", 1, made.header())
    return made


def demand(evm: Evm, index: int) -> None:
    evm.send(ALICE, LEDGER, "demand", 1, index)


def answer(evm: Evm, epoch: Epoch, index: int) -> None:
    evm.send(BOB, LEDGER, "answer", 1, epoch.place(index))


def test_an_answer_costs_the_bond_and_goes_to_the_poster(evm: Evm, epoch: Epoch) -> None:
    demand(evm, 3)
    ((name, event),) = evm.events(LEDGER)
    assert (name, event["index"], event["deadline"]) == ("Demanded", 3, evm.now + 300)
    bond = evm.wiring.demand_bond
    assert (evm.balance(ALICE), evm.balance(evm.at[LEDGER])) == (10_000 - bond, bond)
    answer(evm, epoch, 3)
    assert evm.events(LEDGER)[0][0] == "Answered"
    assert (evm.balance(DEPLOYER), evm.balance(evm.at[LEDGER])) == (bond, 0)
    assert evm.ask(LEDGER, "progress", 1)[3] == 0
    demand(evm, 3)  # what was answered can be asked again, for another bond


def test_an_open_demand_keeps_the_epoch_open_and_an_answer_leaves_time_to_challenge(
    evm: Evm, epoch: Epoch
) -> None:
    evm.pass_time(evm.wiring.window - 1)
    demand(evm, 3)
    evm.pass_time(250)
    assert not evm.ask(LEDGER, "isFinal", 1)
    answer(evm, epoch, 3)
    evm.pass_time(evm.wiring.demand_seconds - 1)
    assert not evm.ask(LEDGER, "isFinal", 1)
    evm.pass_time(1)
    assert evm.ask(LEDGER, "isFinal", 1)
    assert evm.refused(ALICE, LEDGER, "demand", 1, 4) == "EpochIsFinal"


def test_an_early_answer_does_not_shorten_the_window(evm: Evm, epoch: Epoch) -> None:
    demand(evm, 3)
    answer(evm, epoch, 3)
    evm.pass_time(evm.wiring.window - 1)
    assert not evm.ask(LEDGER, "isFinal", 1)


def test_an_answer_does_not_stand_in_for_holders(evm: Evm) -> None:
    evm.send(TIMELOCK, LEDGER, "setHoldersRequired", 1)
    epoch = Books().book({(account(1), 0): [5]})
    evm.send(DEPLOYER, LEDGER, "post", 1, epoch.header())
    demand(evm, 0)
    answer(evm, epoch, 0)
    evm.pass_time(10 * evm.wiring.window)
    assert not evm.ask(LEDGER, "isFinal", 1)


def test_who_fills_all_places_keeps_the_epoch_open_and_the_next_asker_in(
    evm: Evm, epoch: Epoch
) -> None:
    """A poster may demand of itself to keep others out, up to the last second of the window."""
    most = evm.ask(LEDGER, "DEMANDS_MAX")
    evm.pass_time(evm.wiring.window - 1)
    for index in range(most):
        demand(evm, index)
    assert evm.refused(ALICE, LEDGER, "demand", 1, most) == "TooManyDemands"
    evm.pass_time(evm.wiring.demand_seconds)
    answer(evm, epoch, 0)
    demand(evm, most)
    assert evm.ask(LEDGER, "progress", 1)[3] == most


def test_a_demand_that_nobody_answers_voids_the_epoch(evm: Evm, epoch: Epoch) -> None:
    demand(evm, 3)
    evm.pass_time(evm.wiring.demand_seconds)
    assert evm.refused(BOB, LEDGER, "expire", 1, 3) == "TooEarly"
    evm.pass_time(1)
    assert evm.refused(BOB, LEDGER, "expire", 1, 4) == "NoDemand"
    evm.send(BOB, LEDGER, "expire", 1, 3)
    names = [name for name, _ in evm.events(LEDGER)]
    assert names == ["EpochVoided", "DemandReturned"]
    assert evm.events(LEDGER)[0][1]["slashed"] == 0
    assert (evm.balance(ALICE), evm.ask(LEDGER, "head")) == (10_000, 0)
    assert evm.refused(BOB, LEDGER, "expire", 1, 3) == "UnknownEpoch"
    assert evm.refused(BOB, LEDGER, "answer", 1, epoch.place(3)) == "UnknownEpoch"


def test_a_late_answer_serves_if_nobody_was_faster(evm: Evm, epoch: Epoch) -> None:
    demand(evm, 3)
    evm.pass_time(evm.wiring.demand_seconds + 100)
    answer(evm, epoch, 3)
    assert evm.refused(BOB, LEDGER, "expire", 1, 3) == "NoDemand"


def test_the_bonds_of_other_demands_on_a_void_epoch_come_back(evm: Evm, epoch: Epoch) -> None:
    posted_at = evm.now
    demand(evm, 3)
    demand(evm, 4)
    assert evm.refused(BOB, LEDGER, "refund", 1, 4, posted_at) == "NotVoid"
    evm.pass_time(evm.wiring.demand_seconds + 1)
    evm.send(BOB, LEDGER, "expire", 1, 3)
    with evm.undone():
        evm.send(BOB, LEDGER, "refund", 1, 4, posted_at)
        assert evm.balance(ALICE) == 10_000
        assert evm.refused(BOB, LEDGER, "refund", 1, 4, posted_at) == "NoDemand"
    evm.pass_time(1)
    evm.send(DEPLOYER, LEDGER, "post", 1, epoch.header())
    assert evm.ask(LEDGER, "progress", 1)[3] == 0, "the old demand does not bind the new epoch"
    demand(evm, 4)
    evm.send(BOB, LEDGER, "refund", 1, 4, posted_at)
    assert evm.balance(ALICE) == 10_000 - evm.wiring.demand_bond
    assert evm.refused(BOB, LEDGER, "refund", 1, 4, evm.now) == "NotVoid"


def test_a_demand_is_refused_by_name(evm: Evm, epoch: Epoch) -> None:
    assert evm.refused(ALICE, LEDGER, "demand", 1, LEAVES) == "NotInTree"
    assert evm.refused(ALICE, LEDGER, "demand", 2, 0) == "UnknownEpoch"
    assert evm.refused(BOB, LEDGER, "demand", 1, 0) == "ERC20InsufficientAllowance"
    demand(evm, 0)
    assert evm.refused(ALICE, LEDGER, "demand", 1, 0) == "AlreadyDemanded"


def test_only_the_leaf_itself_is_an_answer(evm: Evm, epoch: Epoch) -> None:
    demand(evm, 3)
    leaf, index, proof = epoch.place(3)
    other = CreditLeaf(leaf.account, leaf.role, 5, leaf.epoch_credit, leaf.receipts_root)
    assert evm.refused(BOB, LEDGER, "answer", 1, (other, index, proof)) == "NotInTree"
    assert evm.refused(BOB, LEDGER, "answer", 1, epoch.place(4)) == "NoDemand"
    assert evm.refused(BOB, LEDGER, "answer", 1, (leaf, 2**32 + 3, proof)) == "NoDemand"
