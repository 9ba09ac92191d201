"""Runs the choices of one request, AT_ONCE_MAX at a time: all of them, or the first refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from assay.gateway.refusal import Refusal
from assay_network.scopes import single_errors

AT_ONCE_MAX: Final = 8  # answers of one request that are drawn at the same time
_Drawn = TypeVar("_Drawn")


async def run_choices(count: int, draw: Callable[[int], Awaitable[_Drawn]]) -> tuple[_Drawn, ...]:
    """What `draw` gives for 0 to `count` - 1, in order.

    Raises Refusal, the first of several, if one refuses; the others are cancelled then.
    """
    if count == 1:
        return (await draw(0),)
    found: dict[int, _Drawn] = {}
    places = trio.Semaphore(AT_ONCE_MAX)

    async def one(index: int) -> None:
        async with places:
            found[index] = await draw(index)

    try:
        with single_errors():
            async with trio.open_nursery() as nursery:
                for index in range(count):
                    nursery.start_soon(one, index)
    except BaseExceptionGroup as several:  # one reason is enough
        refusals, others = several.split(Refusal)
        if refusals is None or others is not None:
            raise
        raise _first(refusals) from several
    return tuple(found[index] for index in range(count))


def _first(group: BaseExceptionGroup[Refusal]) -> Refusal:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Refusal)
    return error
