"""What is paid, to whom, once; and how a ledger goes on from another."""

import pytest

from assay_contracts import calls
from assay_protocol.credit_tree import CreditLeaf
from contracts.books import Books, Epoch, account
from contracts.evm import DEPLOYER, GOOD, TIMELOCK, Evm, ledger_config

ALICE, BOB = (bytes([n]) * 20 for n in (0xA1, 0xB0))
ONE, TWO, NEW = (account(n) for n in (1, 2, 3))
LEDGER = "CreditLedger"


@pytest.fixture
def evm() -> Evm:
    made = Evm()
    made.send(ALICE, "NodeRegistry", "bind", ONE, ALICE, GOOD)
    made.send(ALICE, "NodeRegistry", "bind", TWO, BOB, GOOD)
    return made


@pytest.fixture
def books(evm: Evm) -> Books:
    """Three epochs, all final."""
    made = Books()
    post(evm, made, {(ONE, 0): [5], (TWO, 0): [7]})
    post(evm, made, {(ONE, 0): [10], (ONE, 4): [3]})
    post(evm, made, {(TWO, 0): [20]})
    evm.pass_time(evm.wiring.window)
    return made


def post(evm: Evm, books: Books, earned: dict[tuple[bytes, int], list[int]]) -> None:
    post_as_it_is(evm, books.book(earned), len(books.epochs) - 1)


def post_as_it_is(evm: Evm, epoch: Epoch, number: int) -> None:
    evm.send(DEPLOYER, LEDGER, "post", number, epoch.header())


def claim(evm: Evm, books: Books, epoch: int, index: int) -> None:
    evm.send(BOB, LEDGER, "claim", epoch, *books.epochs[epoch].place(index))


def refused(evm: Evm, books: Books, epoch: int, index: int) -> str:
    return evm.refused(BOB, LEDGER, "claim", epoch, *books.epochs[epoch].place(index))


def test_a_claim_pays_what_was_earned_to_the_payee_whoever_sends_it(evm: Evm, books: Books) -> None:
    claim(evm, books, 3, 0)
    name, event = evm.events(LEDGER)[-1]
    assert (name, event["payee"], event["amount"], event["cumulative"]) == (
        "Claimed",
        ALICE,
        15,
        15,
    )
    assert (evm.balance(ALICE), evm.balance(BOB)) == (15, 0)
    assert evm.ask(LEDGER, "claimed", ONE, 0) == evm.ask(LEDGER, "totalClaimed") == 15
    assert evm.ask(LEDGER, "claimed", ONE, 4) == 0
    claim(evm, books, 3, 2)
    assert evm.balance(ALICE) == 18


def test_a_claim_pays_the_difference_and_nothing_twice(evm: Evm, books: Books) -> None:
    claim(evm, books, 1, 0)
    claim(evm, books, 2, 0)
    assert evm.balance(ALICE) == 15
    for epoch in (1, 2, 3):
        assert refused(evm, books, epoch, 0) == "NothingToClaim"


def test_a_late_claim_on_an_older_final_epoch_is_as_good_as_any(evm: Evm, books: Books) -> None:
    """The solvency check once compared with the claimed epoch's total and refused this."""
    claim(evm, books, 3, 1)
    assert evm.ask(LEDGER, "totalClaimed") == 27 > books.epochs[1].header().total_cum
    claim(evm, books, 1, 0)
    assert (evm.balance(ALICE), evm.balance(BOB)) == (5, 27)
    claim(evm, books, 3, 0)
    claim(evm, books, 2, 2)
    assert evm.ask("CreditToken", "totalSupply") == books.epochs[3].header().total_cum


def test_a_claim_is_refused_by_name(evm: Evm, books: Books) -> None:
    leaf, index, proof = books.epochs[3].place(0)
    raised = CreditLeaf(leaf.account, leaf.role, 16, leaf.epoch_credit, leaf.receipts_root)
    assert evm.refused(BOB, LEDGER, "claim", 3, raised, index, proof) == "NotInTree"
    assert evm.refused(BOB, LEDGER, "claim", 2, leaf, index, proof) == "NotInTree"
    for number in (0, 3):
        assert evm.refused(BOB, LEDGER, "claim", 0, leaf, number, b"") == "NotInTree"
    assert evm.refused(BOB, LEDGER, "claim", 4, leaf, index, proof) == "NotFinal"
    post(evm, books, {(NEW, 0): [1]})
    assert refused(evm, books, 4, 0) == "NotFinal"
    evm.pass_time(evm.wiring.window)
    assert refused(evm, books, 4, 3) == "NoPayee"


def test_a_claim_finds_out_itself_what_is_final(evm: Evm, books: Books) -> None:
    assert evm.ask(LEDGER, "finalHead") == 0
    claim(evm, books, 2, 0)
    assert evm.ask(LEDGER, "finalHead") == 3


def test_a_claim_looks_only_so_far_and_settling_helps(evm: Evm) -> None:
    books = Books()
    for _ in range(70):
        post(evm, books, {(ONE, 0): [1]})
    evm.pass_time(evm.wiring.window)
    assert refused(evm, books, 70, 0) == "NotFinal"
    evm.send(BOB, LEDGER, "settle", 70)
    claim(evm, books, 70, 0)
    assert evm.balance(ALICE) == 70


def test_nothing_is_claimed_from_a_void_epoch(evm: Evm, books: Books) -> None:
    """An epoch built on a fraudulent one once became final after that one was voided."""
    fraud = Epoch((*books.epochs[3].leaves, CreditLeaf(NEW, 0, 1_000, 0, bytes(32))))
    post_as_it_is(evm, fraud, 4)
    evm.pass_time(1)
    after = Epoch((*fraud.leaves, CreditLeaf(account(9), 0, 1, 1, bytes(32))))
    post_as_it_is(evm, after, 5)
    evm.send(ALICE, LEDGER, "challengeStep", 4, fraud.place(3), fraud.place(3))
    evm.pass_time(10 * evm.wiring.window)
    for epoch, index in ((fraud, 3), (after, 4)):
        number = 4 if epoch is fraud else 5
        assert evm.refused(BOB, LEDGER, "claim", number, *epoch.place(index)) == "NotFinal"
    assert not evm.ask(LEDGER, "isFinal", 5)
    assert evm.ask(LEDGER, "isFinal", 3)


def test_no_more_is_paid_than_the_highest_total(evm: Evm, books: Books) -> None:
    """The last line: frauds that nobody challenged cannot add up to more than was ever posted."""
    leaves = books.epochs[3].leaves
    post_as_it_is(evm, Epoch((*leaves, CreditLeaf(NEW, 0, 1, 1, bytes(32)))), 4)
    evm.pass_time(evm.wiring.window)
    claim(evm, books, 3, 0)
    claim(evm, books, 3, 1)
    claim(evm, books, 3, 2)
    assert evm.ask(LEDGER, "totalClaimed") == 45
    # Epoch 5 gives to the first what it takes from the third: the total is the same, what was and
    # is proven is more.
    forged = Epoch(
        (
            CreditLeaf(ONE, 0, 17, 0, bytes(32)),
            leaves[1],
            CreditLeaf(ONE, 4, 0, 0, bytes(32)),
            CreditLeaf(NEW, 0, 2, 0, bytes(32)),
        )
    )
    assert forged.header().total_cum == 46
    post_as_it_is(evm, forged, 5)
    evm.pass_time(evm.wiring.window)
    assert evm.refused(BOB, LEDGER, "claim", 5, *forged.place(0)) == "Insolvent"


# ---- a ledger that goes on from another ----


def go_on(evm: Evm, base: int) -> bytes:
    """A new ledger from epoch `base`, which the token does not know yet; gives the old one's
    address."""
    old = evm.at[LEDGER]
    config = ledger_config(evm, previous=old, base_epoch=base)
    evm.at[LEDGER] = evm.create(calls.constructor(LEDGER, config))
    return old


def hand_over(evm: Evm) -> None:
    evm.send(TIMELOCK, "CreditToken", "setMinter", evm.at[LEDGER])


def test_a_new_ledger_goes_on_where_the_old_one_was(evm: Evm, books: Books) -> None:
    claim(evm, books, 1, 0)
    old = go_on(evm, 2)
    assert (evm.ask(LEDGER, "head"), evm.ask(LEDGER, "finalHead")) == (2, 2)
    for epoch in (0, 1, 2):
        for function in ("epochs", "totalOf", "isFinal"):
            there = evm.send_to(old, BOB, LEDGER, function, epoch)
            assert evm.ask(LEDGER, function, epoch) == there
    assert evm.ask(LEDGER, "verifyLeaf", 1, *books.epochs[1].place(1))
    assert evm.ask(LEDGER, "totalClaimed") == evm.ask(LEDGER, "claimed", ONE, 0) == 5
    assert evm.ask(LEDGER, "highestTotal") == 12
    post_as_it_is(evm, books.epochs[3], 3)
    assert not evm.ask(LEDGER, "isFinal", 3)


def test_a_new_ledger_pays_only_what_the_old_one_did_not(evm: Evm, books: Books) -> None:
    claim(evm, books, 1, 0)
    old = go_on(evm, 3)
    # The old one still pays until the token names the new one, and the new one cannot.
    evm.send_to(old, BOB, LEDGER, "claim", 2, *books.epochs[2].place(0))
    assert refused(evm, books, 3, 1) == "NotMinter"
    hand_over(evm)
    assert refused(evm, books, 3, 0) == "NothingToClaim"
    claim(evm, books, 3, 1)
    claim(evm, books, 3, 2)
    assert evm.ask(LEDGER, "totalClaimed") == evm.ask("CreditToken", "totalSupply") == 45
    assert evm.ask(LEDGER, "claimed", ONE, 0) == 15


def test_the_old_ledger_pays_nothing_after_the_new_one_does(evm: Evm, books: Books) -> None:
    old = go_on(evm, 3)
    hand_over(evm)
    at, evm.at[LEDGER] = evm.at[LEDGER], old
    assert refused(evm, books, 3, 0) == "NotMinter"
    evm.at[LEDGER] = at
    claim(evm, books, 3, 0)
    assert evm.balance(ALICE) == 15


def test_claims_made_late_on_the_old_ledger_are_no_debt_of_the_new_one(
    evm: Evm, books: Books
) -> None:
    """The old ledger went on to epoch 4 and paid from it; the new one starts at 3."""
    post(evm, books, {(TWO, 0): [100]})
    evm.pass_time(evm.wiring.window)
    old = go_on(evm, 3)
    evm.send_to(old, BOB, LEDGER, "claim", 4, *books.epochs[4].place(1))
    hand_over(evm)
    claim(evm, books, 3, 0)
    assert evm.ask(LEDGER, "highestTotal") == books.epochs[4].header().total_cum
    assert refused(evm, books, 3, 1) == "NothingToClaim"
    post_as_it_is(evm, books.epochs[4], 4)
    evm.pass_time(evm.wiring.window)
    assert refused(evm, books, 4, 1) == "NothingToClaim"


def test_a_new_ledgers_first_epoch_can_be_challenged_against_the_old_ones_last(
    evm: Evm, books: Books
) -> None:
    go_on(evm, 3)
    hand_over(evm)
    leaves = books.epochs[3].leaves
    moved = Epoch((leaves[1], leaves[0], leaves[2]))
    post_as_it_is(evm, moved, 4)
    evm.send(BOB, LEDGER, "challengeStep", 4, books.epochs[3].place(0), moved.place(0))
    assert evm.ask(LEDGER, "head") == 3


def test_the_base_itself_is_beyond_challenge(evm: Evm, books: Books) -> None:
    go_on(evm, 3)
    place = books.epochs[3].place(0)
    assert evm.refused(BOB, LEDGER, "challengeStep", 3, place, place) == "EpochIsFinal"
    assert evm.refused(BOB, LEDGER, "challengeStep", 2, place, place) == "UnknownEpoch"
