"""The JSON-RPC methods that read. Each is bounded in what it may cost, named here.

A call may use so much gas: py-evm runs about two million a second, and everybody waits.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

from assay_contracts.follow.block_sources import BLOCKS_MAX, blocks_of
from assay_contracts.hex_texts import hexed
from assay_contracts.local.chain import META_FINALITY, LocalChain
from assay_contracts.local.genesis import TRANSACTION_GAS_MAX
from assay_contracts.rpc.fields import block_fields, log_fields, receipt_fields, transaction_fields
from assay_contracts.rpc.values import (
    INVALID_PARAMS,
    RpcFault,
    at,
    block_at,
    data_in,
    quantity,
)

CALL_GAS_MAX: Final = 2_000_000
LOG_BLOCKS_MAX: Final = 1_024  # that one eth_getLogs may span
LOGS_MAX: Final = 4_096
FEE_BLOCKS_MAX: Final = 128
_TOPICS_MAX: Final = 4

Method = Callable[[LocalChain, list[Any]], Any]


def _chain_id(chain: LocalChain, params: list[Any]) -> str:
    return hex(chain.chain_id)


def _network(chain: LocalChain, params: list[Any]) -> str:
    return str(chain.chain_id)


def _block_number(chain: LocalChain, params: list[Any]) -> str:
    return hex(chain.head_block().number)


def _client_version(chain: LocalChain, params: list[Any]) -> str:
    return f"assay/{version('assay-network')}"


def _syncing(chain: LocalChain, params: list[Any]) -> bool:
    return False


def _no_accounts(chain: LocalChain, params: list[Any]) -> list[str]:
    return []


def _get_block(chain: LocalChain, params: list[Any]) -> dict[str, Any] | None:
    number = block_at(chain, params, 0)
    header = chain.header(chain.head_block().number if number is None else number)
    full = len(params) > 1 and params[1] is True
    return None if header is None else block_fields(chain, header, full)


def _get_block_by_hash(chain: LocalChain, params: list[Any]) -> dict[str, Any] | None:
    header = chain.header(data_in(at(params, 0), 32))
    full = len(params) > 1 and params[1] is True
    return None if header is None else block_fields(chain, header, full)


def _get_block_receipts(chain: LocalChain, params: list[Any]) -> list[Any] | None:
    block = _get_block(chain, [at(params, 0)])
    if block is None:
        return None
    return [receipt_fields(chain, data_in(name, 32)) for name in block["transactions"]]


def _call(chain: LocalChain, params: list[Any]) -> str:
    sender, to, data, gas = _unsigned(params)
    number = block_at(chain, params, 1)
    # An address without code answers nothing. It may be a precompile, though, and py-evm's pairings
    # take a second each: one call within its gas could keep the chain's lock for minutes.
    if to is None or not chain.code(to, at=number):
        return "0x"
    return hexed(chain.call(to, data, sender=sender, at=number, gas=min(gas, CALL_GAS_MAX)))


def _estimate_gas(chain: LocalChain, params: list[Any]) -> str:
    sender, to, data, gas = _unsigned(params)
    if to is None or not chain.code(to):
        raise RpcFault(INVALID_PARAMS, "only transactions to contracts are estimated")
    return hex(chain.estimate(sender, to, data, gas=min(gas, CALL_GAS_MAX)))


def _unsigned(params: list[Any]) -> tuple[bytes, bytes | None, bytes, int]:
    """A transaction object's sender, target, calldata and gas."""
    if not params or not isinstance(params[0], dict):
        raise RpcFault(INVALID_PARAMS, "a transaction object is missing")
    fields = params[0]
    sender = data_in(fields.get("from") or "0x" + "00" * 20, 20)
    to = data_in(fields["to"], 20) if fields.get("to") is not None else None
    data = data_in(fields.get("data") or fields.get("input") or "0x")
    gas = fields.get("gas")
    return sender, to, data, TRANSACTION_GAS_MAX if gas is None else quantity(gas)


def _get_code(chain: LocalChain, params: list[Any]) -> str:
    return hexed(chain.code(data_in(at(params, 0), 20), at=block_at(chain, params, 1)))


def _get_balance(chain: LocalChain, params: list[Any]) -> str:
    return hex(chain.balance(data_in(at(params, 0), 20), at=block_at(chain, params, 1)))


def _get_nonce(chain: LocalChain, params: list[Any]) -> str:
    return hex(chain.nonce(data_in(at(params, 0), 20), at=block_at(chain, params, 1)))


def _get_receipt(chain: LocalChain, params: list[Any]) -> dict[str, Any] | None:
    return receipt_fields(chain, data_in(at(params, 0), 32))


def _get_transaction(chain: LocalChain, params: list[Any]) -> dict[str, Any] | None:
    return transaction_fields(chain, data_in(at(params, 0), 32))


def _nothing(chain: LocalChain, params: list[Any]) -> str:
    return "0x0"


def _fee_history(chain: LocalChain, params: list[Any]) -> dict[str, Any]:
    raw = at(params, 0)
    count = raw if isinstance(raw, int) else quantity(raw)
    number = block_at(chain, params, 1)
    newest = chain.head_block().number if number is None else number
    count = max(0, min(count, FEE_BLOCKS_MAX, newest + 1))
    percentiles = params[2] if len(params) > 2 and isinstance(params[2], list) else []
    if len(percentiles) > FEE_BLOCKS_MAX:
        raise RpcFault(INVALID_PARAMS, "too many percentiles")
    headers = [chain.header(n) for n in range(newest + 1 - count, newest + 1)]
    known = [header for header in headers if header is not None]
    return {
        "oldestBlock": hex(newest + 1 - count),
        "baseFeePerGas": ["0x0"] * (len(known) + 1),
        "gasUsedRatio": [header.gas_used / header.gas_limit for header in known],
        "reward": [["0x0"] * len(percentiles) for _ in known],
    }


def _get_logs(chain: LocalChain, params: list[Any]) -> list[dict[str, Any]]:
    wanted = at(params, 0)
    if not isinstance(wanted, dict):
        raise RpcFault(INVALID_PARAMS, "eth_getLogs takes a filter object")
    addresses, topics = _addresses(wanted.get("address")), _topics(wanted.get("topics"))
    found: list[dict[str, Any]] = []
    for header in _headers(chain, wanted):
        found += [log for log in log_fields(chain, header) if _matches(log, addresses, topics)]
        if len(found) > LOGS_MAX:
            raise RpcFault(INVALID_PARAMS, f"more than {LOGS_MAX} logs: ask for fewer blocks")
    return found


def _headers(chain: LocalChain, wanted: dict[str, Any]) -> list[Any]:
    if "blockHash" in wanted:
        header = chain.header(data_in(wanted["blockHash"], 32))
        if header is None:
            raise RpcFault(INVALID_PARAMS, "there is no such block")
        return [header]
    head = chain.head_block().number
    ends = [block_at(chain, [wanted.get(name) or "latest"], 0) for name in ("fromBlock", "toBlock")]
    first, last = (head if end is None else end for end in ends)
    if last - first >= LOG_BLOCKS_MAX:
        raise RpcFault(INVALID_PARAMS, f"more than {LOG_BLOCKS_MAX} blocks")
    headers = (chain.header(number) for number in range(first, min(last, head) + 1))
    return [header for header in headers if header is not None]


def _addresses(raw: Any) -> frozenset[str] | None:
    if raw is None:
        return None
    listed = raw if isinstance(raw, list) else [raw]
    return frozenset(hexed(data_in(one, 20)) for one in listed)


def _topics(raw: Any) -> list[frozenset[str] | None]:
    """One entry a place: the topics that may stand there, or None for any."""
    if raw is None:
        return []
    if not isinstance(raw, list) or len(raw) > _TOPICS_MAX:
        raise RpcFault(INVALID_PARAMS, "topics is a list of at most 4")
    places = [one if isinstance(one, list | None) else [one] for one in raw]
    return [
        None if place is None else frozenset(hexed(data_in(one, 32)) for one in place)
        for place in places
    ]


def _matches(
    log: dict[str, Any], addresses: frozenset[str] | None, topics: list[frozenset[str] | None]
) -> bool:
    has: list[str] = log["topics"]
    return (
        (addresses is None or log["address"] in addresses)
        and len(has) >= len(topics)
        and all(not wanted or has[place] in wanted for place, wanted in enumerate(topics))
    )


def _get_chain(chain: LocalChain, params: list[Any]) -> dict[str, Any]:
    """What a follower needs to derive the genesis, and where the chain is."""
    return {
        "chainId": hex(chain.chain_id),
        "genesis": hexed(chain.genesis_hash),
        "poster": hexed(chain.genesis.poster),
        "producer": None if chain.producer is None else hexed(chain.producer),
        "head": hex(chain.head_block().number),
        "finalized": hex(chain.finalized_block().number),
        "contracts": [hexed(address) for address in chain.genesis.contracts()],
    }


def _get_blocks(chain: LocalChain, params: list[Any]) -> list[dict[str, str]]:
    """Sealed blocks from a number on, as far as they fit one answer."""
    first, count = quantity(at(params, 0)), quantity(at(params, 1))
    found = blocks_of(chain, max(first, 1), min(count, BLOCKS_MAX))
    return [{"raw": hexed(block.raw), "seal": hexed(block.seal)} for block in found]


def _get_finality(chain: LocalChain, params: list[Any]) -> str | None:
    proof = chain.meta(META_FINALITY)
    return None if proof is None else hexed(proof)


READS: Final[dict[str, Method]] = {
    "assay_getBlocks": _get_blocks,
    "assay_getChain": _get_chain,
    "assay_getFinality": _get_finality,
    "eth_accounts": _no_accounts,
    "eth_blockNumber": _block_number,
    "eth_call": _call,
    "eth_chainId": _chain_id,
    "eth_estimateGas": _estimate_gas,
    "eth_feeHistory": _fee_history,
    "eth_gasPrice": _nothing,
    "eth_getBalance": _get_balance,
    "eth_getBlockByHash": _get_block_by_hash,
    "eth_getBlockByNumber": _get_block,
    "eth_getBlockReceipts": _get_block_receipts,
    "eth_getCode": _get_code,
    "eth_getLogs": _get_logs,
    "eth_getTransactionByHash": _get_transaction,
    "eth_getTransactionCount": _get_nonce,
    "eth_getTransactionReceipt": _get_receipt,
    "eth_maxPriorityFeePerGas": _nothing,
    "eth_syncing": _syncing,
    "net_version": _network,
    "web3_clientVersion": _client_version,
}
