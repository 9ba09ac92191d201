"""The engines that run the pages' JavaScript; tests of a fixture run in each that is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from browser.javascript import NODE, Call, in_chromium, in_node
from end_to_end.pages import MISSING


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """Calls in Node.js: quick enough for many drawn cases."""
    if NODE is None:
        pytest.skip("Node.js is not installed")
    with in_node(tmp_path_factory.mktemp("modules")) as call:
        yield call


@pytest.fixture(scope="session")
def chromium() -> Iterator[Call]:
    """Calls in a page."""
    if MISSING:
        pytest.skip(MISSING)
    with in_chromium() as call:
        yield call


@pytest.fixture(scope="session", params=["node", "chromium"])
def javascript(request: pytest.FixtureRequest) -> Call:
    """Calls in either."""
    call: Call = request.getfixturevalue(request.param)
    return call
