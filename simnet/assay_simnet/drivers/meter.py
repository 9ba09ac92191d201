"""What a simulated node has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Meter:
    """What its owner would want to know. Microseconds of one slot."""

    served_us: float = 0.0
    replayed_us: float = 0.0
    jobs: int = 0
    audits: int = 0
    cheated: int = 0
    first_cheat_us: int = 0
