"""Compiles contracts/solidity into the committed artefacts, without Node.js.

`python -m assay_contracts.deploy.build --check` fails on any difference between the sources and
what the package ships. OpenZeppelin's TimelockController is shipped as it is in its package.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from assay_contracts.artefact import CONTRACTS
from assay_contracts.deploy.compiler import (
    OPENZEPPELIN_PREFIX,
    SETTINGS,
    closure,
    compile_sources,
    gather,
)
from assay_contracts.deploy.npm_packages import OPENZEPPELIN, SOLC

_HERE: Final = Path(__file__).parent.parent
SOURCES: Final = _HERE.parent / "solidity"
ARTIFACTS: Final = _HERE / "artifacts"
_ELSEWHERE: Final = {
    "TimelockController": OPENZEPPELIN_PREFIX + "governance/TimelockController.sol"
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m assay_contracts.deploy.build", description=__doc__
    )
    parser.add_argument("--check", action="store_true", help="compare only; 1 if anything differs")
    check = bool(parser.parse_args(arguments).check)
    compiled = build()
    stale = [name for name, text in compiled.items() if _read(ARTIFACTS / f"{name}.json") != text]
    if check:
        for name in stale:
            print(f"{name}: the committed artefact is not what the source compiles to")
        return 1 if stale else 0
    ARTIFACTS.mkdir(exist_ok=True)
    for name in stale:
        (ARTIFACTS / f"{name}.json").write_text(compiled[name])
    print(f"{len(compiled)} artefacts, {len(stale)} written")
    return 0


def build() -> dict[str, str]:
    """Artefact text by contract name. Raises RuntimeError with solc's words if it refuses."""
    sources = all_sources()
    return artefacts(sources, compile_sources(sources, ast=True))


def all_sources() -> dict[str, str]:
    """What the contracts are compiled from, by name."""
    return gather(tuple(map(source_name, CONTRACTS)), SOURCES)


def artefacts(sources: dict[str, str], output: dict[str, Any]) -> dict[str, str]:
    """Artefact text by contract name from the compiler's output, syntax trees included."""
    names = {
        node["id"]: str(node["name"])
        for source in output["sources"].values()
        for node in _declarations(source["ast"])
    }
    return {
        name: _artefact(name, sources, output["contracts"][source_name(name)][name], names)
        for name in CONTRACTS
    }


def source_name(contract: str) -> str:
    """The source that holds `contract`, as the compiler is told it."""
    return _ELSEWHERE.get(contract, f"{contract}.sol")


def _artefact(
    name: str, sources: dict[str, str], compiled: dict[str, Any], names: dict[int, str]
) -> str:
    evm = compiled["evm"]
    references = evm["deployedBytecode"].get("immutableReferences", {})
    own = sorted(s for s in closure(source_name(name), sources) if not s.startswith("@"))
    abi = compiled["abi"]
    record = {
        "contract": name,
        "solc": SOLC.version,
        "openzeppelin": OPENZEPPELIN.version,
        "settings": SETTINGS,
        "sources_sha256": {
            each: hashlib.sha256(sources[each].encode()).hexdigest() for each in own
        },
        "abi": abi,
        "selectors": evm["methodIdentifiers"],
        "errors": {_selector(entry)[:8]: entry["name"] for entry in _of_type(abi, "error")},
        "events": {_selector(entry): entry["name"] for entry in _of_type(abi, "event")},
        "bytecode": evm["bytecode"]["object"],
        "runtime_bytecode": evm["deployedBytecode"]["object"],
        "immutables": {
            names[int(ident)]: sorted([place["start"], place["length"]] for place in places)
            for ident, places in references.items()
        },
    }
    assert len(record["immutables"]) == len(references), "two immutables of one name"
    return json.dumps(record, indent=1, sort_keys=True) + "\n"


def _declarations(node: Any) -> Iterator[dict[str, Any]]:
    """All variables declared in a syntax tree."""
    if isinstance(node, list):
        for item in node:
            yield from _declarations(item)
    elif isinstance(node, dict):
        if node.get("nodeType") == "VariableDeclaration":
            yield node
        for item in node.values():
            yield from _declarations(item)


def _of_type(abi: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [entry for entry in abi if entry["type"] == kind]


def _selector(entry: dict[str, Any]) -> str:
    from eth_utils import keccak  # only the build needs keccak; readers take the stored selectors

    types = ",".join(parameter["type"] for parameter in entry["inputs"])
    assert "tuple" not in types, "a struct in an event or error: spell its members"
    digest: bytes = keccak(text=f"{entry['name']}({types})")
    return digest.hex()


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
