import pytest

from assay_contracts import calls
from contracts.evm import DEPLOYER, NOBODY, TIMELOCK, Evm, Refused

ALICE = bytes([0xA1]) * 20
OTHER = bytes([0x55]) * 20


@pytest.fixture
def evm() -> Evm:
    return Evm()


def test_it_has_six_decimals_and_begins_with_nothing(evm: Evm) -> None:
    assert evm.ask("CreditToken", "decimals") == 6
    assert evm.ask("CreditToken", "totalSupply") == 0
    assert evm.ask("CreditToken", "minter") == evm.at["CreditLedger"]
    assert evm.ask("CreditToken", "symbol") == "CREDIT"


@pytest.mark.parametrize("sender", [DEPLOYER, TIMELOCK, ALICE])
def test_nobody_but_the_minter_mints(evm: Evm, sender: bytes) -> None:
    assert evm.refused(sender, "CreditToken", "mint", ALICE, 1) == "NotMinter"


def test_only_the_timelock_names_another_minter(evm: Evm) -> None:
    assert evm.refused(DEPLOYER, "CreditToken", "setMinter", OTHER) == "NotTimelock"
    evm.send(TIMELOCK, "CreditToken", "setMinter", OTHER)
    previous = evm.at["CreditLedger"]
    assert evm.events("CreditToken") == [("MinterSet", {"previous": previous, "minter": OTHER})]
    evm.send(OTHER, "CreditToken", "mint", ALICE, 7)
    assert evm.balance(ALICE) == 7


def test_a_replaced_minter_never_comes_back(evm: Evm) -> None:
    evm.send(TIMELOCK, "CreditToken", "setMinter", OTHER)
    for minter in (evm.at["CreditLedger"], OTHER):
        assert evm.refused(TIMELOCK, "CreditToken", "setMinter", minter) == "MinterRetired"
    assert evm.ask("CreditToken", "retired", evm.at["CreditLedger"])
    assert evm.refused(TIMELOCK, "CreditToken", "setMinter", NOBODY) == "ZeroMinter"


def test_a_token_needs_a_minter(evm: Evm) -> None:
    with pytest.raises(Refused, match="ZeroMinter"):
        evm.create(calls.constructor("CreditToken", NOBODY, TIMELOCK))


def test_holders_burn_their_own_and_no_more(evm: Evm) -> None:
    evm.give(ALICE, 10)
    evm.send(ALICE, "CreditToken", "burn", 4)
    assert (evm.balance(ALICE), evm.ask("CreditToken", "totalSupply")) == (6, 6)
    assert evm.refused(ALICE, "CreditToken", "burn", 7) == "ERC20InsufficientBalance"
