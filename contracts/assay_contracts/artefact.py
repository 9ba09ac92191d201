"""The compiled contracts this package ships: what code is expected on chain, and how to call it.

Readable in the base install: nothing of Ethereum is imported. Written by
`assay_contracts.deploy.build`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final

# In the order in which they are deployed (deployment.py).
CONTRACTS: Final = (
    "Ed25519Verifier",
    "CreditToken",
    "NodeRegistry",
    "CreditLedger",
    "ModelRegistry",
    "SlashCourt",
    "TimelockController",
    "Governance",
)

# Beside this module; importlib.resources would take longer to import than all that is read here.
_FOLDER: Final = Path(__file__).parent / "artifacts"


@dataclass(frozen=True, slots=True)
class Artefact:
    """One contract: creation and runtime code, where in it each immutable stands (start, length),
    4-byte selectors by signature, names of errors."""

    contract: str
    bytecode: bytes
    runtime_bytecode: bytes
    immutables: dict[str, tuple[tuple[int, int], ...]]
    selectors: dict[str, bytes]
    errors: dict[bytes, str]
    events: dict[bytes, str]
    abi: tuple[dict[str, Any], ...]

    def selector(self, name: str) -> bytes:
        """The selector of the one function called `name`."""
        (selector,) = (s for signature, s in self.selectors.items() if _name(signature) == name)
        return selector

    def is_code(self, code: bytes) -> bool:
        """Whether deployed `code` is this contract, whatever its immutables were set to."""
        return len(code) == len(self.runtime_bytecode) and self._blank(code) == self._blank(
            self.runtime_bytecode
        )

    def immutable(self, code: bytes, name: str) -> int:
        """What the immutable called `name` was set to in deployed `code` (`is_code` of it)."""
        (value,) = {code[start : start + length] for start, length in self.immutables[name]}
        return int.from_bytes(value)

    def error_name(self, output: bytes) -> str:
        """The custom error in a revert's output, for people."""
        return self.errors.get(output[:4], "reverted without a reason we know")

    def _blank(self, code: bytes) -> bytes:
        blanked = bytearray(code)
        for start, length in chain.from_iterable(self.immutables.values()):
            blanked[start : start + length] = bytes(length)
        return bytes(blanked)


def read(contract: str) -> str:
    """The text of the committed artefact of `contract`."""
    return (_FOLDER / f"{contract}.json").read_text()


@cache
def load(contract: str) -> Artefact:
    """The committed artefact of `contract`, e.g. "CreditLedger"."""
    raw = json.loads(read(contract))
    return Artefact(
        contract=raw["contract"],
        bytecode=bytes.fromhex(raw["bytecode"]),
        runtime_bytecode=bytes.fromhex(raw["runtime_bytecode"]),
        immutables={
            name: tuple((start, size) for start, size in places)
            for name, places in raw["immutables"].items()
        },
        selectors={name: bytes.fromhex(hexed) for name, hexed in raw["selectors"].items()},
        errors={bytes.fromhex(hexed): name for hexed, name in raw["errors"].items()},
        events={bytes.fromhex(hexed): name for hexed, name in raw["events"].items()},
        abi=tuple(raw["abi"]),
    )


def _name(signature: str) -> str:
    return signature.partition("(")[0]
