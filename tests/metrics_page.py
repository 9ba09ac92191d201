"""The tables of docs/watch.md, made from the metrics themselves; run it to write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from assay_coordinator.metrics import READINGS as COORDINATOR_READINGS
from assay_coordinator.metrics import CoordinatorMetrics
from assay_network.readings import Reading
from assay_node.metrics import READINGS as NODE_READINGS
from assay_node.metrics import NodeMetrics
from tidy_rules import ROOT

PAGE: Final = ROOT / "docs" / "watch.md"
SUFFIXES: Final = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


def families() -> dict[str, list[Metric]]:
    """All metrics of each program, without values."""
    return {
        "coordinator": _families(CoordinatorMetrics().registry, COORDINATOR_READINGS),
        "node": _families(NodeMetrics().registry, NODE_READINGS),
    }


def sample_names() -> set[str]:
    """What a query may ask for."""
    every = [family for some in families().values() for family in some]
    return {family.name + suffix for family in every for suffix in SUFFIXES[family.type]}


def written(text: str) -> str:
    """The page with its tables as they should be."""
    for program, some in families().items():
        rows = []
        for one in some:
            name = one.name + ("_total" if one.type == "counter" else "")
            rows.append(f"| `{name}` | {one.type} | {one.documentation} |")
        lines = ["| metric | kind | what |", "|---|---|---|", *sorted(rows)]
        block = re.compile(rf"(<!-- metrics {program} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert block.search(text), f"{PAGE}: no place for the metrics of a {program}"
        table: Callable[[re.Match[str]], str] = _around("\n".join(lines) + "\n")
        text = block.sub(table, text)
    return text


def _families(registry: CollectorRegistry, readings: tuple[Reading[object], ...]) -> list[Metric]:
    return [*registry.collect(), *(reading.family() for reading in readings)]


def _around(table: str) -> Callable[[re.Match[str]], str]:
    return lambda found: found[1] + table + found[2]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
