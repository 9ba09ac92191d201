"""All eight contracts in one EVM, as a deployment plans them, with the real verifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import pyrevm

from assay_contracts.deploy.plan import Parameters, Plan
from assay_contracts.ed25519_hints import HintedSignature, signed
from assay_protocol.signing import Identity
from contracts.evm import DEPLOYER, Evm

CHAIN: Final = 1  # pyrevm's
# Small numbers for tests.
QUICK: Final = Parameters(
    window=1_000,
    demand_seconds=300,
    demand_bond=50,
    reward_bps=4_000,
    probation=500,
    unbonding=3_000,
    min_bond=100,
    min_bond_low=10,
    min_bond_high=1_000,
    dispute_window=400,
    jury_period=200,
    draw_delay=3,
    deposit=1_000,
    penalty_max=80,
    equivocation_penalty=150,
    court_reporter_bps=2_500,
    juror_bps=5_000,
    span=3,
    voting_delay=100,
    voting_period=500,
    quorum_bps=2_000,
    proposer_bps=100,
    timelock_delay=250,
)


@dataclass
class NetworkEvm(Evm):
    """`block` is the number of the block that transactions run in."""

    wiring: Any = QUICK
    block: int = 1_000
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        self._evm = pyrevm.EVM(spec_id="PRAGUE")
        self.pass_time(0)
        key = bytes([0xEE]) * 32
        self.plan = Plan(DEPLOYER, key, DEPLOYER, chain_id=CHAIN, parameters=self.wiring)
        self.at |= self.plan.addresses
        for creation in self.plan.creations():
            assert self.create(creation.code) == creation.address

    def pass_time(self, seconds: int, blocks: int = 0) -> None:
        self.now += seconds
        self.block += blocks
        self._evm.set_block_env(pyrevm.BlockEnv(timestamp=self.now, number=self.block))

    def gas_of_last(self) -> int:
        """Of the last transaction, with its 21,000 and its data; storage may be warm."""
        assert self._evm.result is not None
        return int(self._evm.result.gas_used)


def registration(evm: Evm, identity: Identity, named: bytes, domain: str) -> HintedSignature:
    """What a key signs to be owned or paid: `domain` is "Register" or "Bind"."""
    nonce = evm.ask("NodeRegistry", "nonceOf", identity.public_key)
    registry = evm.at["NodeRegistry"]
    return signed(identity, registration_text(registry, named, domain, nonce, chain=CHAIN))


def registration_text(
    registry: bytes, named: bytes, domain: str, nonce: int, *, chain: int
) -> bytes:
    head = f"assay/1/{domain}\0".encode() + chain.to_bytes(32)
    return head + registry + named + nonce.to_bytes(32)
