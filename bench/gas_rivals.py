"""Gas of one job where each job is recorded by itself: our leanest record, and others' contracts.

All on the same chain as ours, second and later records of one account. What is not on this machine
is quoted or left out, and said so: the attestation service needs `make setup-contracts`, Prime
Intellect's sources a clone of their smart-contracts, named in ASSAY_PRIME_INTELLECT.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import eth_abi
from eth_utils import keccak

from assay_contracts.deploy.compiler import compile_sources, imports
from assay_contracts.deploy.npm_packages import OPENZEPPELIN
from assay_contracts.local.chain import LocalChain

PRIME_INTELLECT_QUOTED: Final = 190_332  # by the same stub at a1156fe, when it was last measured
ROOT: Final = Path(__file__).parents[1]
CONTRACTS: Final = ROOT / "bench" / "contracts"
EAS: Final = ROOT / "node_modules/@ethereum-attestation-service/eas-contracts/artifacts/contracts"
_CODE: Final = ("evm.bytecode.object",)


@dataclass(frozen=True)
class Rival:
    """One way to record a job; `note` says where the figure is from."""

    name: str
    gas: int | None
    note: str


class Bench:
    """A chain, and the account that sends everything."""

    def __init__(self, chain: LocalChain, key: bytes) -> None:
        self.chain, self._key = chain, key

    def create(self, code: bytes) -> bytes:
        address = self.chain.send(self._key, None, code).contract
        assert address is not None
        return address

    def gas(self, to: bytes, signature: str, *values: Any) -> int:
        """Sends a call and gives the transaction's gas; `signature` spells structs as tuples."""
        return self.chain.send(self._key, to, call_data(signature, *values)).gas_used


def rivals(bench: Bench) -> tuple[Rival, ...]:
    """What could be measured here, and what had to be quoted."""
    return record_each_job(bench), attestation(bench), prime_intellect(bench)


def record_each_job(bench: Bench) -> Rival:
    compiled = compile_sources({"JobRecord.sol": (CONTRACTS / "JobRecord.sol").read_text()}, _CODE)
    at = bench.create(_creation(compiled, "JobRecord.sol", "JobRecord"))
    account = os.urandom(32)
    signature = "record(bytes32,bytes32,uint256)"
    gas = [bench.gas(at, signature, os.urandom(32), account, 10**6) for _ in range(2)]
    return Rival("record each job", gas[-1], "measured: bench/contracts/JobRecord.sol")


def attestation(bench: Bench) -> Rival:
    name = "EAS attestation"
    if not EAS.exists():
        return Rival(name, None, "not set up: make setup-contracts")
    registry = bench.create(_artefact("SchemaRegistry"))
    eas = bench.create(_artefact("EAS") + eth_abi.encode(["address"], [registry]))
    text, revocable = "bytes32 job,uint128 amount", False
    bench.gas(registry, "register(string,address,bool)", text, bytes(20), revocable)
    schema = keccak(text.encode() + bytes(20) + b"\x00")
    to, nothing = os.urandom(20), bytes(32)
    gas = 0
    for _ in range(2):
        data = os.urandom(32) + (10**6).to_bytes(32)
        request = (schema, (to, 0, revocable, nothing, data, 0))
        signature = "attest((bytes32,(address,uint64,bool,bytes32,bytes,uint256)))"
        gas = bench.gas(eas, signature, request)
    return Rival(name, gas, "measured: eas-contracts 1.9.0, 64 bytes of data")


def prime_intellect(bench: Bench) -> Rival:
    name = "Prime Intellect"
    clone = os.environ.get("ASSAY_PRIME_INTELLECT")
    if clone is None:
        return Rival(name, PRIME_INTELLECT_QUOTED, "quoted: their sources are not on this machine")
    validator, rewards = "SyntheticDataWorkValidator", "RewardsDistributorWorkSubmission"
    sources = _gather(clone, tuple(f"src/{one}.sol" for one in (validator, rewards)))
    sources["PoolStub.sol"] = (CONTRACTS / "PoolStub.sol").read_text()
    compiled = compile_sources(sources, _CODE, warnings=True)
    pool = bench.create(_creation(compiled, "PoolStub.sol", "PoolStub"))
    words = ["uint256", "address", "uint256"]
    checks = bench.create(
        _creation(compiled, f"src/{validator}.sol", validator)
        + eth_abi.encode(words, [1, pool, 86_400])
    )
    words = ["address", "address", "uint256"]
    pays = bench.create(
        _creation(compiled, f"src/{rewards}.sol", rewards) + eth_abi.encode(words, [pool, pool, 1])
    )
    bench.gas(pool, "wire(address,address)", checks, pays)
    node, gas = os.urandom(20), 0
    for _ in range(3):
        work = os.urandom(32) + (1).to_bytes(32)
        gas = bench.gas(pool, "submitWork(uint256,address,bytes)", 1, node, work)
    return Rival(name, gas, f"measured: {_commit(clone)}, without their pool's own checks")


def call_data(signature: str, *values: Any) -> bytes:
    inner = signature[signature.index("(") + 1 : -1]
    selector: bytes = keccak(text=signature)[:4]
    return selector + bytes(eth_abi.encode(_split(inner), values))


def _split(types: str) -> list[str]:
    """At the commas outside of brackets."""
    found, depth = [""], 0
    for letter in types:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return found


def _creation(compiled: dict[str, Any], source: str, contract: str) -> bytes:
    return bytes.fromhex(compiled["contracts"][source][contract]["evm"]["bytecode"]["object"])


def _artefact(contract: str) -> bytes:
    text = (EAS / f"{contract}.sol" / f"{contract}.json").read_text()
    return bytes.fromhex(json.loads(text)["bytecode"].removeprefix("0x"))


def _gather(clone: str, names: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    wanted = set(names)
    while wanted:
        for name in wanted:
            if name.startswith(OPENZEPPELIN.name):
                member = name.removeprefix(f"{OPENZEPPELIN.name}/")
                found[name] = OPENZEPPELIN.read((member,))[member]
            else:
                found[name] = _git(clone, "show", f"HEAD:{name}")
        wanted = {i for name in wanted for i in imports(name, found[name])} - found.keys()
    return found


def _commit(clone: str) -> str:
    return f"smart-contracts {_git(clone, 'rev-parse', '--short', 'HEAD').strip()}"


def _git(clone: str, *arguments: str) -> str:
    command = ["git", "-C", clone, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
