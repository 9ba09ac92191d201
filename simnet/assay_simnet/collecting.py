"""When Python's collector of cycles runs: a world is full of long-lived objects and makes few.

Left alone, it walks through all parties of a network every few thousand events, and between two
small runs through every module that is loaded.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

_RARELY: Final = (200_000, 20, 100)  # thresholds of collections


@contextmanager
def few_collections() -> Iterator[None]:
    """While it lasts."""
    before = gc.get_threshold()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@cache
def settle() -> None:
    """What this process has loaded stays: no collection looks at it again. Once a process, before
    the first of many runs."""
    gc.collect()
    gc.freeze()


def let_go() -> None:
    """A run's world is forgotten: memory is that of one run, not of many."""
    gc.collect()
