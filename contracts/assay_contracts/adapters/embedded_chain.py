"""The chain in this process, as `backend.Chain`: `LocalChain` in one thread, one call at a time.

It mines what it is sent at once and keeps nothing that waits: what it refuses has left no trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import trio

from assay_contracts.adapters.backend import Fees
from assay_contracts.adapters.storage import storage_errors
from assay_contracts.adapters.wallet import transaction_hash
from assay_contracts.local.chain import LocalChain
from assay_contracts.records import Block, ContractRefused, Log, Receipt, SendRefused
from assay_protocol.errors import AssayError

_T = TypeVar("_T")
BLOCKS_MAX: Final = 256  # one question may ask for


class EmbeddedChain:
    """Cancelling a call waits for it: an EVM run is bounded by its gas."""

    has_pool = False

    def __init__(self, chain: LocalChain) -> None:
        self.local = chain
        self._one = trio.CapacityLimiter(1)

    async def chain_id(self) -> int:
        return self.local.chain_id

    async def head(self) -> Block:
        return await self._run(self.local.head_block)

    async def finalized(self) -> Block:
        return await self._run(self.local.finalized_block)

    async def block(self, which: int | bytes) -> Block | None:
        return await self._run(lambda: self.local.block(which))

    async def blocks(self, first: int, count: int) -> tuple[Block, ...]:
        """Up to `count` canonical blocks from number `first` on, as far as there are any."""
        assert count <= BLOCKS_MAX

        def read() -> tuple[Block, ...]:
            found: list[Block] = []
            for number in range(first, first + count):
                block = self.local.block(number)
                if block is None:
                    break
                found.append(block)
            return tuple(found)

        return await self._run(read)

    async def call(
        self, to: bytes, data: bytes, *, sender: bytes = bytes(20), at: int | None = None
    ) -> bytes:
        return await self._run(lambda: self.local.call(to, data, sender=sender, at=at))

    async def code(self, address: bytes, *, at: int | None = None) -> bytes:
        return await self._run(lambda: self.local.code(address, at=at))

    async def nonce(self, address: bytes) -> int:
        return await self._run(lambda: self.local.nonce(address))

    async def balance(self, address: bytes) -> int:
        return await self._run(lambda: self.local.balance(address))

    async def fees(self) -> Fees:
        head = await self.head()
        return Fees(head.base_fee, 0)

    async def estimate(self, sender: bytes, to: bytes | None, data: bytes) -> int:
        return await self._run(lambda: self.local.estimate(sender, to, data))

    async def send_raw(self, raw: bytes) -> bytes:
        name = transaction_hash(raw)

        def send() -> None:
            if self.local.receipt(name) is None:
                self.local.send_raw(raw)

        try:
            await self._run(send)
        except ContractRefused:
            raise
        except AssayError as error:
            if error.code != "chain_mismatch":
                raise
            raise SendRefused(_why(error.message), error.message) from None
        return name

    async def receipt(self, transaction_hash: bytes) -> Receipt | None:
        return await self._run(lambda: self.local.receipt(transaction_hash))

    async def logs(self, block_hash: bytes, addresses: tuple[bytes, ...]) -> tuple[Log, ...]:
        return (await self.logs_of((block_hash,), addresses))[0]

    async def logs_of(
        self, block_hashes: tuple[bytes, ...], addresses: tuple[bytes, ...]
    ) -> tuple[tuple[Log, ...], ...]:
        """The same of several blocks; raises chain_unavailable if one is gone."""
        return await self._run(lambda: tuple(self._logs(one, addresses) for one in block_hashes))

    async def aclose(self) -> None:
        await self._run(self.local.close)

    def _logs(self, block_hash: bytes, addresses: tuple[bytes, ...]) -> tuple[Log, ...]:
        if self.local.header(block_hash) is None:
            raise AssayError("chain_unavailable", f"block {block_hash.hex()} is gone")
        return self.local.logs(block_hash, addresses)

    async def _run(self, action: Callable[[], _T]) -> _T:
        def guarded() -> _T:
            with storage_errors():  # of what the producer keeps beside the chain
                return action()

        return await trio.to_thread.run_sync(guarded, limiter=self._one)


def _why(message: str) -> str:
    """py-evm tells apart in words only."""
    lowered = message.lower()
    if "nonce" in lowered:
        return "nonce"
    if "balance" in lowered or "fund" in lowered:
        return "funds"
    return "underpriced" if "fee" in lowered else "other"
