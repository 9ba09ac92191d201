"""What every view has at hand."""

from __future__ import annotations

from assay_coordinator.dashboard.census import Census, CensusTaker
from assay_coordinator.dashboard.subject import Subject


class Views:
    """One subject, and the last census of it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._taker = CensusTaker(subject)

    async def census(self) -> Census:
        """All nodes, as they were a moment ago."""
        return await self._taker.census()
