"""What docs/dashboard.md says of the API is what there is."""

from __future__ import annotations

import re

from assay_coordinator.dashboard.routes import API
from assay_network.web_pages import web_files
from dashboard_page import PAGE, written

_ASKED = re.compile(r"""ask(?:Bytes)?\(\s*["`]([\w/{}$.]+)""")


def test_the_page_lists_every_path() -> None:
    assert PAGE.read_text() == written(PAGE.read_text()), "run `python tests/dashboard_page.py`"


def test_the_dashboard_asks_only_for_paths_that_are_there() -> None:
    known = {re.sub(r"\{\w+\}", "*", one.path.removeprefix("/api/")) for one in API}
    scripts = [f for name, f in web_files().items() if name.startswith("dashboard/")]
    asked = {
        re.sub(r"\$\{[^}]+\}", "*", path)
        for script in scripts
        for path in _ASKED.findall(script.content.decode())
    }
    assert len(asked) >= 8, "it would show nothing"
    assert asked - known == set()
