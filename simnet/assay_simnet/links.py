"""The network between regions: latency, jitter, lost packets, partitions, and worse for a while.

Sessions and job streams are connections that keep order and send again what was lost, so a lost
packet is a delay. What breaks a connection is a fault: while one of kind "loss" or a partition
lasts, a message may never come, and its sender finds out by waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay_simnet.population import WORLD_5
from assay_simnet.seeds import Stream

RESEND_US: Final = 200_000  # the least time before a lost packet is sent again (Linux's RTO)
RESENDS_MAX: Final = 8


class Wire:
    """One direction of one connection: what was sent first comes first."""

    __slots__ = ("last_us",)

    def __init__(self) -> None:
        self.last_us = 0


@dataclass(slots=True)
class Weather:
    """What faults do to messages now. Shares; `delay_us` is added to each."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_us: int = 0


class Links:
    """Says when a message arrives, if it does."""

    def __init__(self, stream: Stream, latency: str, jitter_us: int, loss: float) -> None:
        """`latency`: "world-5", or microseconds one way between any two as a number in text."""
        self._stream, self._jitter_us, self._loss = stream, jitter_us, loss
        constant = None if latency == "world-5" else int(latency)
        self._us = {
            (a, b): constant if constant is not None else 1_000 * ms
            for a, row in WORLD_5.items()
            for b, ms in row.items()
        }
        self.weather = Weather()
        self._cut: list[tuple[frozenset[str], bool]] = []

    def cut(self, group: frozenset[str], *, one_way: bool = False) -> None:
        """Regions in `group` and the rest reach each other no more; `one_way`: only what leaves
        the group is lost."""
        self._cut.append((group, one_way))

    def heal(self, group: frozenset[str]) -> None:
        self._cut = [cut for cut in self._cut if cut[0] != group]

    def reaches(self, source: str, target: str) -> bool:
        for group, one_way in self._cut:
            leaves = source in group and target not in group
            enters = target in group and source not in group
            if leaves or (enters and not one_way):
                return False
        return True

    def arrival(self, now: int, wire: Wire, source: str, target: str) -> int | None:
        """When a message of a connection arrives; None if never."""
        weather = self.weather
        if self._cut and not self.reaches(source, target):
            return None
        if weather.loss and self._stream.chance(weather.loss):
            return None
        at = max(now + self.delay_us(source, target), wire.last_us)
        if weather.reorder and self._stream.chance(weather.reorder):
            return at + self.delay_us(source, target)  # and what follows may overtake it
        wire.last_us = at
        return at

    def twice(self) -> bool:
        """Whether a message comes a second time."""
        return bool(self.weather.duplicate) and self._stream.chance(self.weather.duplicate)

    def delay_us(self, source: str, target: str) -> int:
        """How long one message takes, drawn anew: jitter, and what is sent again."""
        delay = self._us[source, target] + self.weather.delay_us
        if self._jitter_us:
            delay += round(self._stream.exponential(self._jitter_us))
        if self._loss:
            wait = RESEND_US
            for _ in range(RESENDS_MAX):
                if not self._stream.chance(self._loss):
                    break
                delay, wait = delay + wait, 2 * wait
        return delay
