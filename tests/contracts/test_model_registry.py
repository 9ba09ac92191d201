from typing import Any

import pytest

from assay_contracts import calls
from contracts.evm import DEPLOYER, NOBODY, TIMELOCK, Evm, Refused

MODELS = "ModelRegistry"
ONE, TWO, THREE = (bytes([n]) * 32 for n in (1, 2, 3))
ACCOUNT, OTHER = (bytes([n]) * 32 for n in (0xA1, 0xB0))
PUBLISHER, ADAPTER, DATA = 1, 2, 3


@pytest.fixture
def evm() -> Evm:
    made = Evm()
    made.at[MODELS] = made.create(calls.constructor(MODELS, TIMELOCK, True))
    return made


def put(evm: Evm, model: bytes, allowed: bool = True, splits: Any = ()) -> None:
    evm.send(TIMELOCK, MODELS, "setModel", model, allowed, list(splits))


def listed(evm: Evm) -> dict[bytes, Any]:
    _, page = evm.ask(MODELS, "rules", 0, 100)
    return {model: (allowed, tuple(splits)) for model, allowed, splits in page}


def test_a_model_that_is_not_listed_follows_open(evm: Evm) -> None:
    assert evm.ask(MODELS, "mayServe", ONE)
    evm.send(TIMELOCK, MODELS, "setOpen", False)
    assert not evm.ask(MODELS, "mayServe", ONE)
    assert evm.events(MODELS) == [("OpenSet", {"open": False, "version": 1})]
    put(evm, ONE)
    assert evm.ask(MODELS, "mayServe", ONE)
    evm.send(TIMELOCK, MODELS, "setOpen", True)
    put(evm, ONE, allowed=False)
    assert not evm.ask(MODELS, "mayServe", ONE)


def test_what_is_said_of_a_model_replaces_what_was(evm: Evm) -> None:
    shares = ((ACCOUNT, PUBLISHER, 1_000), (ACCOUNT, DATA, 2_500), (OTHER, ADAPTER, 500))
    put(evm, ONE, splits=shares)
    name, event = evm.events(MODELS)[0]
    assert (name, event["model"], event["version"]) == ("ModelSet", ONE, 1)
    assert evm.ask(MODELS, "ruleOf", ONE) == (ONE, True, shares)
    put(evm, ONE, allowed=False, splits=shares[:1])
    assert listed(evm) == {ONE: (False, shares[:1])}
    put(evm, ONE)
    assert evm.ask(MODELS, "ruleOf", ONE) == (ONE, True, ())
    assert (evm.ask(MODELS, "modelCount"), evm.ask(MODELS, "version")) == (1, 3)


def test_a_model_is_forgotten_and_the_others_stay(evm: Evm) -> None:
    shares = ((ACCOUNT, PUBLISHER, 7), (OTHER, DATA, 8))
    for model in (ONE, TWO):
        put(evm, model, splits=shares[:1])
    put(evm, THREE, allowed=False, splits=shares)
    evm.send(TIMELOCK, MODELS, "removeModel", ONE)
    assert evm.events(MODELS) == [("ModelRemoved", {"model": ONE, "version": 4})]
    assert listed(evm) == {THREE: (False, shares), TWO: (True, shares[:1])}
    put(evm, THREE)  # found where it was moved to
    assert listed(evm) == {THREE: (True, ()), TWO: (True, shares[:1])}
    evm.send(TIMELOCK, MODELS, "removeModel", TWO)  # the last of the list
    evm.send(TIMELOCK, MODELS, "removeModel", THREE)
    assert listed(evm) == {}
    assert evm.refused(TIMELOCK, MODELS, "removeModel", THREE) == "ModelNotListed"
    assert evm.refused(NOBODY, MODELS, "ruleOf", THREE) == "ModelNotListed"
    put(evm, THREE)
    assert listed(evm) == {THREE: (True, ())}


def test_the_list_is_read_by_pages_of_one_version(evm: Evm) -> None:
    models = [bytes([n]) * 32 for n in range(1, 8)]
    for model in models:
        put(evm, model)
    for start, count, expected in ((0, 3, 3), (3, 3, 3), (6, 3, 1), (7, 3, 0), (99, 2**256 - 1, 0)):
        version, page = evm.ask(MODELS, "rules", start, count)
        assert version == 7
        assert [model for model, _, _ in page] == models[start : start + expected]
    assert len(evm.ask(MODELS, "rules", 1, 2**256 - 1)[1]) == 6


@pytest.mark.parametrize(
    ("splits", "error"),
    [
        ([(ACCOUNT, 0, 1)], "BadShare"),
        ([(ACCOUNT, 4, 1)], "BadShare"),
        ([(ACCOUNT, 255, 1)], "BadShare"),
        ([(ACCOUNT, PUBLISHER, 0)], "BadShare"),
        ([(bytes(32), PUBLISHER, 1)], "BadShare"),
        ([(ACCOUNT, DATA, 1), (OTHER, DATA, 1), (ACCOUNT, DATA, 1)], "BadShare"),
        ([(ACCOUNT, DATA, 4_001)], "SplitTooHigh"),
        ([(ACCOUNT, DATA, 4_000), (OTHER, DATA, 1)], "SplitTooHigh"),
        ([(ACCOUNT, DATA, 65_535), (OTHER, DATA, 65_535)], "SplitTooHigh"),
        ([(bytes([n]) * 32, DATA, 1) for n in range(1, 10)], "TooManyShares"),
    ],
)
def test_a_wrong_split_is_refused_by_name(evm: Evm, splits: Any, error: str) -> None:
    assert evm.refused(TIMELOCK, MODELS, "setModel", ONE, True, splits) == error
    assert evm.ask(MODELS, "version") == 0


def test_the_largest_split(evm: Evm) -> None:
    shares = tuple((bytes([n]) * 32, DATA, 500) for n in range(1, 9))
    put(evm, ONE, splits=shares)
    assert listed(evm) == {ONE: (True, shares)}


def test_the_policy_s_version_only_rises(evm: Evm) -> None:
    evm.send(TIMELOCK, MODELS, "setModeration", TWO, 5)
    expected = {"hash": TWO, "policyVersion": 5, "version": 1}
    assert evm.events(MODELS) == [("ModerationSet", expected)]
    for version in (5, 4, 0):
        refused = evm.refused(TIMELOCK, MODELS, "setModeration", ONE, version)
        assert refused == "PolicyVersionNotRaised"
    evm.send(TIMELOCK, MODELS, "setModeration", bytes(32), 6)
    assert evm.ask(MODELS, "moderation") == bytes(32)
    assert (evm.ask(MODELS, "policyVersion"), evm.ask(MODELS, "version")) == (6, 2)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("setModel", (ONE, True, [])),
        ("removeModel", (ONE,)),
        ("setOpen", (False,)),
        ("setModeration", (ONE, 1)),
    ],
)
def test_only_the_timelock_changes_anything(
    evm: Evm, function: str, arguments: tuple[Any, ...]
) -> None:
    put(evm, ONE)
    for caller in (DEPLOYER, NOBODY, ACCOUNT[:20]):
        assert evm.refused(caller, MODELS, function, *arguments) == "NotTimelock"
    assert evm.ask(MODELS, "version") == 1


def test_a_model_has_a_name_and_a_registry_a_timelock(evm: Evm) -> None:
    assert evm.refused(TIMELOCK, MODELS, "setModel", bytes(32), True, []) == "ZeroModel"
    with pytest.raises(Refused, match="ZeroTimelock"):
        evm.create(calls.constructor(MODELS, NOBODY, True))
    assert evm.ask(MODELS, "timelock") == TIMELOCK


@pytest.mark.slow
def test_the_list_is_bounded(evm: Evm) -> None:
    for number in range(1, 4_097):
        put(evm, number.to_bytes(32))
    assert evm.refused(TIMELOCK, MODELS, "setModel", bytes([9]) * 32, True, []) == "TooManyModels"
    put(evm, (1).to_bytes(32), allowed=False)
