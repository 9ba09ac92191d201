"""The rules of the house as functions over source text, so the tests can try them on offenders."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = {
    "assay_protocol": "protocol",
    "assay_network": "network",
    "assay_node": "node",
    "assay_coordinator": "coordinator",
    "assay_contracts": "contracts",
    "assay": "sdk",
    "assay_simnet": "simnet",
}
FILE_LINES_MAX: Final = 600
FUNCTION_LINES_MAX: Final = 70
BANNED_NAME: Final = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|common)(_|$)")

# What a package may import of ours; `lazy` ones only inside a function.
_MAY: Final[dict[str, set[str]]] = {
    "assay_protocol": set(),
    "assay_network": {"assay_protocol"},
    "assay_contracts": {"assay_protocol"},
    "assay_node": {"assay_protocol", "assay_network"},
    "assay_coordinator": {"assay_protocol", "assay_network", "assay_contracts"},
    "assay": {"assay_protocol", "assay_network"},
    "assay_simnet": set(PACKAGES),
}
# The SDK follows credit to a chain, and replays receipts with the engine nodes have; nodes whose
# owner names a chain compare the rules with it.
_MAY_LAZILY: Final[dict[str, set[str]]] = {
    "assay": {"assay_contracts", "assay_node"},
    "assay_node": {"assay_contracts"},
}
_HANDS_OVER: Final = "sdk/assay/cli.py"  # `assay node ...` starts the other programs
_IMPURE: Final = {
    "trio", "libp2p", "sqlalchemy", "web3", "time", "random", "os", "socket", "threading",
    "subprocess", "pathlib", "secrets", "asyncio",
}  # fmt: skip
_PROTOCOL_MAY: Final = {"msgpack", "nacl"}
_NUMPY_IN: Final = {
    f"protocol/assay_protocol/{name}.py"
    for name in (
        "sampling",
        "filters",
        "edges",
        "margins",
        "noise",
        "adjustments",
        "masks",
        "sketches",
    )
}

_MASKS_IN: Final = "protocol/assay_protocol/masks.py"  # llguidance, behind the `grammar` extra


def sources() -> Iterator[tuple[str, str]]:
    """(path from the root, text) of every module of ours."""
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text()


def programs() -> Iterator[tuple[str, str]]:
    """Modules, tests, benchmarks, examples and the scripts beside the specification."""
    yield from sources()
    for folder in ("tests", "bench", "docs/examples", "protocol/spec", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text()


def layering(path: str, text: str) -> list[str]:
    """What the module at `path` imports but may not."""
    package = PurePosixPath(path).parts[1]
    pure = package == "assay_protocol" or "core" in PurePosixPath(path).parts
    faults = []
    for name, lazy in _imports(ast.parse(text)):
        top = name.split(".")[0]
        if pure and top in _IMPURE:
            faults.append(f"{path}: {top} in a pure module")
        if package == "assay_protocol" and not _protocol_may(path, top):
            faults.append(f"{path}: the protocol does not need {top}")
        if top in PACKAGES and top != package and not _may(path, package, top, lazy):
            faults.append(f"{path}: {package} must not import {top}")
    return faults


def sizes(path: str, text: str) -> list[str]:
    """Files and functions that are too long."""
    faults = []
    if (lines := text.count("\n")) > FILE_LINES_MAX:
        faults.append(f"{path}: {lines} lines")
    for item in ast.walk(ast.parse(text)):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (item.end_lineno or item.lineno) - item.lineno + 1
            if length > FUNCTION_LINES_MAX:
                faults.append(f"{path}:{item.lineno}: {item.name} has {length} lines")
    return faults


def cycles(modules: Iterable[tuple[str, str]]) -> list[str]:
    """Modules (path, text) that import one another in a circle. Imports for types only count, and
    those inside of functions: who needs a name at all knows whom it comes from."""
    trees = {_module(path): ast.parse(text) for path, text in modules}
    needs = {name: _needs(tree, trees.keys()) for name, tree in trees.items()}
    waiting = dict(needs)
    while done := [name for name, needed in waiting.items() if not needed & waiting.keys()]:
        for name in done:
            del waiting[name]
    ways = {name: _reached(name, waiting) for name in waiting}
    return sorted(
        f"{name} -> {other}"
        for name in waiting
        for other in needs[name] & waiting.keys()
        if name in ways[other]
    )


def names(path: str, text: str) -> list[str]:
    """Files, classes and functions named for nothing."""
    defined = [(0, part) for part in PurePosixPath(path).with_suffix("").parts]
    for item in ast.walk(ast.parse(text)):
        if isinstance(item, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            defined.append((item.lineno, item.name))
    return [f"{path}:{line}: {name}" for line, name in defined if BANNED_NAME.search(_snake(name))]


def defines(path: Path, symbol: str) -> bool:
    """Whether the Python file defines `symbol`: a function, class, method (A.b) or constant."""
    body: list[ast.stmt] = ast.parse(path.read_text()).body
    for part in symbol.split("."):
        found = next((item for item in body if part in _bound(item)), None)
        if found is None:
            return False
        body = getattr(found, "body", [])
    return True


def _bound(item: ast.stmt) -> set[str]:
    if isinstance(item, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {item.name}
    if isinstance(item, ast.Assign):
        return {target.id for target in item.targets if isinstance(target, ast.Name)}
    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
        return {item.target.id}
    return set()


def _module(path: str) -> str:
    """simnet/assay_simnet/a/b.py -> assay_simnet.a.b"""
    name = ".".join(PurePosixPath(path).with_suffix("").parts[1:])
    return name.removesuffix(".__init__")


def _needs(tree: ast.Module, known: Iterable[str]) -> set[str]:
    """Which of the `known` modules a module names in its imports, wherever these stand."""
    named: set[str] = set()
    for item in ast.walk(tree):
        if isinstance(item, ast.Import):
            named |= {alias.name for alias in item.names}
        elif isinstance(item, ast.ImportFrom) and item.module:
            within = {f"{item.module}.{alias.name}" for alias in item.names}
            named |= within & set(known) or {item.module}
    return named & set(known)


def _reached(name: str, needs: Mapping[str, set[str]]) -> set[str]:
    """Modules that one needs, and those that these need."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = needs.get(waiting.pop(), set()) - found
        found |= new
        waiting += sorted(new)
    return found


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """(module, whether inside a function) of every import that runs; not those for types only."""
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        item, lazy = waiting.pop()
        if isinstance(item, ast.Import):
            yield from ((alias.name, lazy) for alias in item.names)
        elif isinstance(item, ast.ImportFrom) and item.module:
            assert item.level == 0, "imports are absolute"
            yield item.module, lazy
        if isinstance(item, ast.If) and ast.unparse(item.test) == "TYPE_CHECKING":
            continue
        inside = lazy or isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
        waiting += [(child, inside) for child in ast.iter_child_nodes(item)]


def _may(path: str, package: str, other: str, lazy: bool) -> bool:
    if path == _HANDS_OVER and lazy:
        return True
    return other in _MAY[package] or (lazy and other in _MAY_LAZILY.get(package, set()))


def _protocol_may(path: str, top: str) -> bool:
    known = top in sys.stdlib_module_names or top in _PROTOCOL_MAY or top in PACKAGES
    masks = top == "llguidance" and path == _MASKS_IN
    return known or masks or (top == "numpy" and path in _NUMPY_IN)
