from typing import Any

import pytest

from contracts.evm import (
    BAD,
    COURT,
    DEPLOYER,
    GOOD,
    NOBODY,
    TIMELOCK,
    Evm,
    registry_config,
)

ALICE, BOB, CAROL = (bytes([n]) * 20 for n in (0xA1, 0xB0, 0xCA))
KEY, SECOND, THIRD = (bytes([n]) * 32 for n in (1, 2, 3))
NONE, PROBATION, ACTIVE, EXITING, EJECTED = range(5)
REGISTRY = "NodeRegistry"


@pytest.fixture
def evm() -> Evm:
    made = Evm()
    for owner in (ALICE, BOB):
        made.give(owner, 10_000, REGISTRY)
    return made


def register(evm: Evm, key: bytes = KEY, owner: bytes = ALICE, bond: int = 200) -> None:
    evm.send(owner, REGISTRY, "register", key, bond, GOOD)


def activate(evm: Evm, *keys: bytes) -> None:
    for key in keys:
        register(evm, key)
    evm.pass_time(evm.wiring.probation)
    for key in keys:
        evm.send(BOB, REGISTRY, "activate", key)


def state(evm: Evm, key: bytes = KEY) -> int:
    found: int = evm.ask(REGISTRY, "stateOf", key)
    return found


def actives(evm: Evm) -> list[bytes]:
    count = evm.ask(REGISTRY, "activeCount")
    return [evm.ask(REGISTRY, "activeAt", index) for index in range(count)]


def slash(evm: Evm, amount: int, reporter: bytes = CAROL, bps: int = 2_500) -> Any:
    return evm.send(COURT, REGISTRY, "slash", KEY, amount, reporter, bps, bytes(32))


def test_a_key_is_registered_by_an_owner_it_signed_for(evm: Evm) -> None:
    register(evm)
    assert state(evm) == PROBATION
    assert evm.ask(REGISTRY, "ownerOf", KEY) == ALICE
    assert evm.ask(REGISTRY, "bondOf", KEY) == 200
    assert evm.ask(REGISTRY, "payeeOf", KEY) == ALICE
    assert evm.ask(REGISTRY, "nonceOf", KEY) == 1
    assert (evm.balance(ALICE), evm.balance(evm.at[REGISTRY])) == (9_800, 200)


def test_a_registration_is_refused_by_name(evm: Evm) -> None:
    assert evm.refused(ALICE, REGISTRY, "register", KEY, 200, BAD) == "BadSignature"
    assert evm.refused(ALICE, REGISTRY, "register", KEY, 99, GOOD) == "BondTooLow"
    refused = evm.refused(CAROL, REGISTRY, "register", KEY, 100, GOOD)
    assert refused == "ERC20InsufficientAllowance"
    assert evm.ask(REGISTRY, "nonceOf", KEY) == 0
    register(evm)
    assert evm.refused(BOB, REGISTRY, "register", KEY, 200, GOOD) == "WrongState"


def test_a_payee_is_bound_with_or_without_a_bond_by_anybody_the_key_signed_for(evm: Evm) -> None:
    evm.send(CAROL, REGISTRY, "bind", KEY, BOB, GOOD)
    assert evm.ask(REGISTRY, "payeeOf", KEY) == BOB
    assert evm.events(REGISTRY) == [("PayeeBound", {"key": KEY, "payee": BOB})]
    register(evm)
    assert evm.ask(REGISTRY, "payeeOf", KEY) == BOB, "registering takes no pay away"
    evm.send(CAROL, REGISTRY, "bind", KEY, ALICE, GOOD)
    assert evm.ask(REGISTRY, "payeeOf", KEY) == ALICE
    assert evm.ask(REGISTRY, "nonceOf", KEY) == 3
    assert evm.refused(ALICE, REGISTRY, "bind", KEY, BOB, BAD) == "BadSignature"
    assert evm.refused(ALICE, REGISTRY, "bind", KEY, NOBODY, GOOD) == "ZeroPayee"


def test_probation_ends_when_its_time_is_over(evm: Evm) -> None:
    assert evm.refused(ALICE, REGISTRY, "activate", KEY) == "WrongState"
    register(evm)
    evm.pass_time(evm.wiring.probation - 1)
    assert evm.refused(ALICE, REGISTRY, "activate", KEY) == "TooEarly"
    evm.pass_time(1)
    evm.send(CAROL, REGISTRY, "activate", KEY)
    assert (state(evm), actives(evm)) == (ACTIVE, [KEY])
    assert evm.refused(ALICE, REGISTRY, "activate", KEY) == "WrongState"


def test_a_bond_below_what_is_asked_by_now_does_not_activate(evm: Evm) -> None:
    register(evm)
    evm.send(TIMELOCK, REGISTRY, "setMinBond", 500)
    evm.pass_time(evm.wiring.probation)
    assert evm.refused(ALICE, REGISTRY, "activate", KEY) == "BondTooLow"
    assert evm.refused(BOB, REGISTRY, "topUp", KEY, 300) == "NotOwner"
    evm.send(ALICE, REGISTRY, "topUp", KEY, 300)
    evm.send(ALICE, REGISTRY, "activate", KEY)
    assert evm.ask(REGISTRY, "bondOf", KEY) == evm.balance(evm.at[REGISTRY]) == 500


def test_an_exit_pays_back_after_unbonding_and_frees_the_key(evm: Evm) -> None:
    activate(evm, KEY)
    assert evm.refused(BOB, REGISTRY, "beginExit", KEY) == "NotOwner"
    assert evm.refused(ALICE, REGISTRY, "withdraw", KEY) == "WrongState"
    evm.send(ALICE, REGISTRY, "beginExit", KEY)
    assert (state(evm), actives(evm)) == (EXITING, [])
    assert evm.refused(ALICE, REGISTRY, "beginExit", KEY) == "WrongState"
    assert evm.refused(ALICE, REGISTRY, "topUp", KEY, 1) == "WrongState"
    evm.pass_time(evm.wiring.unbonding - 1)
    assert evm.refused(ALICE, REGISTRY, "withdraw", KEY) == "TooEarly"
    evm.pass_time(1)
    assert evm.refused(BOB, REGISTRY, "withdraw", KEY) == "NotOwner"
    evm.send(ALICE, REGISTRY, "withdraw", KEY)
    assert (state(evm), evm.ask(REGISTRY, "ownerOf", KEY)) == (NONE, NOBODY)
    assert (evm.balance(ALICE), evm.balance(evm.at[REGISTRY])) == (10_000, 0)
    register(evm, owner=BOB)


def test_a_bond_is_slashable_until_it_is_withdrawn(evm: Evm) -> None:
    register(evm)
    evm.send(ALICE, REGISTRY, "beginExit", KEY)
    evm.pass_time(evm.wiring.unbonding)
    assert slash(evm, 150) == 150
    assert state(evm) == EXITING
    evm.send(ALICE, REGISTRY, "withdraw", KEY)
    assert evm.balance(ALICE) == 10_000 - 150


def test_a_slash_rewards_the_reporter_burns_the_rest_and_ejects(evm: Evm) -> None:
    activate(evm, KEY)
    supply = evm.ask("CreditToken", "totalSupply")
    assert slash(evm, 101) == 101
    ((name, event),) = evm.events(REGISTRY)[-1:]
    assert name == "Slashed"
    assert (event["taken"], event["left"], event["reward"]) == (101, 99, 25)
    assert (state(evm), actives(evm)) == (EJECTED, [])
    assert evm.balance(CAROL) == 25
    assert evm.ask("CreditToken", "totalSupply") == supply - 76
    assert evm.ask(REGISTRY, "bondOf", KEY) == evm.balance(evm.at[REGISTRY]) == 99
    for function in ("activate", "topUp"):
        arguments = (KEY, 1) if function == "topUp" else (KEY,)
        assert evm.refused(ALICE, REGISTRY, function, *arguments) == "WrongState"
    assert evm.refused(ALICE, REGISTRY, "register", KEY, 200, GOOD) == "WrongState"
    evm.send(ALICE, REGISTRY, "beginExit", KEY)  # what is left can be had back


def test_a_slash_takes_no_more_than_there_is(evm: Evm) -> None:
    assert slash(evm, 5) == 0, "no bond, no loss"
    register(evm)
    assert slash(evm, 0) == 0
    assert slash(evm, 40) == 40
    assert state(evm) == PROBATION, "160 is still more than is asked"
    assert slash(evm, 2**96 - 1, reporter=NOBODY) == 160
    assert evm.balance(evm.at[REGISTRY]) == 0
    assert evm.balance(CAROL) == 10
    register(evm)  # nothing is left to wait for
    assert state(evm) == PROBATION


def test_only_the_court_and_the_ledger_of_the_day_slash(evm: Evm) -> None:
    register(evm)
    for sender in (ALICE, DEPLOYER, TIMELOCK):
        refused = evm.refused(sender, REGISTRY, "slash", KEY, 1, CAROL, 0, bytes(32))
        assert refused == "NotSlasher"
    evm.send(TIMELOCK, "CreditToken", "setMinter", BOB)
    assert evm.send(BOB, REGISTRY, "slash", KEY, 1, CAROL, 0, bytes(32)) == 1
    assert (
        evm.refused(COURT, REGISTRY, "slash", KEY, 1, CAROL, 10_001, bytes(32)) == "RewardTooHigh"
    )


def test_actives_are_listed_whoever_leaves(evm: Evm) -> None:
    activate(evm, KEY, SECOND, THIRD)
    assert actives(evm) == [KEY, SECOND, THIRD]
    evm.send(ALICE, REGISTRY, "beginExit", KEY)
    assert actives(evm) == [THIRD, SECOND]
    evm.send(ALICE, REGISTRY, "beginExit", SECOND)
    evm.send(ALICE, REGISTRY, "beginExit", THIRD)
    assert actives(evm) == []


def test_the_least_bond_moves_within_its_caps_by_the_timelock(evm: Evm) -> None:
    assert evm.refused(DEPLOYER, REGISTRY, "setMinBond", 20) == "NotTimelock"
    for bond in (9, 1_001):
        assert evm.refused(TIMELOCK, REGISTRY, "setMinBond", bond) == "BondOutOfCaps"
    evm.send(TIMELOCK, REGISTRY, "setMinBond", 1_000)
    assert evm.ask(REGISTRY, "minBond") == 1_000


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        (1, NOBODY, "BadConfig"),
        (7, 0, "BadConfig"),
        (6, 9, "BondOutOfCaps"),
        (8, 99, "BondOutOfCaps"),
    ],
)
def test_a_registry_that_makes_no_sense_is_not_made(
    evm: Evm, field: int, value: object, error: str
) -> None:
    assert evm.misbegotten(REGISTRY, registry_config(evm), {field: value}) == error
