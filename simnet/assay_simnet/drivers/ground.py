"""What every party of the fast driver shares: time, chance, the network between, who watches.

Each party's file adds what it needs beyond this, so that none of them knows the driver or one
another's classes.
"""

from __future__ import annotations

from typing import Protocol

from assay_node.core.sealing import Sealing
from assay_protocol.signing import Signer, Verifier
from assay_simnet.drivers.buckets import Buckets
from assay_simnet.history import History
from assay_simnet.invariants import Checks
from assay_simnet.links import Links
from assay_simnet.record import Record
from assay_simnet.scenario import Scenario
from assay_simnet.seeds import Streams


class Ground(Protocol):
    """One run's. Times are microseconds since the epoch."""

    scenario: Scenario
    streams: Streams
    buckets: Buckets
    links: Links
    history: History
    record: Record
    checks: Checks
    verifier: Verifier
    sealing: Sealing

    @property
    def now(self) -> int: ...

    def identity(self, name: str) -> Signer:
        """The key of that name."""
        ...
