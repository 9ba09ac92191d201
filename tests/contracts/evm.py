"""Assay's contracts in one EVM in this process (pyrevm), wired as a deployment wires them.

Time stands still unless a test passes it. Each call is a transaction of its own; what a contract
refuses raises `Refused` with the error's name and changes nothing. Gas is not measured here: pyrevm
keeps storage warm from one transaction to the next (tests/contracts/test_gas.py has the figures).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyrevm
import pytest
from eth_utils import keccak

from assay_contracts import calls
from assay_contracts.local.genesis import contract_address
from assay_contracts.records import Log

START = 1_800_000_000
DEPLOYER = bytes([0xDE]) * 20  # the poster, too
TIMELOCK = bytes([0x71]) * 20
COURT = bytes([0xC0]) * 20
NOBODY = bytes(20)
# Stands in for Ed25519Verifier: a signature is good whose `s` is 1.
EASY_VERIFIER = bytes.fromhex("600c600a5f39600c5ff36064356001145f5260205ff3")
GOOD = (bytes(32), (1).to_bytes(32), 0, 0)
_SUPPLY_SLOT = 2  # of OpenZeppelin's ERC20; balances are a mapping in slot 0
BAD = (bytes(32), (2).to_bytes(32), 0, 0)


class Refused(Exception):  # a refusal is what most tests want
    """A transaction that a contract refused: the error's name and its arguments."""

    def __init__(self, output: bytes) -> None:
        self.output = output
        self.refusal = calls.refusal(output)
        self.name = self.refusal.name if self.refusal else output.hex()
        super().__init__(str(self.refusal or output.hex()))


@dataclass(frozen=True)
class Wiring:
    """What the constructors are told; seconds and micro-credits, all small for tests."""

    poster_key: bytes = bytes([0xEE]) * 32
    window: int = 1_000
    demand_seconds: int = 300
    demand_bond: int = 50
    reward_bps: int = 4_000
    probation: int = 500
    unbonding: int = 3_000
    min_bond: int = 100
    min_bond_low: int = 10
    min_bond_high: int = 1_000


@dataclass
class Evm:
    """The chain. `at` has the contracts' addresses by name."""

    wiring: Wiring = field(default_factory=Wiring)
    now: int = START
    calls: int = 0
    at: dict[str, bytes] = field(default_factory=dict)
    _logs: list[Log] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._evm = pyrevm.EVM(spec_id="PRAGUE")
        self.pass_time(0)
        deploy(self)

    # ---- transactions ----

    def create(self, code: bytes, sender: bytes = DEPLOYER) -> bytes:
        """Deploys creation code and gives the address."""
        with self._refusals():
            address = self._evm.deploy(_hexed(sender), code)
        return bytes.fromhex(address[2:])

    def send(self, sender: bytes, contract: str, function: str, *arguments: object) -> Any:
        """One transaction; gives what the function returns: nothing, a value, or a tuple."""
        return self.send_to(self.at[contract], sender, contract, function, *arguments)

    def send_to(
        self, to: bytes, sender: bytes, contract: str, function: str, *arguments: object
    ) -> Any:
        """`send` to a `contract` that is not the one in `at`."""
        answer = self._call(to, sender, contract, function, *arguments)
        assert self._evm.result is not None
        self._logs = [_log(log) for log in self._evm.result.logs]
        return answer

    def ask(self, contract: str, function: str, *arguments: object) -> Any:
        """A call by nobody in particular."""
        return self._call(self.at[contract], NOBODY, contract, function, *arguments)

    def refused(self, sender: bytes, contract: str, function: str, *arguments: object) -> str:
        """The name of the error that the transaction is refused with; it must be."""
        with pytest.raises(Refused) as caught:
            self.send(sender, contract, function, *arguments)
        return caught.value.name

    def misbegotten(
        self, contract: str, config: Sequence[object], changes: Mapping[int, object]
    ) -> str:
        """The error that a constructor refuses its config with, once `changes` are in it."""
        changed = [changes.get(place, value) for place, value in enumerate(config)]
        with pytest.raises(Refused) as caught:
            self.create(calls.constructor(contract, tuple(changed)))
        return caught.value.name

    def events(self, contract: str) -> list[tuple[str, dict[str, Any]]]:
        """The last transaction's events of one contract, by name and arguments."""
        address = self.at[contract]
        return [calls.events(contract, log) for log in self._logs if log.address == address]

    # ---- time and money ----

    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self._evm.set_block_env(pyrevm.BlockEnv(timestamp=self.now))

    def give(self, to: bytes, amount: int, *spenders: str) -> None:
        """Tokens out of nothing; each of `spenders`, contracts by name, may take all of them."""
        token = _hexed(self.at["CreditToken"])
        for slot in (_balance_slot(to), _SUPPLY_SLOT):
            held = self._evm.storage(token, slot)
            self._evm.insert_account_storage(token, slot, held + amount)
        for spender in spenders:
            self.send(to, "CreditToken", "approve", self.at[spender], 2**256 - 1)

    def balance(self, of: bytes) -> int:
        held: int = self.ask("CreditToken", "balanceOf", of)
        return held

    # ---- back in time ----

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Whatever happens within never happened."""
        snapshot, now = self._evm.snapshot(), self.now
        try:
            yield
        finally:
            self._evm.revert(snapshot)
            self.now = now
            self.pass_time(0)

    def _call(
        self, to: bytes, sender: bytes, contract: str, function: str, *arguments: object
    ) -> Any:
        data = calls.encode(contract, function, *arguments)
        with self._refusals():
            output = self._evm.message_call(_hexed(sender), _hexed(to), calldata=data)
        values = calls.decode(contract, function, bytes(output))
        return values[0] if len(values) == 1 else values or None

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        self.calls += 1
        try:
            yield
        except RuntimeError as error:
            found = re.fullmatch(r"Revert \{ gas_used: \d+, output: 0x([0-9a-f]*) \}", str(error))
            if found is None:
                raise
            raise Refused(bytes.fromhex(found[1])) from None


def deploy(evm: Evm) -> None:
    """The contracts in their order; later addresses follow from the deployer's next nonces."""
    names = ("Ed25519Verifier", "CreditToken", "NodeRegistry", "CreditLedger")
    evm.at |= {name: contract_address(DEPLOYER, nonce) for nonce, name in enumerate(names)}
    creations = (
        EASY_VERIFIER,
        calls.constructor("CreditToken", evm.at["CreditLedger"], TIMELOCK),
        calls.constructor("NodeRegistry", registry_config(evm)),
        calls.constructor("CreditLedger", ledger_config(evm)),
    )
    for name, creation in zip(names, creations, strict=True):
        assert evm.create(creation) == evm.at[name]


def registry_config(evm: Evm) -> tuple[object, ...]:
    wiring = evm.wiring
    bonds = (wiring.min_bond, wiring.min_bond_low, wiring.min_bond_high)
    addresses = (evm.at["Ed25519Verifier"], evm.at["CreditToken"], COURT, TIMELOCK)
    return (*addresses, wiring.probation, wiring.unbonding, *bonds)


def ledger_config(
    evm: Evm, *, previous: bytes = NOBODY, base_epoch: int = 0, poster: bytes = DEPLOYER
) -> tuple[object, ...]:
    wiring = evm.wiring
    wired = (evm.at["CreditToken"], evm.at["NodeRegistry"], TIMELOCK)
    times = (wiring.window, wiring.demand_seconds)
    money = (wiring.demand_bond, wiring.reward_bps)
    return (poster, wiring.poster_key, *wired, *times, *money, previous, base_epoch)


def _balance_slot(of: bytes) -> int:
    return int.from_bytes(keccak(bytes(12) + of + bytes(32)))


def _log(log: Any) -> Log:
    topics, data = log.data
    return Log(bytes.fromhex(log.address[2:]), tuple(map(bytes, topics)), bytes(data))


def _hexed(address: bytes) -> str:
    return "0x" + address.hex()
