"""Who says what is drafted: payoff.py where the engine serves, a rehearsal where it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from assay_node.engine.jobs import Job
from assay_node.engine.plans import Feed

Chosen = dict[int, tuple[int, ...]]  # drafts by job


class Drafting(Protocol):
    """Asked before each decode that feeds no prompt, told of each that was of one adapter."""

    def choose(self, jobs: Sequence[Job], rows: int) -> Chosen:
        """Drafts for some of the `jobs` of the next decode, `rows` tokens of all together at most.

        What a job may not be given (`Job.drafts_max`, the exact road's bound) is cut off.
        """
        ...

    def took(self, feeds: Sequence[Feed], seconds: float) -> None:
        """A decode of these feeds and its draws took so long."""
        ...
