"""Reading a large text takes seconds: it is done beside the loop, so that others are answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import trio

from assay.run_places import RunPlaces

LARGE_CHARACTERS: Final = 1 << 15  # some 20 ms
READ_AT_ONCE_MAX: Final = 2  # large ones, in threads; the others wait
_Read = TypeVar("_Read")
_places = RunPlaces("large_texts", READ_AT_ONCE_MAX)


async def beside(read: Callable[[], _Read], *texts: object) -> _Read:
    """What `read` makes of `texts`: here and now, or in a thread if they are large together.

    A thread goes on when its caller is cancelled, and keeps its place till it ends."""
    if sum(map(_characters, texts)) < LARGE_CHARACTERS:
        return read()
    return await trio.to_thread.run_sync(  # type: ignore[call-arg]  # older stubs
        read, limiter=_places.limiter(), abandon_on_cancel=True
    )


def _characters(value: Any) -> int:
    """Of all texts in plain data; a value that is none counts for one."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(str(key)) + _characters(item) for key, item in value.items())
    return sum(map(_characters, value)) if isinstance(value, Sequence) else 1
