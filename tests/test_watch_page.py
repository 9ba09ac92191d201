"""What operators read and look at names the metrics that are there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from assay.top.core.network_view import NetworkView
from assay.top.core.node_view import NodeView
from metrics_page import PAGE, sample_names, written
from tidy_rules import ROOT

DASHBOARD = ROOT / "docs" / "grafana" / "assay.json"
METRIC = re.compile(r"\bassay_\w+")


def test_the_page_lists_every_metric() -> None:
    assert PAGE.read_text() == written(PAGE.read_text()), "run `python tests/metrics_page.py`"


def test_every_metric_of_the_dashboard_exists() -> None:
    asked = {name for query in _queries() for name in METRIC.findall(query)}
    assert asked - sample_names() == set()
    assert len(asked) > 20, "it would show nothing"


def test_the_dashboard_is_one_that_can_be_imported() -> None:
    board = json.loads(DASHBOARD.read_text())
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert all(panel["title"] and panel["gridPos"]["w"] <= 24 for panel in board["panels"])
    sources = {
        json.dumps(one["datasource"], sort_keys=True)
        for panel in board["panels"]
        for one in (panel, *panel.get("targets", ()))
        if "datasource" in one
    }
    assert sources == {'{"type": "prometheus", "uid": "${source}"}'}


@pytest.mark.parametrize(("part", "shape"), [("nodes", NodeView), ("network", NetworkView)])
def test_the_page_names_every_field_of_assay_top(part: str, shape: type) -> None:
    block = re.search(rf"<!-- top {part} -->\n(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert block is not None
    rows = [line.split(" | ")[0] for line in block[1].splitlines()[2:]]
    told = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted(told) == sorted(field.name for field in fields(shape))


def _queries() -> Iterator[str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    for panel in panels:
        for target in panel.get("targets", ()):
            yield target["expr"]
