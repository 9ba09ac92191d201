"""Blocks, transactions and receipts as JSON-RPC has them, complete enough for stock clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import rlp

from assay_contracts.hex_texts import hexed
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.evm import CREATE_CONTRACT_ADDRESS
from assay_contracts.local.genesis import contract_address

_LEGACY: Final = 0
_DYNAMIC_FEE: Final = 2


def block_fields(chain: LocalChain, header: Any, full: bool) -> dict[str, Any]:
    """`full`: transactions whole, not by hash."""
    block = chain.block(bytes(header.hash))
    assert block is not None
    transactions: list[Any] = [hexed(name) for name in block.transactions]
    if full:
        transactions = [transaction_fields(chain, name) for name in block.transactions]
    raw = rlp.encode(header)
    return {
        "number": hex(header.block_number),
        "hash": hexed(header.hash),
        "parentHash": hexed(header.parent_hash),
        "sha3Uncles": hexed(header.uncles_hash),
        "miner": hexed(header.coinbase),
        "stateRoot": hexed(header.state_root),
        "transactionsRoot": hexed(header.transaction_root),
        "receiptsRoot": hexed(header.receipt_root),
        "logsBloom": _bloom(header.bloom),
        "difficulty": hex(header.difficulty),
        "totalDifficulty": "0x0",
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "extraData": hexed(header.extra_data),
        "mixHash": hexed(header.mix_hash),
        "nonce": hexed(header.nonce),
        "baseFeePerGas": hex(header.base_fee_per_gas),
        "withdrawalsRoot": hexed(header.withdrawals_root),
        "blobGasUsed": hex(header.blob_gas_used),
        "excessBlobGas": hex(header.excess_blob_gas),
        "parentBeaconBlockRoot": hexed(header.parent_beacon_block_root),
        "requestsHash": hexed(header.requests_hash),
        "size": hex(len(raw)),
        "uncles": [],
        "withdrawals": [],
        "transactions": transactions,
    }


def transaction_fields(chain: LocalChain, name: bytes) -> dict[str, Any] | None:
    """None if no such transaction was mined."""
    found = chain.mined(name)
    if found is None:
        return None
    header, mined, _ = found
    kind = mined.type_id or _LEGACY
    fields: dict[str, Any] = {
        "hash": hexed(name),
        "blockNumber": hex(header.block_number),
        "blockHash": hexed(header.hash),
        "transactionIndex": "0x0",  # a block of the local chain holds one transaction
        "chainId": hex(chain.chain_id),
        "nonce": hex(mined.nonce),
        "from": hexed(mined.sender),
        "to": None if mined.to == CREATE_CONTRACT_ADDRESS else hexed(mined.to),
        "gas": hex(mined.gas),
        "value": hex(mined.value),
        "input": hexed(mined.data),
        "type": hex(kind),
        "r": hex(mined.r),
        "s": hex(mined.s),
        "gasPrice": hex(_price(mined, header)),
    }
    if kind == _LEGACY:
        return fields | {"v": hex(mined.v)}
    fields |= {"v": hex(mined.y_parity), "yParity": hex(mined.y_parity)}
    fields["accessList"] = [
        {"address": hexed(address), "storageKeys": [hexed(k.to_bytes(32)) for k in keys]}
        for address, keys in mined.access_list
    ]
    if kind == _DYNAMIC_FEE:
        fields["maxFeePerGas"] = hex(mined.max_fee_per_gas)
        fields["maxPriorityFeePerGas"] = hex(mined.max_priority_fee_per_gas)
    return fields


def receipt_fields(chain: LocalChain, name: bytes) -> dict[str, Any] | None:
    """None if no such transaction was mined."""
    found = chain.mined(name)
    if found is None:
        return None
    header, mined, receipt = found
    creates = mined.to == CREATE_CONTRACT_ADDRESS
    return {
        **_place(name, header),
        "from": hexed(mined.sender),
        "to": None if creates else hexed(mined.to),
        "contractAddress": hexed(contract_address(mined.sender, mined.nonce)) if creates else None,
        "gasUsed": hex(receipt.gas_used),
        "cumulativeGasUsed": hex(receipt.gas_used),
        "effectiveGasPrice": hex(_price(mined, header)),
        "status": "0x1",  # a refused transaction leaves no block
        "type": hex(mined.type_id or _LEGACY),
        "logsBloom": _bloom(receipt.bloom),
        "logs": list(_logs(name, header, receipt)),
    }


def log_fields(chain: LocalChain, header: Any) -> list[dict[str, Any]]:
    """Every event of a block."""
    if not header.bloom:
        return []
    block = chain.block(bytes(header.hash))
    assert block is not None
    mined = ((name, chain.mined(name)) for name in block.transactions)
    return [log for name, found in mined if found for log in _logs(name, header, found[2])]


def _logs(name: bytes, header: Any, receipt: Any) -> Iterator[dict[str, Any]]:
    for index, log in enumerate(receipt.logs):
        yield {
            **_place(name, header),
            "logIndex": hex(index),
            "blockTimestamp": hex(header.timestamp),
            "address": hexed(log.address),
            "topics": [hexed(topic.to_bytes(32)) for topic in log.topics],
            "data": hexed(log.data),
            "removed": False,
        }


def _place(name: bytes, header: Any) -> dict[str, Any]:
    return {
        "transactionHash": hexed(name),
        "transactionIndex": "0x0",
        "blockNumber": hex(header.block_number),
        "blockHash": hexed(header.hash),
    }


def _price(mined: Any, header: Any) -> int:
    if (mined.type_id or _LEGACY) != _DYNAMIC_FEE:
        return int(mined.gas_price)
    tip = min(mined.max_priority_fee_per_gas, mined.max_fee_per_gas - header.base_fee_per_gas)
    return int(header.base_fee_per_gas + tip)


def _bloom(bits: int) -> str:
    return hexed(bits.to_bytes(256))
