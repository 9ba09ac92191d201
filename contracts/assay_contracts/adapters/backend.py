"""A chain as all of Assay uses it, whoever mines it: in this process, on anvil, or behind any URL.

Everything is async on trio; the embedded chain runs in one thread, a node behind a URL is asked
by httpx. Errors are AssayError: "chain_unavailable" (try again), "chain_mismatch" (another chain,
or no answer of one), "contract_refused" (`ContractRefused`, with its data), "gas_too_low".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from assay_contracts.records import Block, Log, Receipt


@dataclass(frozen=True, slots=True)
class Fees:
    """What a transaction must offer now, in wei per gas: the next block's base fee, and a tip."""

    base: int
    tip: int


class Chain(Protocol):
    """Addresses are 20 bytes, hashes 32. `at` is a block's number; None is the newest."""

    async def chain_id(self) -> int: ...
    async def head(self) -> Block: ...
    async def finalized(self) -> Block:
        """The newest block that the chain will not take back; the head on an embedded chain."""
        ...

    async def block(self, which: int | bytes) -> Block | None: ...
    async def call(
        self, to: bytes, data: bytes, *, sender: bytes = bytes(20), at: int | None = None
    ) -> bytes: ...
    async def code(self, address: bytes, *, at: int | None = None) -> bytes: ...
    async def nonce(self, address: bytes) -> int:
        """Transactions of `address` that are in blocks."""
        ...

    async def balance(self, address: bytes) -> int: ...
    async def fees(self) -> Fees: ...
    async def estimate(self, sender: bytes, to: bytes | None, data: bytes) -> int:
        """Gas that the transaction would use. Raises ContractRefused if it would be refused."""
        ...

    async def send_raw(self, raw: bytes) -> bytes:
        """Hands a signed transaction over and gives its hash; known already is no error. The
        embedded chain has mined it when this returns, others only took it."""
        ...

    async def receipt(self, transaction_hash: bytes) -> Receipt | None:
        """Of a mined transaction."""
        ...

    async def logs(self, block_hash: bytes, addresses: tuple[bytes, ...]) -> tuple[Log, ...]:
        """The events of these contracts in one block, by its hash: forks cannot mix."""
        ...


class SequencedChain(Chain, Protocol):
    """A chain as the outbox and the follower use it; both chains here are."""

    @property
    def has_pool(self) -> bool:
        """Whether what was sent may wait and be mined later; else it is mined or gone at once."""
        ...

    async def blocks(self, first: int, count: int) -> tuple[Block, ...]:
        """Up to `count` blocks of the present chain from number `first` on, fewer at its end."""
        ...

    async def logs_of(
        self, block_hashes: tuple[bytes, ...], addresses: tuple[bytes, ...]
    ) -> tuple[tuple[Log, ...], ...]:
        """`logs` of several blocks. Raises "chain_unavailable" if one is gone."""
        ...
