"""A JSON-RPC node in this process, over a real EVM, that fails in every way nodes fail.

It has what the local chain has not: a pool, blocks that are mined later, forks, fees, and a memory
that can be lost. A block is one transaction of the pool, mined by the chain underneath; going back
means to begin a new chain and mine what is kept again. Speaks through httpx's mock transport.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import rlp
import trio
from eth_account import Account

from assay_contracts.adapters.offers import Call, Offer
from assay_contracts.adapters.rpc_chain import RpcChain
from assay_contracts.adapters.wallet import Wallet, read_address, transaction_hash
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis
from assay_contracts.records import Block, ContractRefused, Log, Receipt

URL = "http://node/"


class Fault(Exception):
    """An error object of JSON-RPC."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


class RpcNode:
    """`mine`, `go_back` and `forget` move it; `fault` sees each request first and may spoil it."""

    def __init__(self, folder: Path, genesis: Genesis) -> None:
        self.folder, self.genesis = folder, genesis
        self.pool: dict[tuple[bytes, int], bytes] = {}
        self.base_fee, self.tip = 0, 0
        self.fault: Callable[[Any], httpx.Response | None] = lambda asked: None
        self.chain_id = genesis.chain_id
        self.requests = 0
        self.floor = 0  # blocks that stay, whatever happens
        self._files, self._now, self._stamp = 0, 1_800_000_000, 0
        self._blocks: list[tuple[int, bytes]] = []
        self.chain = self._begin()

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer_http))

    def rpc(self, **options: Any) -> RpcChain:
        return RpcChain(URL, client=self.client(), **options)

    # ---- what happens to it ----

    def mine(self, blocks: int = 1) -> None:
        """Blocks of what waits and pays, one transaction each; empty ones cannot be here, so a
        stranger's transaction fills a block when nothing waits."""
        for _ in range(blocks):
            raw = self._next()
            self._mine(raw if raw is not None else self._stranger())

    def go_back(self, depth: int, *, keep_pool: bool = True, other: int = 0) -> None:
        """The last `depth` blocks are replaced by `other` blocks of strangers."""
        depth = min(depth, len(self._blocks) - self.floor)
        kept, lost = (
            self._blocks[: len(self._blocks) - depth],
            self._blocks[-depth:] if depth else [],
        )
        self.chain.close()
        self._blocks = []
        self.chain = self._begin()
        for timestamp, raw in kept:
            self._mine(raw, timestamp)
        self._now += 7  # what comes now has other times, and so other hashes
        if not keep_pool:
            self.pool.clear()
        for _, raw in lost if keep_pool else []:
            self.take(raw)
        for _ in range(other):
            self._mine(self._stranger())

    def forget(self) -> None:
        """Restarted: what waited is gone."""
        self.pool.clear()

    def close(self) -> None:
        self.chain.close()

    def _begin(self) -> LocalChain:
        self._files += 1
        path = self.folder / f"node-{self._files}.db"
        return LocalChain.open(path, genesis=self.genesis, clock=lambda: self._stamp, durable=False)

    def _mine(self, raw: bytes, timestamp: int | None = None) -> None:
        if timestamp is None:
            self._now += 12
            timestamp = self._now
        self._stamp = timestamp
        try:
            self.chain.send_raw(raw)
        except ContractRefused:
            # The chain underneath mines no failures; others do. The nonce stays unused here, so the
            # transaction is only dropped: `ok=False` is tested where receipts are made by hand.
            return
        self._blocks.append((timestamp, raw))

    def _next(self) -> bytes | None:
        for (sender, nonce), raw in sorted(self.pool.items()):
            if nonce != self.chain.nonce(sender) or fee_of(raw) < self.base_fee:
                continue
            del self.pool[sender, nonce]
            return raw
        return None

    def _stranger(self) -> bytes:
        wallet = Wallet(b"\x33" * 32)
        nonce = self.chain.nonce(wallet.address)
        call = Call(wallet.address, self._now.to_bytes(8))
        return wallet.sign(self.genesis.chain_id, nonce, call, Offer(50_000, 0, 0))

    # ---- what it answers ----

    async def _answer_http(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        asked = json.loads(request.content)
        self.requests += 1
        spoilt = self.fault(asked)
        if spoilt is not None:
            return spoilt
        return httpx.Response(200, json=self.answer(asked))

    def answer(self, asked: Any) -> Any:
        """To a request or a batch; of a batch in another order, as nodes may."""
        if isinstance(asked, list):
            return [self._answer(one) for one in reversed(asked)]
        return self._answer(asked)

    def _answer(self, asked: Any) -> Any:
        whole = {"jsonrpc": "2.0", "id": asked["id"]}
        try:
            result = getattr(self, asked["method"].removeprefix("eth_"))(*asked["params"])
        except Fault as fault:
            return {**whole, "error": fault.error}
        except ContractRefused as refused:
            data = f"0x{refused.output.hex()}"
            return {**whole, "error": {"code": 3, "message": "execution reverted", "data": data}}
        return {**whole, "result": result}

    def chainId(self) -> str:  # noqa: N802  # a method of JSON-RPC
        return hex(self.chain_id)

    def getBlockByNumber(self, tag: str, _: bool) -> Any:  # noqa: N802
        if tag in ("latest", "finalized"):
            return self._block(self.chain.head_block())
        return self._block(self.chain.block(int(tag, 16)))

    def getBlockByHash(self, name: str, _: bool) -> Any:  # noqa: N802
        return self._block(self.chain.block(bytes.fromhex(name[2:])))

    def call(self, call: Any, tag: str) -> str:
        at = None if tag == "latest" else int(tag, 16)
        to, data, sender = (bytes.fromhex(call[name][2:]) for name in ("to", "data", "from"))
        return f"0x{self.chain.call(to, data, sender=sender, at=at).hex()}"

    def getCode(self, address: str, tag: str) -> str:  # noqa: N802
        return f"0x{self.chain.code(bytes.fromhex(address[2:])).hex()}"

    def getTransactionCount(self, address: str, tag: str) -> str:  # noqa: N802
        return hex(self.chain.nonce(bytes.fromhex(address[2:])))

    def getBalance(self, address: str, tag: str) -> str:  # noqa: N802
        return hex(self.chain.balance(bytes.fromhex(address[2:])))

    def maxPriorityFeePerGas(self) -> str:  # noqa: N802
        return hex(self.tip)

    def estimateGas(self, call: Any) -> str:  # noqa: N802
        to = bytes.fromhex(call["to"][2:]) if "to" in call else None
        data, sender = (bytes.fromhex(call[name][2:]) for name in ("data", "from"))
        return hex(self.chain.estimate(sender, to, data))

    def sendRawTransaction(self, text: str) -> str:  # noqa: N802
        raw = bytes.fromhex(text[2:])
        self.take(raw)
        return f"0x{transaction_hash(raw).hex()}"

    def getTransactionReceipt(self, name: str) -> Any:  # noqa: N802
        receipt = self.chain.receipt(bytes.fromhex(name[2:]))
        return None if receipt is None else shown_receipt(receipt)

    def getLogs(self, wanted: Any) -> Any:  # noqa: N802
        name = bytes.fromhex(wanted["blockHash"][2:])
        block = self.chain.block(name)
        if block is None or self.chain.block(block.number) != block:
            raise Fault(-32000, "unknown block")
        receipts = [self.chain.receipt(one) for one in block.transactions]
        logs = [log for receipt in receipts if receipt for log in receipt.logs]
        return [
            shown_log(log, name) for log in logs if f"0x{log.address.hex()}" in wanted["address"]
        ]

    def take(self, raw: bytes) -> None:
        chain_id, nonce, _, fee = fields_of(raw)
        sender = sender_of(raw)
        if chain_id != self.genesis.chain_id:
            raise Fault(-32000, "invalid chain id for signer")
        if nonce < self.chain.nonce(sender):
            if self.chain.receipt(transaction_hash(raw)):
                raise Fault(-32000, "already known")
            raise Fault(-32000, "nonce too low: next nonce is higher")
        old = self.pool.get((sender, nonce))
        if old == raw:
            raise Fault(-32000, "already known")
        if old is not None and fee * 10 < fee_of(old) * 11:
            raise Fault(-32000, "replacement transaction underpriced")
        self.pool[sender, nonce] = raw

    def _block(self, block: Block | None) -> Any:
        if block is None:
            return None
        return {
            "number": hex(block.number),
            "hash": f"0x{block.hash.hex()}",
            "parentHash": f"0x{block.parent_hash.hex()}",
            "stateRoot": f"0x{block.state_root.hex()}",
            "timestamp": hex(block.timestamp),
            "gasUsed": hex(block.gas_used),
            "gasLimit": hex(block.gas_limit),
            "baseFeePerGas": hex(self.base_fee),
            "transactions": [f"0x{one.hex()}" for one in block.transactions],
        }


def fields_of(raw: bytes) -> tuple[Any, ...]:
    """Chain id, nonce, tip and fee of an EIP-1559 transaction."""
    return tuple(int.from_bytes(one) for one in rlp.decode(raw[1:])[:4])


def fee_of(raw: bytes) -> int:
    return int(fields_of(raw)[3])


def sender_of(raw: bytes) -> bytes:
    return read_address(Account.recover_transaction(raw))


def shown_receipt(receipt: Receipt) -> Any:
    return {
        "transactionHash": f"0x{receipt.transaction_hash.hex()}",
        "blockNumber": hex(receipt.block),
        "blockHash": f"0x{receipt.block_hash.hex()}",
        "from": f"0x{receipt.sender.hex()}",
        "to": None if receipt.to is None else f"0x{receipt.to.hex()}",
        "contractAddress": None if receipt.contract is None else f"0x{receipt.contract.hex()}",
        "gasUsed": hex(receipt.gas_used),
        "status": "0x1" if receipt.ok else "0x0",
        "logs": [shown_log(log, receipt.block_hash) for log in receipt.logs],
    }


def shown_log(log: Log, block_hash: bytes) -> Any:
    return {
        "address": f"0x{log.address.hex()}",
        "topics": [f"0x{topic.hex()}" for topic in log.topics],
        "data": f"0x{log.data.hex()}",
        "blockHash": f"0x{block_hash.hex()}",
    }
