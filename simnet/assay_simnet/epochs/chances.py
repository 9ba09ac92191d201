"""Chance for whole arrays: numpy's counter-based Philox, keyed by a named stream of the root seed.

Each use in each epoch has a stream of its own name, so one more draw anywhere shifts no other.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from assay_simnet.seeds import Streams

_KEY_BYTES: Final = 16
Reals = NDArray[np.float64]
Wholes = NDArray[np.int64]


class Chances:
    """Generators by name."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def of(self, name: str, epoch: int = 0) -> np.random.Generator:
        """The generator of that use in that epoch, from its start."""
        key = self._streams.secret(f"epochs:{name}:{epoch}")[:_KEY_BYTES]
        return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))


def rounded(values: Reals, generator: np.random.Generator) -> Wholes:
    """Whole numbers of the same mean: each is rounded up as often as its fraction says."""
    return np.floor(values + generator.random(len(values))).astype(np.int64)
