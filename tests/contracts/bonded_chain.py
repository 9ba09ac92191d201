"""A local chain with a NodeRegistry whose bonds a test sets; signatures of keys are not checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay_contracts import calls
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, contract_address, poster_key
from assay_protocol.signing import Identity
from contracts.evm import EASY_VERIFIER, GOOD

SEED = bytes(range(32))
KEY = poster_key(SEED)
POSTER = address_of(KEY)
PRODUCER = Identity(SEED)
GENESIS = Genesis(POSTER)
NODES = [Identity(bytes([n]) * 32) for n in range(1, 8)]
VERIFIER, TOKEN, REGISTRY = (contract_address(POSTER, nonce) for nonce in range(3))
PROBATION = 10


class Seconds:
    """A chain's clock that a test moves."""

    now = 1_800_000_000

    def __call__(self) -> int:
        return self.now


class BondedChain:
    """The chain, its poster being minter and court too."""

    def __init__(self, path: Path, *, sealed: bool = True) -> None:
        self.clock = Seconds()
        self.chain = LocalChain.open(
            path, genesis=GENESIS, clock=self.clock, signer=PRODUCER if sealed else None
        )

    def deploy(self) -> None:
        """Three blocks, then three more for the tokens: still nobody has a bond."""
        bonds = (100, 10, 1_000)
        config = (VERIFIER, TOKEN, POSTER, POSTER, PROBATION, 1_000, *bonds)
        self.chain.send(KEY, None, EASY_VERIFIER)
        self.chain.send(KEY, None, calls.constructor("CreditToken", POSTER, POSTER))
        self.chain.send(KEY, None, calls.constructor("NodeRegistry", config))
        self.send("CreditToken", TOKEN, "mint", POSTER, 10**9)
        self.send("CreditToken", TOKEN, "approve", REGISTRY, 2**255)

    def send(self, contract: str, to: bytes, function: str, *arguments: Any) -> int:
        return self.chain.send(KEY, to, calls.encode(contract, function, *arguments)).block

    def bond(self, node: Identity, amount: int) -> int:
        """Registers and activates; the block in which it counts."""
        self.send("NodeRegistry", REGISTRY, "register", node.public_key, amount, GOOD)
        self.clock.now = max(self.clock.now, self.chain.head_block().timestamp) + PROBATION
        return self.send("NodeRegistry", REGISTRY, "activate", node.public_key)

    def leave(self, node: Identity) -> int:
        return self.send("NodeRegistry", REGISTRY, "beginExit", node.public_key)

    def slash(self, node: Identity, amount: int) -> int:
        arguments = (node.public_key, amount, POSTER, 0, bytes(32))
        return self.send("NodeRegistry", REGISTRY, "slash", *arguments)

    def idle(self, blocks: int = 1) -> int:
        """Blocks that change nothing."""
        for _ in range(blocks):
            self.chain.send(KEY, POSTER, b"")
        return self.chain.head_block().number
