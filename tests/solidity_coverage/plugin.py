"""Line and branch coverage of the Solidity sources by the tests in Python: `make test-contracts`.

    pytest -p solidity_coverage.plugin -n 0 tests/contracts/test_*.py

The tests then deploy contracts compiled without the optimizer, on an EVM that is traced. At the end
a table is printed, and the run fails if any source is covered less than `COVERED_MIN`. Gas is not
what the shipped code costs in such a run: tests of gas are marked and left out.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any, Final

import pyrevm
import pytest
from hypothesis import HealthCheck, settings

from assay_contracts import artefact
from assay_contracts.artefact import CONTRACTS
from assay_contracts.deploy import build, compiler
from solidity_coverage.targets import Code, Source
from solidity_coverage.trace import Seen, TracedEVM

COVERED_MIN: Final = 0.95
EXAMPLES: Final = 20
_OUTPUTS: Final = ("abi", "evm.bytecode", "evm.deployedBytecode", "evm.methodIdentifiers")
_SETTINGS: Final = "_hypothesis_internal_use_settings"
_MACHINES: Final = {"ASSAY_LEDGER_EXAMPLES": "6", "ASSAY_COURT_EXAMPLES": "6"}
_UNOPTIMIZED: Final = {"optimizer": {"enabled": False}}


class _Build:
    """The contracts compiled anew, their artefacts, and the places of their instructions."""

    def __init__(self) -> None:
        compiler.SETTINGS.update(_UNOPTIMIZED)
        texts = build.all_sources()
        output = compiler.compile_sources(texts, _OUTPUTS, ast=True, warnings=True)
        self.artefacts = build.artefacts(texts, output)
        self.sources = {
            found["id"]: Source(name, texts[name], found["id"], found["ast"])
            for name, found in output["sources"].items()
            if not name.startswith("@")
        }
        self._names: dict[tuple[int, bool], str | None] = {}
        self.codes: dict[tuple[str, bool], Code] = {}
        for name in CONTRACTS:
            evm = output["contracts"][build.source_name(name)][name]["evm"]
            self.codes[name, True] = Code.of(evm["bytecode"])
            self.codes[name, False] = Code.of(evm["deployedBytecode"])
        for code in self.codes.values():
            self._expect(code)

    def identify(self, code: bytes, creation: bool) -> str | None:
        """The contract of ours that `code` creates, or is."""
        key = (hash(code), creation)
        if key not in self._names:
            self._names[key] = self._search(code, creation)
        return self._names[key]

    def _search(self, code: bytes, creation: bool) -> str | None:
        for name in CONTRACTS:
            known = artefact.load(name)
            if code.startswith(known.bytecode) if creation else known.is_code(code):
                return name
        return None

    def count(self, seen: Seen) -> None:
        """Moves what ran into the sources."""
        for frame, pc in seen.steps:
            if frame in self.codes and pc in self.codes[frame].ranges:
                place = self.codes[frame].ranges[pc]
                if source := self.sources.get(place[2]):
                    source.reached.update(source.enclosing(place))
        for frame, pc, taken in seen.jumps:
            place = self.codes[frame].ranges[pc] if frame in self.codes else (0, 0, -1)
            source = self.sources.get(place[2])
            if source and source.is_condition(place):
                source.outcomes.add((place, taken))

    def _expect(self, code: Code) -> None:
        for pc, place in code.ranges.items():
            if source := self.sources.get(place[2]):
                source.statements.update(source.enclosing(place))
                if pc in code.jumps and source.is_condition(place):
                    source.conditions.add(place)


class _Plugin:
    def __init__(self) -> None:
        self.build = _Build()
        TracedEVM.seen = Seen()
        TracedEVM.identify = staticmethod(self.build.identify)  # type: ignore[assignment]
        self.short: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Random tests get few tries, whatever they ask for."""
        for item in items:
            test = getattr(item, "obj", None)
            asked = getattr(test, _SETTINGS, None)
            if asked is not None:
                tries = min(EXAMPLES, asked.max_examples)
                setattr(test, _SETTINGS, settings(asked, max_examples=tries))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        self.build.count(TracedEVM.seen)
        terminalreporter.section("Solidity coverage: lines, branches, and what is not covered")
        for source in self.build.sources.values():
            for line in self._rows(source):
                terminalreporter.write_line(line)
        for name in self.short:
            terminalreporter.write_line(f"{name}: less than {COVERED_MIN:.0%} is covered")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.build.count(TracedEVM.seen)
        for source in self.build.sources.values():
            if min(_share(*_lines(source)), _share(*_branches(source))) < COVERED_MIN:
                self.short.append(source.name)
        if self.short and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _rows(self, source: Source) -> list[str]:
        lines, branches = _lines(source), _branches(source)
        rows = [
            f"{source.name:<22} lines {_share(*lines):7.2%} of {len(lines[1]):<4} "
            f"branches {_share(*branches):7.2%} of {len(branches[1])}"
        ]
        missing = sorted(lines[1] - lines[0])
        if missing:
            rows.append(f"    lines not reached: {', '.join(map(str, missing))}")
        by_line = defaultdict(set)
        for place, taken in branches[1] - branches[0]:
            by_line[source.line(place)].add(taken)
        for line, sides in sorted(by_line.items()):
            never = " or ".join("jumped" if taken else "fell through" for taken in sides)
            rows.append(f"    line {line}: never {never}")
        return rows


def _lines(source: Source) -> tuple[set[Any], set[Any]]:
    return set(map(source.line, source.reached)), set(map(source.line, source.statements))


def _branches(source: Source) -> tuple[set[Any], set[Any]]:
    wanted = {(place, side) for place in source.conditions for side in (False, True)}
    return source.outcomes & wanted, wanted


def _share(reached: set[Any], wanted: set[Any]) -> float:
    return len(reached & wanted) / len(wanted) if wanted else 1.0


def pytest_configure(config: pytest.Config) -> None:
    plugin = _Plugin()
    artefact.load.cache_clear()
    texts = plugin.build.artefacts
    artefact.read = lambda contract: texts[contract]
    pyrevm.EVM = TracedEVM  # type: ignore[misc]
    config.pluginmanager.register(plugin, "solidity-coverage")
    # Each instruction is looked at, so random tests get few tries: breadth comes from named cases.
    os.environ.update(_MACHINES)
    unhurried = list(HealthCheck)
    settings.register_profile("coverage", deadline=None, suppress_health_check=unhurried)
    settings.load_profile("coverage")
