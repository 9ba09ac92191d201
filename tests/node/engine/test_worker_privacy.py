"""A crash of the engine's process leaves no core behind: it would hold prompts."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, os, resource
from assay_node.engine.worker import forbid_core_dumps
forbid_core_dumps()
PR_GET_DUMPABLE = 3
dumpable = ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
print(resource.getrlimit(resource.RLIMIT_CORE), dumpable)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.slow
def test_the_worker_is_not_dumpable() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.split() == ["(0,", "0)", "0"]
