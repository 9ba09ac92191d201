"""Running a call in the EVM without a transaction, and how much gas a transaction wants."""

from __future__ import annotations

from typing import Any

from eth_utils import ValidationError

from assay_contracts.local.evm import CREATE_CONTRACT_ADDRESS, SpoofTransaction, VMError
from assay_contracts.records import ContractRefused


def run_call(vm: Any, to: bytes | None, data: bytes, sender: bytes, gas: int) -> Any:
    """The computation of a call in the block of `vm`, changing nothing; `to` None creates.

    Raises ContractRefused if it reverts or takes more than `gas`.
    """
    # Gas costs nothing in a call, but the sender must still be a transaction's sender.
    unsigned = vm.create_unsigned_transaction(
        nonce=vm.state.get_nonce(sender),
        gas_price=0,
        gas=gas,
        to=CREATE_CONTRACT_ADDRESS if to is None else to,
        value=0,
        data=data,
    )
    # Not `vm.in_costless_state`: that is a block further on, with a time a second later.
    state = vm.state
    before = state.snapshot()
    try:
        computation = state.costless_execute_transaction(SpoofTransaction(unsigned, from_=sender))
    except (ValidationError, VMError) as error:  # not even its calldata fits the gas
        raise ContractRefused(b"", f"no call: {error}") from None
    finally:
        state.revert(before)
    if computation.is_error:
        raise ContractRefused(bytes(computation.output), refusal(computation))
    return computation


def enough_gas(vm: Any, to: bytes | None, data: bytes, sender: bytes, gas: int) -> int:
    """Gas with which the transaction passes, at most `gas`; raises ContractRefused as `run_call`.

    What it uses, and an eighth more for what calls inside it hold back (EIP-150).
    """
    used = int(run_call(vm, to, data, sender, gas).get_gas_used())
    wanted = min(gas, used + used // 8 + intrinsic_gas(data, creates=to is None))
    while wanted < gas:
        try:
            run_call(vm, to, data, sender, wanted)
            return wanted
        except ContractRefused:
            wanted = min(gas, 2 * wanted)
    return gas


def intrinsic_gas(data: bytes, *, creates: bool) -> int:
    """Gas of a transaction before its first step, or the floor of its calldata if that is more
    (yellow paper 6.2, EIP-3860, EIP-7623)."""
    zeros = data.count(0)
    tokens = zeros + 4 * (len(data) - zeros)
    creation = 32_000 + 2 * ((len(data) + 31) // 32) if creates else 0
    return 21_000 + 10 * tokens + creation


def refusal(computation: Any) -> str:
    """Why the EVM reverted, for people."""
    return f"the contract refused: {type(computation.error).__name__} 0x{computation.output.hex()}"
