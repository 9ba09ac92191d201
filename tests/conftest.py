"""Settings all tests share.

Hypothesis draws the same examples on every run, so a red run means a change of ours;
`--hypothesis-profile=deep` draws many more at random, to look for what we have not met.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from slowest_first import in_order

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "assay", deadline=None, max_examples=40, derandomize=True, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile(
    "deep", deadline=None, max_examples=2_000, suppress_health_check=_SLOW_IS_FINE
)
settings.load_profile("assay")

# For every engine a test starts. A thread of OpenMP that waits for another spins, and on a machine
# whose cores all have work it takes the core that the other one needs: trials of two threads took
# twice the processor time. No bit depends on it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = in_order(items)


@pytest.fixture(autouse=True)
def _logs_go_nowhere_afterwards() -> Iterator[None]:
    """A command run in the test's own process sets up logs, on a stream that ends with the test."""
    logger = logging.getLogger("assay")
    before = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = before
