"""What every party of the live driver shares; each party's file adds what it needs beyond this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from assay_node.core.sealing import Sealing
from assay_protocol.signing import Signer, Verifier
from assay_simnet.drivers.agenda import Agenda
from assay_simnet.drivers.live_wires import Wires
from assay_simnet.history import History
from assay_simnet.invariants import Checks
from assay_simnet.machines import Machines
from assay_simnet.record import Record
from assay_simnet.scenario import Scenario
from assay_simnet.seeds import Streams

NUMBER: Final = 0  # the coordinator's among the parties


class LiveGround(Protocol):
    """One run's. Times are microseconds since the epoch."""

    scenario: Scenario
    streams: Streams
    agenda: Agenda
    wires: Wires
    history: History
    record: Record
    checks: Checks
    machines: Machines
    verifier: Verifier
    sealing: Sealing

    @property
    def now(self) -> int: ...

    def identity(self, name: str) -> Signer:
        """The key of that name."""
        ...

    def number_of(self, key: bytes) -> int:
        """Whose key it is, as a number of the history."""
        ...

    def spawn(self, task: Callable[..., Awaitable[None]], *args: Any) -> None:
        """A task for as long as the run."""
        ...
