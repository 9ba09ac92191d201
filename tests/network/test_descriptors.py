"""The soft limit of file descriptors becomes the hard one."""

from __future__ import annotations

import resource
import subprocess
import sys

SHRINK_AND_RAISE = """
import resource
from assay_network.descriptors import raise_descriptor_limit
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
raise_descriptor_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_is_raised() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHRINK_AND_RAISE], capture_output=True, text=True, check=True
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert done.stdout.split() == [str(hard), str(hard)]
