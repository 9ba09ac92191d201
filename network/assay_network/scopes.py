"""Scopes and nurseries inside our code must not change what its users see."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import trio


@contextlib.contextmanager
def single_errors() -> Iterator[None]:
    """Unwrap the groups in which a nursery wraps the one error that left it."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from error.__cause__


def shielded(seconds: float) -> trio.CancelScope:
    """A scope in which a cancellation from outside waits, for at most `seconds`."""
    return trio.CancelScope(deadline=trio.current_time() + seconds, shield=True)
