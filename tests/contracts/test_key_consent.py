"""A key is taken, and its pay sent anywhere, only by what it signed itself, for here and once.

With the real verifier and the product's own signatures.
"""

import pytest

from assay_contracts import calls
from assay_contracts.ed25519_hints import HintedSignature, signed
from assay_protocol.signing import Identity
from contracts.evm import registry_config
from contracts.network_evm import NetworkEvm

ALICE, BOB = (bytes([n]) * 20 for n in (0xA1, 0xB0))
CHAIN_ID = 1  # pyrevm's
REGISTRY = "NodeRegistry"
REGISTER, BIND = b"assay/1/Register\0", b"assay/1/Bind\0"
IDENTITY = Identity(bytes(range(32)))
KEY = IDENTITY.public_key


@pytest.fixture
def evm() -> NetworkEvm:
    made = NetworkEvm()
    for owner in (ALICE, BOB):
        made.give(owner, 10_000, REGISTRY)
    return made


def consent(
    evm: NetworkEvm,
    domain: bytes,
    named: bytes,
    nonce: int = 0,
    *,
    chain: int = CHAIN_ID,
    registry: bytes = b"",
    by: Identity = IDENTITY,
) -> HintedSignature:
    place = chain.to_bytes(32) + (registry or evm.at[REGISTRY])
    return signed(by, domain + place + named + nonce.to_bytes(32))


def test_a_key_that_consents_is_registered_and_bound(evm: NetworkEvm) -> None:
    evm.send(ALICE, REGISTRY, "register", KEY, 200, consent(evm, REGISTER, ALICE))
    evm.send(BOB, REGISTRY, "bind", KEY, BOB, consent(evm, BIND, BOB, 1))
    assert (evm.ask(REGISTRY, "ownerOf", KEY), evm.ask(REGISTRY, "payeeOf", KEY)) == (ALICE, BOB)


def test_a_consent_serves_nobody_but_whom_it_names(evm: NetworkEvm) -> None:
    given = consent(evm, REGISTER, ALICE)
    assert evm.refused(BOB, REGISTRY, "register", KEY, 200, given) == "BadSignature"
    given = consent(evm, BIND, ALICE)
    assert evm.refused(BOB, REGISTRY, "bind", KEY, BOB, given) == "BadSignature"


def test_a_consent_serves_once(evm: NetworkEvm) -> None:
    """Else who saw it could bind the key back to where it was."""
    first, second = consent(evm, BIND, ALICE), consent(evm, BIND, BOB, 1)
    evm.send(ALICE, REGISTRY, "bind", KEY, ALICE, first)
    evm.send(ALICE, REGISTRY, "bind", KEY, BOB, second)
    for payee, used in ((ALICE, first), (BOB, second)):
        assert evm.refused(ALICE, REGISTRY, "bind", KEY, payee, used) == "BadSignature"


def test_a_key_that_left_does_not_come_back_by_an_old_consent(evm: NetworkEvm) -> None:
    given = consent(evm, REGISTER, ALICE)
    evm.send(ALICE, REGISTRY, "register", KEY, 200, given)
    evm.send(ALICE, REGISTRY, "beginExit", KEY)
    evm.pass_time(evm.wiring.unbonding)
    evm.send(ALICE, REGISTRY, "withdraw", KEY)
    assert evm.refused(ALICE, REGISTRY, "register", KEY, 200, given) == "BadSignature"
    evm.send(ALICE, REGISTRY, "register", KEY, 200, consent(evm, REGISTER, ALICE, 1))


def test_a_consent_is_for_one_thing_on_one_chain_in_one_registry(evm: NetworkEvm) -> None:
    other = evm.create(calls.constructor(REGISTRY, registry_config(evm)))
    stranger = Identity(bytes(32))
    for given in (
        consent(evm, BIND, ALICE),
        consent(evm, REGISTER, ALICE, chain=2),
        consent(evm, REGISTER, ALICE, registry=other),
        consent(evm, REGISTER, ALICE, nonce=1),
        consent(evm, REGISTER, ALICE, by=stranger),
    ):
        assert evm.refused(ALICE, REGISTRY, "register", KEY, 200, given) == "BadSignature"
    given = consent(evm, REGISTER, BOB)
    assert evm.refused(ALICE, REGISTRY, "bind", KEY, BOB, given) == "BadSignature"
