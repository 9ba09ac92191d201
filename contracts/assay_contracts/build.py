"""Compiles contracts/solidity into the committed artefacts, without Node.js.

The compiler is the npm package `solc` (JavaScript), run inside the V8 of the wheel `mini-racer`,
so that anybody with Python can rebuild what the package ships and compare: `python -m
assay_contracts.build --check` fails on any difference. The npm tarball is pinned by version and
sha256.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Final

SOLC: Final = "0.8.37"
SOLC_SHA256: Final = "0e1a1ab6d12c37f5503271b2c4679cd433459c884851920d148d6fb154575a51"
SETTINGS: Final[dict[str, Any]] = {
    "optimizer": {"enabled": True, "runs": 200},
    "evmVersion": "prague",
    "metadata": {"bytecodeHash": "none", "appendCBOR": False},
    "outputSelection": {
        "*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode", "evm.methodIdentifiers"]}
    },
}
CONTRACTS: Final = ("CreditLedger",)
PACK_SECONDS: Final = 120

_HERE: Final = Path(__file__).parent
SOURCES: Final = _HERE.parent / "solidity"
ARTIFACTS: Final = _HERE / "artifacts"

# soljson expects a browser or Node; V8 alone has neither console nor performance.
_PRELUDE: Final = (
    "var Module={print:function(){},printErr:function(){}};"
    "var performance={now:()=>Date.now()};"
    "var console={log(){},warn(){},error(){}};"
)
_BIND: Final = "var compile=Module.cwrap('solidity_compile','string',['string','number','number']);"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m assay_contracts.build", description=__doc__)
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
    sources = {f"{name}.sol": (SOURCES / f"{name}.sol").read_text() for name in CONTRACTS}
    output = _run_solc(sources)
    faults = [error for error in output.get("errors", []) if error["severity"] != "info"]
    if faults:
        raise RuntimeError("\n".join(fault["formattedMessage"] for fault in faults))
    return {
        name: _artefact(name, sources[f"{name}.sol"], output["contracts"][f"{name}.sol"][name])
        for name in CONTRACTS
    }


def _artefact(name: str, source: str, compiled: dict[str, Any]) -> str:
    evm = compiled["evm"]
    references = evm["deployedBytecode"].get("immutableReferences", {})
    immutables = sorted(
        [place["start"], place["length"]] for places in references.values() for place in places
    )
    abi = compiled["abi"]
    record = {
        "contract": name,
        "solc": SOLC,
        "settings": {key: value for key, value in SETTINGS.items() if key != "outputSelection"},
        "source_sha256": hashlib.sha256(source.encode()).hexdigest(),
        "abi": abi,
        "selectors": evm["methodIdentifiers"],
        "errors": {_selector(entry)[:8]: entry["name"] for entry in _of_type(abi, "error")},
        "events": {_selector(entry): entry["name"] for entry in _of_type(abi, "event")},
        "bytecode": evm["bytecode"]["object"],
        "runtime_bytecode": evm["deployedBytecode"]["object"],
        "immutable_references": immutables,
    }
    return json.dumps(record, indent=1, sort_keys=True) + "\n"


def _of_type(abi: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [entry for entry in abi if entry["type"] == kind]


def _selector(entry: dict[str, Any]) -> str:
    from eth_utils import keccak  # only the build needs keccak; readers take the stored selectors

    types = ",".join(parameter["type"] for parameter in entry["inputs"])
    digest: bytes = keccak(text=f"{entry['name']}({types})")
    return digest.hex()


def _run_solc(sources: dict[str, str]) -> dict[str, Any]:
    from py_mini_racer import MiniRacer  # a development tool, not installed with the package

    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": SETTINGS,
    }
    engine = MiniRacer()
    engine.eval(_PRELUDE)
    engine.eval(_soljson())
    engine.eval(_BIND)
    output: dict[str, Any] = json.loads(str(engine.call("compile", json.dumps(request), 0, 0)))
    return output


def _soljson() -> str:
    tarball = _cache() / f"solc-{SOLC}.tgz"
    if not tarball.exists():
        tarball.parent.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", f"solc@{SOLC}", "--silent"]
        subprocess.run(command, cwd=tarball.parent, check=True, timeout=PACK_SECONDS)
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if digest != SOLC_SHA256:
        raise RuntimeError(f"{tarball} is not solc {SOLC}: sha256 {digest}")
    with tarfile.open(tarball) as archive:
        member = archive.extractfile("package/soljson.js")
        assert member is not None
        return member.read().decode()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "assay"


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
