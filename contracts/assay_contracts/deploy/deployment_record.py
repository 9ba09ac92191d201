"""The record of a deployment, one JSON file a chain: what to run again, and what to verify.

Who deploys keeps it, durably, before each transaction is sent (sdk/assay/contracts_command.py).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from assay_contracts.deploy.plan import Parameters, Plan
from assay_protocol.errors import AssayError

RECORD_BYTES_MAX: Final = 1 << 20
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Made:
    """A contract that is there or under way: the transaction (its hash; unknown if another copy of
    the record sent it) and the sha256 of the code once it is there."""

    transaction: bytes | None = None
    code_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Successor:
    """A ledger that goes on from `previous`, whose epochs up to `base_epoch` stay."""

    address: bytes
    previous: bytes
    base_epoch: int
    nonce: int
    transaction: bytes | None = None
    code_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A plan and how far it is."""

    plan: Plan
    contracts: tuple[tuple[str, Made], ...] = ()
    successors: tuple[Successor, ...] = ()

    def made(self, contract: str) -> Made:
        return dict(self.contracts).get(contract, Made())

    def with_transaction(self, contract: str, transaction: bytes) -> Record:
        return self._with(contract, replace(self.made(contract), transaction=transaction))

    def with_code(self, contract: str, code_sha256: bytes) -> Record:
        return self._with(contract, replace(self.made(contract), code_sha256=code_sha256))

    def encode(self) -> str:
        """JSON for people, too: addresses, hashes and keys as hex."""
        plan = asdict(self.plan)
        made = dict(self.contracts)
        contracts = {
            name: {"address": address} | asdict(made.get(name, Made()))
            for name, address in self.plan.addresses.items()
        }
        successors = [asdict(one) for one in self.successors]
        value = {"version": VERSION} | plan | {"contracts": contracts, "ledgers": successors}
        return json.dumps(value, indent=1, default=lambda raw: "0x" + raw.hex()) + "\n"

    @classmethod
    def decode(cls, text: str) -> Record:
        """Raises AssayError("config_invalid") for what is no record."""
        if len(text) > RECORD_BYTES_MAX:
            raise AssayError("config_invalid", "a record of more than 1 MiB")
        try:
            return cls._read(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise AssayError("config_invalid", f"no record of a deployment: {error!r}") from None

    @classmethod
    def _read(cls, value: dict[str, Any]) -> Record:
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']}")
        chosen = {field.name: int(value["parameters"][field.name]) for field in fields(Parameters)}
        if len(chosen) != len(value["parameters"]):
            raise ValueError("an unknown parameter")
        plan = Plan(
            deployer=_raw(value["deployer"]),
            poster_key=_raw(value["poster_key"]),
            poster=_raw(value["poster"]),
            chain_id=int(value["chain_id"]),
            first_nonce=int(value["first_nonce"]),
            parameters=Parameters(**chosen),
        )
        for name, address in plan.addresses.items():
            if _raw(value["contracts"][name]["address"]) != address:
                raise ValueError(f"{name} is not where the plan puts it")
        contracts = tuple((name, Made(*_made(one))) for name, one in value["contracts"].items())
        successors = tuple(
            Successor(
                _raw(one["address"]),
                _raw(one["previous"]),
                int(one["base_epoch"]),
                int(one["nonce"]),
                *_made(one),
            )
            for one in value["ledgers"]
        )
        return cls(plan, contracts, successors)

    def _with(self, contract: str, made: Made) -> Record:
        return replace(self, contracts=tuple({**dict(self.contracts), contract: made}.items()))


def read_record(path: Path) -> Record | None:
    """The record at `path`; None if there is none."""
    try:
        return Record.decode(path.read_text())
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise AssayError("config_invalid", f"{path} is no text") from None


def _made(value: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    transaction, code = value["transaction"], value["code_sha256"]
    return (
        None if transaction is None else _raw(transaction),
        None if code is None else _raw(code),
    )


def _raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
