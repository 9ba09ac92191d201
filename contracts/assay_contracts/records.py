"""What chains are made of, whoever runs them: light enough for the base install."""

from __future__ import annotations

from dataclasses import dataclass

from assay_protocol.errors import AssayError


class ContractRefused(AssayError):
    """The EVM reverted; `output` is the revert's data (selector and arguments of a custom
    error).
    """

    def __init__(self, output: bytes, message: str) -> None:
        super().__init__("contract_refused", message)
        self.output = output


class SendRefused(AssayError):
    """The chain did not take a transaction; it may come to be taken later, as it is or changed.

    `why`: "nonce" (used already, or not the next), "underpriced", "funds", or "other".
    """

    def __init__(self, why: str, message: str) -> None:
        code = "gas_too_low" if why in ("underpriced", "funds") else "chain_unavailable"
        super().__init__(code, message)
        self.why = why


@dataclass(frozen=True, slots=True)
class Block:
    """A block of the chain; `timestamp` in seconds, `transactions` by hash."""

    number: int
    hash: bytes
    parent_hash: bytes
    state_root: bytes
    timestamp: int
    gas_used: int
    gas_limit: int
    base_fee: int
    transactions: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Log:
    """An event: who emitted it, its topics (32 bytes each) and data."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined transaction; `ok` unless the contract refused it (only chains of others mine those).
    `contract` is the address it created, if it created one."""

    transaction_hash: bytes
    block: int
    block_hash: bytes
    gas_used: int
    sender: bytes
    to: bytes | None
    contract: bytes | None
    logs: tuple[Log, ...]
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Transaction:
    """A mined transaction's own content."""

    hash: bytes
    block: int
    block_hash: bytes
    nonce: int
    sender: bytes
    to: bytes | None
    data: bytes
    gas: int


@dataclass(frozen=True, slots=True)
class KeptBlock:
    """A block of the local chain as RLP, and its producer's seal (a signed Seal, or empty)."""

    number: int
    hash: bytes
    raw: bytes
    seal: bytes
