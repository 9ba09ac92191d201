"""Block 0 of the local chain, and the poster's key: both follow from what the operator configures.

Nothing of the machine or the moment enters, so a follower that knows the chain id and the poster's
address derives the same genesis hash, and with it can tell this chain from any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import rlp
from eth_utils import keccak

from assay_contracts.adapters.wallet import address_of as address_of
from assay_contracts.adapters.wallet import derived_key
from assay_contracts.local.evm import ZERO_ADDRESS, MiningChain, PragueVM
from assay_protocol.errors import ProtocolError

CHAIN_ID: Final = 0xA55A  # of a local chain unless the operator chooses another
GENESIS_SECONDS: Final = 1_767_225_600  # 2026-01-01 00:00 UTC
GAS_LIMIT: Final = 30_000_000  # of every block: it never drifts
TRANSACTION_GAS_MAX: Final = 10_000_000  # under half a block's, so the base fee never leaves 0
BASE_FEE: Final = 0
CONTRACTS_MAX: Final = 8  # of Assay, made by the poster's first transactions
POSTER_BALANCE: Final = 10**30  # wei; has no worth on a chain of one's own, and never runs out

_POSTER_DOMAIN: Final = b"assay/poster/1"


@dataclass(frozen=True, slots=True)
class Genesis:
    """What makes two local chains the same chain. `poster` is a 20-byte address."""

    poster: bytes
    chain_id: int = CHAIN_ID

    def __post_init__(self) -> None:
        if len(self.poster) != 20 or self.chain_id <= 0:
            raise ProtocolError("malformed", "poster is not an address, or chain id not positive")

    def create(self, store: Any) -> Any:
        """Writes block 0 and its state into `store` (an AtomicDB); returns the open chain."""
        state = {self.poster: {"balance": POSTER_BALANCE, "nonce": 0, "code": b"", "storage": {}}}
        parameters = {
            "coinbase": ZERO_ADDRESS,
            "gas_limit": GAS_LIMIT,
            "timestamp": GENESIS_SECONDS,
            "extra_data": b"assay",
            "base_fee_per_gas": BASE_FEE,
        }
        return chain_class(self.chain_id).from_genesis(store, parameters, state)

    def contracts(self) -> tuple[bytes, ...]:
        """Where Assay's contracts are: what the poster's first transactions create."""
        return tuple(contract_address(self.poster, nonce) for nonce in range(CONTRACTS_MAX))


def chain_class(chain: int) -> Any:
    """py-evm's chain with the rules of the Prague fork from block 0 on."""

    class _Chain(MiningChain):  # type: ignore[misc]  # py-evm is untyped here
        chain_id = chain
        vm_configuration = ((0, PragueVM),)

    return _Chain


def poster_key(seed: bytes) -> bytes:
    """The secp256k1 key that posts epochs, derived from the coordinator's 32-byte seed."""
    return derived_key(_POSTER_DOMAIN, seed)


def contract_address(creator: bytes, nonce: int) -> bytes:
    """Where `creator`'s transaction number `nonce` puts the contract it creates (yellow paper
    7).
    """
    digest: bytes = keccak(rlp.encode([creator, nonce]))
    return digest[12:]
