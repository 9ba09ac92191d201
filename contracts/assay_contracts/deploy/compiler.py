"""Solidity's compiler in this process: the npm package `solc` in the V8 of the wheel `mini-racer`.

Anybody with Python can thus rebuild what the package ships. Settings and versions are fixed; the
metadata that would differ between two build paths is left out of the code.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from assay_contracts.deploy.npm_packages import OPENZEPPELIN, SOLC

SETTINGS: Final[dict[str, Any]] = {
    "optimizer": {"enabled": True, "runs": 200},
    "evmVersion": "prague",
    "metadata": {"bytecodeHash": "none", "appendCBOR": False},
}
OUTPUTS: Final = ("abi", "evm.bytecode.object", "evm.deployedBytecode", "evm.methodIdentifiers")
SOURCES_MAX: Final = 500
OPENZEPPELIN_PREFIX: Final = f"{OPENZEPPELIN.name}/"

_IMPORT: Final = re.compile(r'^\s*import\s[^;"]*"([^"]+)"\s*;', re.MULTILINE)
# soljson expects a browser or Node; V8 alone has neither console nor performance.
_PRELUDE: Final = (
    "var Module={print:function(){},printErr:function(){}};"
    "var performance={now:()=>Date.now()};"
    "var console={log(){},warn(){},error(){}};"
)
_BIND: Final = "var compile=Module.cwrap('solidity_compile','string',['string','number','number']);"


def compile_sources(
    sources: Mapping[str, str],
    outputs: tuple[str, ...] = OUTPUTS,
    *,
    ast: bool = False,
    warnings: bool = False,
) -> dict[str, Any]:
    """solc's standard output for `sources` (text by name, all imports among them).

    Raises RuntimeError with solc's words for any error, or warning unless `warnings` are let pass.
    """
    from py_mini_racer import MiniRacer  # a development tool, not installed with the package

    selection = {"*": {"*": list(outputs)} | ({"": ["ast"]} if ast else {})}
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": SETTINGS | {"outputSelection": selection},
    }
    engine = MiniRacer()
    engine.eval(_PRELUDE)
    engine.eval(SOLC.read(("soljson.js",))["soljson.js"])
    engine.eval(_BIND)
    output: dict[str, Any] = json.loads(str(engine.call("compile", json.dumps(request), 0, 0)))
    passed = ("info", "warning") if warnings else ("info",)
    faults = [error for error in output.get("errors", []) if error["severity"] not in passed]
    if faults:
        raise RuntimeError("\n".join(fault["formattedMessage"] for fault in faults))
    return output


def gather(names: tuple[str, ...], folder: Path) -> dict[str, str]:
    """Sources by name with all they import: OpenZeppelin's from its package, others in `folder`."""
    found: dict[str, str] = {}
    wanted = set(names)
    while wanted:
        packaged = {name for name in wanted if name.startswith(OPENZEPPELIN_PREFIX)}
        found |= {name: (folder / name).read_text() for name in wanted - packaged}
        members = tuple(name.removeprefix(OPENZEPPELIN_PREFIX) for name in sorted(packaged))
        if members:
            texts = OPENZEPPELIN.read(members)
            found |= {OPENZEPPELIN_PREFIX + name: text for name, text in texts.items()}
        wanted = {i for name in wanted for i in imports(name, found[name])} - found.keys()
        assert len(found) + len(wanted) <= SOURCES_MAX
    return found


def imports(name: str, text: str) -> set[str]:
    """The names of what the source called `name` imports, relative paths resolved."""
    paths = _IMPORT.findall(text)
    folder = posixpath.dirname(name)
    return {
        posixpath.normpath(posixpath.join(folder, path)) if path.startswith(".") else path
        for path in paths
    }


def closure(name: str, sources: Mapping[str, str]) -> set[str]:
    """`name` and all sources it rests on."""
    found: set[str] = set()
    wanted = {name}
    while wanted:
        found |= wanted
        wanted = {i for each in wanted for i in imports(each, sources[each])} - found
    return found
