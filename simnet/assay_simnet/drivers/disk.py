"""A node's disk: receipts not booked yet, tickets used (D1, L2), and what can be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from assay_node.core.effects import SaveReceipt
from assay_node.core.outbox import Owed

SAVE_US: Final = 2_000
_SWEPT: Final = 256  # tickets between two looks for those that expired


@dataclass(slots=True)
class Disk:
    """What survives the process. SQLite leaves no half of a commit (WAL, synchronous = full): one
    that is cut short is there or not, and `torn` says which of the next one."""

    owed: dict[bytes, Owed] = field(default_factory=dict)
    used: dict[bytes, int] = field(default_factory=dict)  # by ticket: when it expires
    save_us: int = SAVE_US
    full: bool = False
    torn: bool | None = None  # None: the power stays

    def as_ever(self) -> None:
        self.save_us, self.full = SAVE_US, False

    def commit(self, receipt: SaveReceipt, now: int, lifetime_us: int) -> bool:
        """False if the power failed within it. `now` by the node's clock; no ticket outlives
        `lifetime_us`."""
        torn, self.torn = self.torn, None
        if torn is not False:
            self._keep(receipt, now, lifetime_us)
        return torn is None

    def _keep(self, receipt: SaveReceipt, now: int, lifetime_us: int) -> None:
        owed = Owed(receipt.ticket, receipt.ticket_blob, receipt.receipt, receipt.ack)
        self.owed[receipt.ticket] = owed
        self.used[receipt.ticket] = now + lifetime_us
        if len(self.used) % _SWEPT == 0:
            self.used = {key: end for key, end in self.used.items() if end > now}
