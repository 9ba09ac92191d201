"""The states of preempted jobs, until they run again: bounded memory, first come, first kept."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SAVED_BYTES_MAX: Final = 128 << 20  # a job that does not fit is fed again instead

State = NDArray[np.uint8]


class Shelf:
    """States by job, `bytes_max` of them together."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._states: dict[int, State] = {}

    @property
    def held_bytes(self) -> int:
        return sum(state.nbytes for state in self._states.values())

    def fits(self, size: int) -> bool:
        """Whether a state of `size` bytes may be put now."""
        return self.held_bytes + size <= self._bytes_max

    def put(self, job: int, state: State) -> None:
        assert job not in self._states
        assert self.fits(state.nbytes)
        self._states[job] = state

    def take(self, job: int) -> State:
        """What was put for `job`, here no longer."""
        return self._states.pop(job)

    def drop(self, job: int) -> None:
        """Forget it; nothing happens if there is none."""
        self._states.pop(job, None)
