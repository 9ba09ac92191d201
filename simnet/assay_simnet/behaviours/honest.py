"""`honest`: what every other behaviour is measured against."""

from __future__ import annotations

from dataclasses import dataclass

from assay_protocol.messages import Ticket
from assay_simnet.behaviours.behaviour import Behaviour


@dataclass
class Honest(Behaviour):
    """Cheats on nothing."""

    def cheats(self, number: int, ticket: Ticket) -> bool:
        return False
