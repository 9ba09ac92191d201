"""All eight contracts in one EVM, in the agreed order, with the real verifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import pyrevm

from assay_contracts import calls
from assay_contracts.ed25519_hints import HintedSignature, signed
from assay_contracts.genesis import contract_address
from assay_protocol.signing import Identity
from contracts.evm import DEPLOYER, NOBODY, Evm, Wiring

ORDER = (
    "Ed25519Verifier",
    "CreditToken",
    "NodeRegistry",
    "CreditLedger",
    "ModelRegistry",
    "SlashCourt",
    "TimelockController",
    "Governance",
)


@dataclass(frozen=True)
class NetworkWiring(Wiring):
    """Small numbers for tests, beyond those of the ledger and the registry."""

    dispute_window: int = 400
    vote_period: int = 200
    draw_delay: int = 3
    deposit: int = 1_000
    penalty_max: int = 80
    equivocation_penalty: int = 150
    reporter_bps: int = 2_500
    juror_bps: int = 5_000
    span: int = 3
    voting_delay: int = 100
    voting_period: int = 500
    quorum_bps: int = 2_000
    proposer_bps: int = 100
    timelock_delay: int = 250


@dataclass
class NetworkEvm(Evm):
    """`block` is the number of the block that transactions run in."""

    poster: bytes = DEPLOYER
    wiring: NetworkWiring = field(default_factory=NetworkWiring)
    block: int = 1_000

    def __post_init__(self) -> None:
        self._evm = pyrevm.EVM(spec_id="PRAGUE")
        self.pass_time(0)
        self.at |= {name: contract_address(DEPLOYER, nonce) for nonce, name in enumerate(ORDER)}
        for name in ORDER:
            assert (
                self.create(calls.constructor(name, *constructor_of(self, name))) == self.at[name]
            )

    def pass_time(self, seconds: int, blocks: int = 0) -> None:
        self.now += seconds
        self.block += blocks
        self._evm.set_block_env(pyrevm.BlockEnv(timestamp=self.now, number=self.block))

    def gas_of_last(self) -> int:
        """Of the last transaction, with its 21,000 and its data; storage may be warm."""
        assert self._evm.result is not None
        return int(self._evm.result.gas_used)


class Network(Protocol):
    """What constructors need to know of where they run."""

    at: dict[str, bytes]
    wiring: NetworkWiring
    poster: bytes


def constructor_of(evm: Network, name: str) -> tuple[object, ...]:
    """The arguments of each constructor."""
    at, w = evm.at, evm.wiring
    timelock, registry, token = at["TimelockController"], at["NodeRegistry"], at["CreditToken"]
    bonds = (w.min_bond, w.min_bond_low, w.min_bond_high)
    registry_addresses = (at["Ed25519Verifier"], token, at["SlashCourt"], timelock)
    court = (at["Ed25519Verifier"], token, registry, w.dispute_window, w.vote_period)
    penalties = (w.deposit, w.penalty_max, w.equivocation_penalty, w.reporter_bps, w.juror_bps)
    voting = (w.span, w.voting_delay, w.voting_period, w.quorum_bps, w.proposer_bps)
    targets = [token, registry, at["CreditLedger"], at["ModelRegistry"]]
    ledger_times = (w.window, w.demand_seconds, w.demand_bond, w.reward_bps)
    ledger = (evm.poster, w.poster_key, token, registry, timelock, *ledger_times, NOBODY, 0)
    arguments: dict[str, tuple[object, ...]] = {
        "Ed25519Verifier": (),
        "CreditToken": (at["CreditLedger"], timelock),
        "NodeRegistry": ((*registry_addresses, w.probation, w.unbonding, *bonds),),
        "CreditLedger": (ledger,),
        "ModelRegistry": (timelock, True),
        "SlashCourt": ((*court, w.draw_delay, *penalties),),
        "TimelockController": (w.timelock_delay, [at["Governance"]], [NOBODY], NOBODY),
        "Governance": ((token, registry, timelock, *voting), targets),
    }
    return arguments[name]


def registration(evm: Evm, identity: Identity, named: bytes, domain: str) -> HintedSignature:
    """What a key signs to be owned or paid: `domain` is "Register" or "Bind"."""
    nonce = evm.ask("NodeRegistry", "nonceOf", identity.public_key)
    registry = evm.at["NodeRegistry"]
    return signed(identity, registration_text(registry, named, domain, nonce, chain=1))


def registration_text(
    registry: bytes, named: bytes, domain: str, nonce: int, *, chain: int
) -> bytes:
    head = f"assay/1/{domain}\0".encode() + chain.to_bytes(32)
    return head + registry + named + nonce.to_bytes(32)
