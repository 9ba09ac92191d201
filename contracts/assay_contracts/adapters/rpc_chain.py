"""A chain behind a JSON-RPC URL, as `backend.Chain`: httpx on trio, nothing asyncio.

What a node answers is foreign: every answer is bounded in bytes and time and read field by field.
Codes: "chain_unavailable" (no answer, busy, or not in step: try again), "chain_mismatch" (an answer
of no chain, or of another chain than at first: the chain id is pinned and told again with every
head), `ContractRefused`, `SendRefused`. Blocks, receipts and logs come in batches.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import httpx
import trio

from assay_contracts.adapters.backend import Fees
from assay_contracts.adapters.rpc_answers import (
    block_of,
    data_of,
    fault_of,
    logs_of,
    no_answer,
    quantity_of,
    receipt_of,
)
from assay_contracts.adapters.wallet import transaction_hash
from assay_contracts.hex_texts import hexed
from assay_contracts.records import Block, Log, Receipt, SendRefused
from assay_protocol.errors import AssayError

ANSWER_BYTES_MAX: Final = 8 << 20
ANSWER_SECONDS_MAX: Final = 20.0
CONNECT_SECONDS_MAX: Final = 5.0
BATCH_MAX: Final = 64
BLOCKS_MAX: Final = 256
REQUESTS_MAX: Final = 8  # under way at once
_KNOWN: Final = ("already known", "known transaction", "already imported")
_BUSY_STATUS: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Ask:
    """One method with its parameters."""

    method: str
    params: tuple[Any, ...] = ()


class RpcChain:
    """Ask it from one trio run; `aclose` when done. `chain_id` pins the chain from the start."""

    has_pool = True

    def __init__(
        self, url: str, *, chain_id: int | None = None, client: httpx.AsyncClient | None = None
    ) -> None:
        timeout = httpx.Timeout(ANSWER_SECONDS_MAX, connect=CONNECT_SECONDS_MAX)
        self._client = client or httpx.AsyncClient(timeout=timeout, trust_env=False)
        self._url, self._pinned, self._next = url, chain_id, 0
        self._limit = trio.CapacityLimiter(REQUESTS_MAX)

    async def chain_id(self) -> int:
        if self._pinned is None:
            self._pin(await self._one("eth_chainId"))
        assert self._pinned is not None
        return self._pinned

    async def head(self) -> Block:
        return await self._tagged("latest")

    async def finalized(self) -> Block:
        return await self._tagged("finalized")

    async def block(self, which: int | bytes) -> Block | None:
        if isinstance(which, bytes):
            return block_of(await self._one("eth_getBlockByHash", hexed(which), False))
        return block_of(await self._one("eth_getBlockByNumber", hex(which), False))

    async def blocks(self, first: int, count: int) -> tuple[Block, ...]:
        """Up to `count` blocks of the present chain from number `first` on."""
        assert count <= BLOCKS_MAX
        asks = [Ask("eth_getBlockByNumber", (hex(first + i), False)) for i in range(count)]
        found: list[Block] = []
        for answer in await self.ask_all(asks):
            block = block_of(answer)
            if block is None or block.number != first + len(found):
                break
            found.append(block)
        return tuple(found)

    async def call(
        self, to: bytes, data: bytes, *, sender: bytes = bytes(20), at: int | None = None
    ) -> bytes:
        call = {"from": hexed(sender), "to": hexed(to), "data": hexed(data)}
        return data_of(await self._one("eth_call", call, _tag(at)))

    async def code(self, address: bytes, *, at: int | None = None) -> bytes:
        return data_of(await self._one("eth_getCode", hexed(address), _tag(at)))

    async def nonce(self, address: bytes) -> int:
        return quantity_of(await self._one("eth_getTransactionCount", hexed(address), "latest"))

    async def balance(self, address: bytes) -> int:
        return quantity_of(await self._one("eth_getBalance", hexed(address), "latest"))

    async def fees(self) -> Fees:
        latest = ("latest", False)
        asks = [Ask("eth_getBlockByNumber", latest), Ask("eth_maxPriorityFeePerGas")]
        answers = await self.ask_all(asks)
        block = block_of(answers[0])
        if block is None:
            raise AssayError("chain_mismatch", "the node has no newest block")
        return Fees(block.base_fee, quantity_of(answers[1]))

    async def estimate(self, sender: bytes, to: bytes | None, data: bytes) -> int:
        call = {"from": hexed(sender), "data": hexed(data)}
        if to is not None:
            call["to"] = hexed(to)
        return quantity_of(await self._one("eth_estimateGas", call))

    async def send_raw(self, raw: bytes) -> bytes:
        name = transaction_hash(raw)
        try:
            told = data_of(await self._one("eth_sendRawTransaction", hexed(raw)), 32)
        except SendRefused as refused:
            if any(word in refused.message.lower() for word in _KNOWN):
                return name
            raise
        if told != name:
            raise AssayError("chain_mismatch", "the node names the transaction otherwise")
        return name

    async def receipt(self, transaction_hash: bytes) -> Receipt | None:
        return (await self.receipts((transaction_hash,)))[0]

    async def receipts(self, names: Sequence[bytes]) -> tuple[Receipt | None, ...]:
        asks = [Ask("eth_getTransactionReceipt", (hexed(name),)) for name in names]
        found = tuple(receipt_of(answer) for answer in await self.ask_all(asks))
        for name, receipt in zip(names, found, strict=True):
            if receipt is not None and receipt.transaction_hash != name:
                raise AssayError("chain_mismatch", "the receipt is another transaction's")
        return found

    async def logs(self, block_hash: bytes, addresses: tuple[bytes, ...]) -> tuple[Log, ...]:
        return (await self.logs_of((block_hash,), addresses))[0]

    async def logs_of(
        self, block_hashes: tuple[bytes, ...], addresses: tuple[bytes, ...]
    ) -> tuple[tuple[Log, ...], ...]:
        """The events of several blocks; chain_unavailable if one is gone meanwhile."""
        wanted = [hexed(address) for address in addresses]
        filters = ({"blockHash": hexed(one), "address": wanted} for one in block_hashes)
        answers = await self.ask_all([Ask("eth_getLogs", (one,)) for one in filters])
        pairs = zip(block_hashes, answers, strict=True)
        return tuple(logs_of(answer, name, addresses) for name, answer in pairs)

    async def ask_all(self, asks: Sequence[Ask]) -> list[Any]:
        """The results, in order. Raises the error of the first that has one."""
        results: list[Any] = []
        for at in range(0, len(asks), BATCH_MAX):
            results += await self._batch(asks[at : at + BATCH_MAX])
        return results

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _tagged(self, tag: str) -> Block:
        asks = [Ask("eth_chainId"), Ask("eth_getBlockByNumber", (tag, False))]
        chain, found = await self.ask_all(asks)
        self._pin(chain)
        block = block_of(found)
        if block is None:
            raise AssayError("chain_unavailable", f"the node has no {tag} block")
        return block

    def _pin(self, told: Any) -> None:
        chain = quantity_of(told)
        if self._pinned is None:
            self._pinned = chain
        if chain != self._pinned:
            text = f"the node is of chain {chain}, not {self._pinned}"
            raise AssayError("chain_mismatch", text)

    async def _one(self, method: str, *params: Any) -> Any:
        return (await self._batch([Ask(method, params)]))[0]

    async def _batch(self, asks: Sequence[Ask]) -> list[Any]:
        first = self._next
        self._next += len(asks)
        requests = [
            {"jsonrpc": "2.0", "id": first + i, "method": ask.method, "params": list(ask.params)}
            for i, ask in enumerate(asks)
        ]
        answers = await self._post(requests if len(requests) > 1 else requests[0])
        listed = answers if isinstance(answers, list) else [answers]
        if len(requests) > 1 and not isinstance(answers, list):
            raise fault_of(asks[0].method, answers)
        by_id = {
            one["id"]: one
            for one in listed
            if isinstance(one, dict) and isinstance(one.get("id"), int)
        }
        return [_result(ask, by_id.get(first + i)) for i, ask in enumerate(asks)]

    async def _post(self, body: Any) -> Any:
        try:
            async with self._limit:
                with trio.fail_after(ANSWER_SECONDS_MAX):
                    async with self._client.stream("POST", self._url, json=body) as response:
                        received = await _read(response)
            return json.loads(received)
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
            kind = type(error).__name__
            raise AssayError("chain_unavailable", f"the node does not answer: {kind}") from None
        except (ValueError, RecursionError):
            raise no_answer("no JSON") from None


async def _read(response: httpx.Response) -> bytes:
    if response.status_code in _BUSY_STATUS or response.status_code >= 500:
        raise AssayError("chain_unavailable", f"HTTP {response.status_code}")
    received = bytearray()
    incoming: Any = response.aiter_bytes()  # a generator, which must be closed
    async with aclosing(incoming) as chunks:
        async for chunk in chunks:
            received += chunk
            if len(received) > ANSWER_BYTES_MAX:
                raise no_answer("an answer of more than 8 MiB")
    return bytes(received)


def _result(ask: Ask, answer: Any) -> Any:
    if not isinstance(answer, dict):
        raise no_answer(f"nothing for {ask.method}")
    if answer.get("error") is not None or "result" not in answer:
        raise fault_of(ask.method, answer)
    return answer["result"]


def _tag(at: int | None) -> str:
    return "latest" if at is None else hex(at)
