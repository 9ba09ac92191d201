"""A scenario at another level than its file says, or on a machine that was measured.

What is wrong with the changed scenario is still shown at its line of the file.
"""

from __future__ import annotations

from typing import Any, Final

from assay_simnet.paths import Edited, to_toml
from assay_simnet.schema import Source, parse, unknown

_OF_MACHINES: Final = ("model", "network", "profile")


def at_level(source: Source, level: str) -> Source:
    """At that level; only fast has a tick. Raises ScenarioError where the file is no TOML."""
    given = parse(source)
    given["level"] = level
    if level != "fast":
        given.pop("tick", None)
    return Edited(source.name, to_toml(source, given), source, ())


def on_machine(source: Source, machine: Source) -> Source:
    """With the keys of another file, as `simnet calibrate` writes it. Raises ScenarioError where
    that says more than what machine and network are like."""
    given, keys = parse(source), parse(machine)
    for name, entry in keys.items():
        if name not in _OF_MACHINES or not isinstance(entry, dict):
            raise machine.error((name,), unknown(name, _OF_MACHINES, "table of a machine"))
        _merge(given.setdefault(name, {}), entry)
    return Edited(source.name, to_toml(source, given), source, ())


def _merge(given: dict[str, Any], more: dict[str, Any]) -> None:
    for key, entry in more.items():
        if isinstance(entry, dict) and isinstance(given.get(key), dict):
            _merge(given[key], entry)
        else:
            given[key] = entry
