"""Epochs of the ledger: in order, final in order, and by whose word."""

from dataclasses import replace
from typing import Any

import pytest

from assay_contracts import calls
from assay_contracts.credit.ledger_abi import Header
from contracts.books import NOTHING, Books, account
from contracts.evm import (
    DEPLOYER,
    GOOD,
    NOBODY,
    TIMELOCK,
    Evm,
    Refused,
    Wiring,
    ledger_config,
)

ALICE, BOB = (bytes([n]) * 20 for n in (0xA1, 0xB0))
KEYS = [bytes([n]) * 32 for n in (1, 2, 3)]
LEDGER, REGISTRY = "CreditLedger", "NodeRegistry"


@pytest.fixture
def evm() -> Evm:
    return Evm()


@pytest.fixture
def books() -> Books:
    return Books()


def post(evm: Evm, books: Books, *amounts: int) -> int:
    """The next epoch, in which account i earns amounts[i]; gives its number."""
    epoch = books.book({(account(i), 0): [amount] for i, amount in enumerate(amounts)})
    number: int = evm.ask(LEDGER, "head") + 1
    evm.send(DEPLOYER, LEDGER, "post", number, epoch.header())
    return number


def final(evm: Evm, epoch: int) -> bool:
    found: bool = evm.ask(LEDGER, "isFinal", epoch)
    return found


def void_by_expiry(evm: Evm, epoch: int) -> None:
    """A demand for its first leaf that nobody answers."""
    evm.give(ALICE, evm.wiring.demand_bond, LEDGER)
    evm.send(ALICE, LEDGER, "demand", epoch, 0)
    evm.pass_time(evm.wiring.demand_seconds + 1)
    evm.send(BOB, LEDGER, "expire", epoch, 0)


def nodes(evm: Evm, owner: bytes = ALICE) -> None:
    """All of KEYS become active nodes of `owner`."""
    evm.give(owner, 10_000, REGISTRY)
    for key in KEYS:
        evm.send(owner, REGISTRY, "register", key, 200, GOOD)
    evm.pass_time(evm.wiring.probation)
    for key in KEYS:
        evm.send(owner, REGISTRY, "activate", key)


def test_a_post_is_read_back_and_told(evm: Evm, books: Books) -> None:
    header = books.book({(account(1), 0): [5, 6], (account(2), 4): [7]}).header()
    evm.send(DEPLOYER, LEDGER, "post", 1, header)
    ((name, event),) = evm.events(LEDGER)
    assert (name, event["epoch"], event["dataHash"]) == ("EpochPosted", 1, header.data_hash)
    assert evm.ask(LEDGER, "epochs", 1) == (header.root, 18, evm.now, 2)
    assert (evm.ask(LEDGER, "head"), evm.ask(LEDGER, "totalOf", 1)) == (1, 18)
    finish = evm.now + evm.wiring.window
    assert evm.ask(LEDGER, "progress", 1) == (finish, 0, 0, 0)


def test_what_was_never_posted_is_nothing(evm: Evm) -> None:
    for epoch in (0, 1, 9):
        assert evm.ask(LEDGER, "epochs", epoch) == (bytes(32), 0, 0, 0)
        assert (evm.ask(LEDGER, "totalOf", epoch), final(evm, epoch)) == (0, False)
        assert evm.refused(ALICE, LEDGER, "progress", epoch) == "UnknownEpoch"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"root": bytes(32)}, "ZeroRoot"),
        ({"total_cum": 17}, "TotalLowered"),
        ({"leaves": 1}, "LeavesLowered"),
    ],
)
def test_a_header_that_takes_back_is_refused(
    evm: Evm, books: Books, change: dict[str, Any], error: str
) -> None:
    post(evm, books, 8, 10)
    header = replace(books.book({}).header(), **change)
    assert evm.refused(DEPLOYER, LEDGER, "post", 2, header) == error


def test_epochs_come_in_order_from_the_poster(evm: Evm, books: Books) -> None:
    header = books.book({(account(1), 0): [5]}).header()
    for epoch in (0, 2):
        assert evm.refused(DEPLOYER, LEDGER, "post", epoch, header) == "EpochOutOfOrder"
    assert evm.refused(ALICE, LEDGER, "post", 1, header) == "NotPoster"
    evm.send(DEPLOYER, LEDGER, "post", 1, header)
    assert evm.refused(DEPLOYER, LEDGER, "post", 1, header) == "EpochOutOfOrder"


def test_no_leaves_are_worth_nothing(evm: Evm) -> None:
    header = NOTHING.header()
    worth = Header(header.root, 1, 0, 0, bytes(32), bytes(32))
    assert evm.refused(DEPLOYER, LEDGER, "post", 1, worth) == "SumWithoutLeaves"
    evm.send(DEPLOYER, LEDGER, "post", 1, header)


def test_an_epoch_is_final_when_its_window_is_over(evm: Evm, books: Books) -> None:
    post(evm, books, 5)
    evm.pass_time(evm.wiring.window - 1)
    assert not final(evm, 1)
    evm.pass_time(1)
    assert final(evm, 1)
    assert evm.ask(LEDGER, "finalHead") == 0, "nobody wrote it down yet"
    evm.send(BOB, LEDGER, "settle", 1)
    assert evm.events(LEDGER) == [("EpochsFinal", {"newest": 1})]
    evm.send(BOB, LEDGER, "settle", 1)
    assert evm.events(LEDGER) == []


def test_a_post_writes_down_what_became_final(evm: Evm, books: Books) -> None:
    for _ in range(4):
        post(evm, books, 5)
    evm.pass_time(evm.wiring.window)
    post(evm, books, 5)
    assert evm.ask(LEDGER, "finalHead") == 2
    post(evm, books, 5)
    assert evm.ask(LEDGER, "finalHead") == 4
    assert [final(evm, epoch) for epoch in range(1, 7)] == [True] * 4 + [False] * 2


def test_an_epoch_waits_for_those_before_it(evm: Evm, books: Books) -> None:
    evm.send(TIMELOCK, LEDGER, "setHoldersRequired", 1)
    post(evm, books, 5)
    evm.send(TIMELOCK, LEDGER, "setHoldersRequired", 0)
    post(evm, books, 5)
    evm.pass_time(10 * evm.wiring.window)
    assert (final(evm, 1), final(evm, 2)) == (False, False)
    evm.send(BOB, LEDGER, "recount", 1)
    evm.pass_time(evm.wiring.window)
    assert (final(evm, 1), final(evm, 2)) == (True, True)


def test_voiding_an_epoch_voids_all_after_it(evm: Evm, books: Books) -> None:
    for _ in range(3):
        post(evm, books, 5)
    void_by_expiry(evm, 2)
    assert evm.ask(LEDGER, "head") == 1
    evm.pass_time(10 * evm.wiring.window)
    assert [final(evm, epoch) for epoch in (1, 2, 3)] == [True, False, False]
    for epoch in (2, 3):
        assert evm.ask(LEDGER, "epochs", epoch) == (bytes(32), 0, 0, 0)
        assert evm.ask(LEDGER, "totalOf", epoch) == 0
        leaf, index, proof = books.epochs[epoch].place(0)
        refused = evm.refused(ALICE, LEDGER, "verifyLeaf", epoch, leaf, index, proof)
        assert refused == "UnknownEpoch"


def test_a_voided_epoch_can_be_posted_anew_but_not_in_the_same_block(
    evm: Evm, books: Books
) -> None:
    post(evm, books, 5)
    void_by_expiry(evm, 1)
    header = books.epochs[1].header()
    assert evm.refused(DEPLOYER, LEDGER, "post", 1, header) == "JustVoided"
    evm.pass_time(1)
    evm.send(DEPLOYER, LEDGER, "post", 1, header)
    assert not final(evm, 1)
    evm.pass_time(evm.wiring.window)
    assert final(evm, 1)


def test_the_window_begins_when_enough_nodes_hold_the_data(evm: Evm, books: Books) -> None:
    nodes(evm)
    evm.send(TIMELOCK, LEDGER, "setHoldersRequired", 2)
    assert evm.events(LEDGER) == [("HoldersRequiredSet", {"holders": 2})]
    post(evm, books, 5)
    evm.pass_time(500)
    evm.send(ALICE, LEDGER, "attest", 1, KEYS[0])
    assert evm.events(LEDGER) == [("Attested", {"epoch": 1, "key": KEYS[0]})]
    assert evm.ask(LEDGER, "progress", 1) == (0, 1, 2, 0)
    evm.pass_time(10 * evm.wiring.window)
    assert not final(evm, 1)
    evm.send(ALICE, LEDGER, "attest", 1, KEYS[1])
    assert evm.ask(LEDGER, "progress", 1) == (evm.now + evm.wiring.window, 2, 2, 0)
    evm.pass_time(10)
    evm.send(ALICE, LEDGER, "attest", 1, KEYS[2])  # too late to move the window
    evm.pass_time(evm.wiring.window - 11)
    assert not final(evm, 1)
    evm.pass_time(1)
    assert final(evm, 1)
    assert evm.refused(ALICE, LEDGER, "attest", 1, KEYS[2]) == "EpochIsFinal"
    assert evm.refused(ALICE, LEDGER, "recount", 1) == "EpochIsFinal"


def test_only_the_owner_of_an_active_node_attests_and_once(evm: Evm, books: Books) -> None:
    nodes(evm)
    post(evm, books, 5)
    assert evm.refused(BOB, LEDGER, "attest", 1, KEYS[0]) == "NotActiveOwner"
    assert evm.refused(ALICE, LEDGER, "attest", 2, KEYS[0]) == "UnknownEpoch"
    assert evm.refused(ALICE, LEDGER, "attest", 1, bytes(32)) == "NotActiveOwner"
    evm.send(ALICE, REGISTRY, "beginExit", KEYS[1])
    assert evm.refused(ALICE, LEDGER, "attest", 1, KEYS[1]) == "NotActiveOwner"
    evm.send(ALICE, LEDGER, "attest", 1, KEYS[0])
    assert evm.refused(ALICE, LEDGER, "attest", 1, KEYS[0]) == "AlreadyAttested"


def test_a_word_for_a_voided_epoch_does_not_count_for_the_next_of_its_number(
    evm: Evm, books: Books
) -> None:
    nodes(evm)
    evm.send(TIMELOCK, LEDGER, "setHoldersRequired", 1)
    post(evm, books, 5)
    evm.send(ALICE, LEDGER, "attest", 1, KEYS[0])
    void_by_expiry(evm, 1)
    evm.pass_time(1)
    evm.send(DEPLOYER, LEDGER, "post", 1, books.epochs[1].header())
    evm.pass_time(2 * evm.wiring.window)
    assert not final(evm, 1)
    evm.send(ALICE, LEDGER, "attest", 1, KEYS[0])
    evm.pass_time(evm.wiring.window)
    assert final(evm, 1)


def test_raising_the_holders_does_not_bind_posted_epochs(evm: Evm, books: Books) -> None:
    post(evm, books, 5)
    evm.send(TIMELOCK, LEDGER, "setHoldersRequired", 3)
    evm.pass_time(evm.wiring.window)
    assert final(evm, 1)


def test_a_recount_that_is_not_due_changes_nothing(evm: Evm, books: Books) -> None:
    evm.send(TIMELOCK, LEDGER, "setHoldersRequired", 2)
    post(evm, books, 5)
    evm.send(TIMELOCK, LEDGER, "setHoldersRequired", 1)
    evm.send(BOB, LEDGER, "recount", 1)
    assert evm.ask(LEDGER, "progress", 1) == (0, 0, 2, 0)


def test_the_holders_are_set_by_the_timelock_within_a_cap(evm: Evm) -> None:
    assert evm.refused(DEPLOYER, LEDGER, "setHoldersRequired", 1) == "NotTimelock"
    most = evm.ask(LEDGER, "HOLDERS_MAX")
    assert evm.refused(TIMELOCK, LEDGER, "setHoldersRequired", most + 1) == "TooManyHolders"
    evm.send(TIMELOCK, LEDGER, "setHoldersRequired", most)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        (0, NOBODY, "ZeroPoster"),
        (5, 0, "BadConfig"),  # no window
        (5, 2**32 - 1, "BadConfig"),  # one that means "not yet"
        (6, 1_001, "BadConfig"),  # a demand may take longer than the window
        (8, 10_001, "BadConfig"),  # a reward of more than there is
        (10, 1, "BadConfig"),  # a base of no ledger
    ],
)
def test_a_ledger_that_makes_no_sense_is_not_made(
    evm: Evm, field: int, value: object, error: str
) -> None:
    assert evm.misbegotten(LEDGER, ledger_config(evm), {field: value}) == error


def test_a_ledger_goes_on_only_from_a_final_epoch(books: Books) -> None:
    evm = Evm(Wiring())
    post(evm, books, 5)
    config = ledger_config(evm, previous=evm.at[LEDGER], base_epoch=1)
    with pytest.raises(Refused, match="NotFinal"):
        evm.create(calls.constructor(LEDGER, config))
