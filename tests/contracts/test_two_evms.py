"""py-evm, which mines the local chain, and revm, which others use, agree: gas, code and answers.

A follower with another EVM would come to the same blocks; a fault of one of the two would show.
"""

from __future__ import annotations

from typing import Any

import pyrevm
import pytest

from assay_contracts import calls
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.ed25519_hints import signed
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.execution import intrinsic_gas
from assay_contracts.records import ContractRefused
from assay_protocol.signing import Identity

KEY = Identity(bytes([7]) * 32)
MESSAGE = b"assay" * 20
COLD_ACCOUNT = 2_500  # EIP-2929: 2,600 the first time, then 100


def deployed(chain: LocalChain, ledger: CreditLedgerClient) -> Any:
    """revm after the same eight transactions, each compared as it was made."""
    evm = pyrevm.EVM(spec_id="PRAGUE")
    poster = f"0x{ledger.poster.hex()}"
    for creation in ledger.plan.creations():
        number = creation.nonce + 1
        block = chain.block(number)
        assert block is not None
        evm.set_block_env(pyrevm.BlockEnv(timestamp=block.timestamp, number=number))
        evm.set_tx_env(pyrevm.TxEnv(gas_limit=10_000_000))
        address = evm.deploy(poster, creation.code)
        assert bytes.fromhex(address[2:]) == creation.address
        # revm here keeps accounts warm from one transaction to the next: it may not charge one.
        assert block.gas_used - evm.result.gas_used in (0, COLD_ACCOUNT), creation.contract
        code = chain.code(creation.address)
        theirs = bytes(evm.get_code(address))  # which revm pads for its own use
        assert theirs[: len(code)] == code
        assert not any(theirs[len(code) :])
    return evm


def both(chain: LocalChain, evm: Any, to: bytes, data: bytes) -> tuple[bytes | None, bytes | None]:
    """What each answers; None if it refuses."""
    found: list[bytes | None] = []
    try:
        found.append(chain.call(to, data, at=chain.head_block().number))
    except ContractRefused:
        found.append(None)
    try:
        found.append(bytes(evm.message_call(f"0x{'00' * 20}", f"0x{to.hex()}", calldata=data)))
    except RuntimeError:
        found.append(None)
    return found[0], found[1]


def test_both_evms_make_the_same_contracts_for_the_same_gas(
    chain: LocalChain, ledger: CreditLedgerClient
) -> None:
    evm = deployed(chain, ledger)
    verifier = chain.genesis.contracts()[0]
    for message, wanted in ((MESSAGE, 1), (MESSAGE + b"!", 0)):
        arguments = (KEY.public_key, message, signed(KEY, MESSAGE))
        data = calls.encode("Ed25519Verifier", "verify", *arguments)
        mine, theirs = both(chain, evm, verifier, data)
        assert mine == theirs == wanted.to_bytes(32)
    for function, arguments in (("head", ()), ("isFinal", (1,)), ("epochs", (1,))):
        data = calls.encode("CreditLedger", function, *arguments)
        mine, theirs = both(chain, evm, ledger.address, data)
        assert mine == theirs is not None
    mine, theirs = both(chain, evm, ledger.address, b"\xff\xff\xff\xff")
    assert mine is theirs is None


@pytest.mark.parametrize("size", [0, 1, 33, 1_000])
def test_gas_that_is_estimated_suffices(
    chain: LocalChain, ledger: CreditLedgerClient, size: int
) -> None:
    """For calldata above all, which has a price of its own."""
    message = bytes(range(1, 256)) * 4
    data = calls.encode(
        "Ed25519Verifier", "verify", KEY.public_key, message[:size], signed(KEY, message[:size])
    )
    verifier = chain.genesis.contracts()[0]
    gas = chain.estimate(ledger.poster, verifier, data)
    used = chain.send(KEY.seed, verifier, data, gas=gas).gas_used
    assert used <= gas <= used + used // 7 + intrinsic_gas(data, creates=False)
