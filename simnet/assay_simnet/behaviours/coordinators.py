"""A coordinator that is not neutral."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from assay_coordinator.core.coordinator import Coordinator
from assay_coordinator.core.events import Effect
from assay_coordinator.core.jobs import Job
from assay_coordinator.core.lottery import Draw


@dataclass
class CoordinatorBias:
    """Drops the draws that hit one node."""

    name: ClassVar[str] = "coordinator_bias"
    does: ClassVar[str] = "a coordinator never audits a friend's node by the draw"
    friend: bytes

    def plug_into(self, core: Coordinator) -> None:
        """Let the core carry out every draw but those."""
        fair = core.jobs.draw

        def draw(now: int, drawn: Draw) -> tuple[Job | None, list[Effect]]:
            job = core.jobs.jobs.get(drawn.ticket)
            spared = job is not None and job.ticket.node == self.friend
            return fair(now, replace(drawn, hit=False) if spared else drawn)

        vars(core.jobs)["draw"] = draw
