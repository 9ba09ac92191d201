"""BOINC's policy for trust, as its scheduler has it, against a patient traitor.

A host whose last CONSECUTIVE results were valid is trusted: its results are replicated with
probability 1 / (valid results in a row) only. An invalid one sets the count to 0; nothing else
happens to the host (sched_send.cpp, sched_config.h; docs of adaptive replication).
"""

from __future__ import annotations

from random import Random
from typing import Final

CONSECUTIVE: Final = 10


def bad_share(patience: int, cycles: int, seed: int) -> float:
    """Share of wrong results among all that are accepted, of a host that is honest until
    `patience` results in a row were found valid, then always wrong until caught, and so on.

    Replication always tells, so this is kind to the policy.
    """
    random = Random(seed)
    accepted = bad = 0
    for _ in range(cycles):
        valid = 0
        while valid < patience:
            accepted += 1
            valid += _replicated(random, valid)
        while not _replicated(random, valid):
            accepted += 1
            bad += 1
    return bad / accepted


def _replicated(random: Random, valid: int) -> bool:
    return valid < CONSECUTIVE or random.random() * valid < 1
