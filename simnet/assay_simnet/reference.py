"""Prints the reference of scenario files from the dataclasses that read them.

`python -m assay_simnet.reference` writes the section of docs/simnet.md between its two marks; a
test holds the page to it.
"""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields
from typing import Any, Final

from assay_simnet.cheats import BEHAVIOURS
from assay_simnet.economy import Economy, Vote
from assay_simnet.fault_kinds import FAULTS
from assay_simnet.scenario import (
    Adversary,
    Chain,
    Checks,
    Churn,
    Fault,
    Model,
    Network,
    Population,
    Scenario,
    Workload,
)

BEGINS: Final = "<!-- reference: python -m assay_simnet.reference -->"
ENDS: Final = "<!-- end of the reference -->"
_TABLES: Final[tuple[tuple[str, type], ...]] = (
    ("top of the file", Scenario),
    ("[model]", Model),
    ("[population]", Population),
    ("[network]", Network),
    ("[chain]", Chain),
    ("[churn]", Churn),
    ("[workload]", Workload),
    ("[[adversary]]", Adversary),
    ("[[fault]]", Fault),
    ("[checks]", Checks),
    ("[economy]", Economy),
    ("[governance]", Vote),
)


def reference() -> str:
    """The section, marks included."""
    parts = [BEGINS]
    for title, cls in _TABLES:
        parts += ["", f"### `{title}`", "", "| key | default | |", "|---|---|---|"]
        parts += [_row(item) for item in fields(cls) if "read" in item.metadata]
    parts += ["", "### Kinds of faults", "", "| kind | does |", "|---|---|"]
    parts += [f"| `{kind}` | {does} |" for kind, does in FAULTS.items()]
    parts += ["", "### Behaviours", "", "| behaviour | does |", "|---|---|"]
    parts += [f"| `{name}` | {cheat.does} |" for name, cheat in BEHAVIOURS.items()]
    return "\n".join([*parts, "", ENDS])


def _row(item: Any) -> str:
    written = item.metadata["written"]
    key = "for" if item.name == "for_" else item.name
    return f"| `{key}` | {_shown(written)} | {item.metadata['says']} |"


def _shown(written: Any) -> str:
    if written is MISSING:
        return "(must be there)"
    if isinstance(written, dict):
        pairs = (f'"{key}" = {_bare(value)}' for key, value in written.items())
        return "`{ " + ", ".join(pairs) + " }`"
    if isinstance(written, list):
        return "`[" + ", ".join(f'"{one}"' for one in written) + "]`"
    if isinstance(written, bool):
        return f"`{str(written).lower()}`"
    return f"`{_bare(written)}`"


def _bare(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


if __name__ == "__main__":
    sys.stdout.write(reference() + "\n")
