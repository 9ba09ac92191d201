"""What a block of the local chain must be, beyond what the EVM asks: the producer has no choices.

One transaction a block, its gas within the bound, every free header field fixed: what is left to
the producer is the order of transactions and the clock. With no transaction above half of a block's
gas the base fee stays 0, so transactions are free. Followers refuse any other block.
"""

from __future__ import annotations

from typing import Any, Final

from assay_contracts.local.evm import BLANK_ROOT_HASH, POST_MERGE_MIX_HASH, ZERO_ADDRESS
from assay_contracts.local.genesis import BASE_FEE, GAS_LIMIT, TRANSACTION_GAS_MAX
from assay_protocol.errors import AssayError

TRANSACTION_BYTES_MAX: Final = 128 * 1024
_TYPES: Final = (0, 1, 2)  # legacy, access list, dynamic fee
_FIXED: Final[dict[str, Any]] = {
    "gas_limit": GAS_LIMIT,
    "base_fee_per_gas": BASE_FEE,
    "coinbase": ZERO_ADDRESS,
    "extra_data": b"",
    "mix_hash": POST_MERGE_MIX_HASH,
    "parent_beacon_block_root": BLANK_ROOT_HASH,
    "blob_gas_used": 0,
}


def next_header(vm_class: Any, parent: Any, timestamp: int) -> Any:
    """The header of the block after `parent`, before its transaction."""
    return vm_class.create_header_from_parent(
        parent, timestamp=max(parent.timestamp + 1, timestamp), gas_limit=GAS_LIMIT
    )


def check_transaction(transaction: Any, raw: bytes, chain_id: int) -> None:
    """Raises AssayError: "oversized", "chain_mismatch" (a kind of transaction that is not mined
    here: blobs, delegated code; or one signed for another chain, which py-evm would take if it is
    a legacy one), "gas_too_low" (more gas than a transaction may use)."""
    if len(raw) > TRANSACTION_BYTES_MAX:
        raise AssayError("oversized", "a transaction of more than 128 KiB")
    if (transaction.type_id or 0) not in _TYPES:
        raise AssayError("chain_mismatch", f"transactions of type {transaction.type_id} are none")
    if transaction.chain_id != chain_id:
        raise AssayError(
            "chain_mismatch", "the transaction is signed for another chain, or for any"
        )
    if transaction.gas > TRANSACTION_GAS_MAX:
        raise AssayError("gas_too_low", f"a transaction may use {TRANSACTION_GAS_MAX} gas at most")


def check_block(block: Any, parent: Any, chain_id: int) -> None:
    """Raises AssayError("chain_mismatch") naming the block and what is wrong with it."""
    header = block.header
    number = header.block_number
    if number != parent.block_number + 1:
        raise _wrong(number, f"it comes after block {parent.block_number}")
    if header.parent_hash != parent.hash:
        raise _wrong(number, "it does not follow the block before it: another parent hash")
    if header.timestamp <= parent.timestamp:
        raise _wrong(number, "its timestamp is not above its parent's")
    for name, wanted in _FIXED.items():
        if getattr(header, name) != wanted:
            raise _wrong(number, f"{name} is not {_shown(wanted)}")
    if len(block.transactions) != 1 or block.withdrawals or block.uncles:
        raise _wrong(number, "it does not hold one transaction and nothing else")
    (transaction,) = block.transactions
    try:
        check_transaction(transaction, transaction.encode(), chain_id)
    except AssayError as error:
        raise _wrong(number, error.message) from None


def check_executed(executed: Any, given: Any) -> None:
    """Raises AssayError("chain_mismatch") naming the first field in which the block that execution
    gives is another than the one that was given."""
    if executed.hash == given.hash:
        return
    wanted, number = executed.header.as_dict(), given.header.block_number
    name = next(name for name, value in given.header.as_dict().items() if wanted[name] != value)
    raise _wrong(number, f"executed here it has another {name}: {_shown(wanted[name])}")


def _shown(value: Any) -> str:
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)


def _wrong(number: int, why: str) -> AssayError:
    return AssayError("chain_mismatch", f"block {number}: {why}")
