"""Tells what happens to some contracts, block by block, and takes it back when the chain does.

Works on any `SequencedChain`, from any block on; blocks and events come in batches. What was told
was handled: if the handler or the chain fails, it goes on after the last block that was handled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, NoReturn

import trio

from assay_contracts.adapters.backend import SequencedChain
from assay_contracts.adapters.follower_core import (
    KEPT_MAX,
    Back,
    Effect,
    Fetch,
    FollowerCore,
    Forward,
    Lost,
    Mark,
    Polled,
    Read,
)
from assay_contracts.records import Log
from assay_protocol.errors import AssayError

POLL_SECONDS: Final = 2.0
POLL_SECONDS_MAX: Final = 120.0  # of one poll; a long way back takes several
STEPS_MAX: Final = 4_096  # effects of one poll


@dataclass(frozen=True, slots=True)
class Change:
    """A block came (`applied`) or was taken back, with the events of the followed contracts. Of a
    block that was told before this follower began its `logs` are not known any more: empty."""

    applied: bool
    mark: Mark
    logs: tuple[Log, ...]


Handler = Callable[[Change], Awaitable[None]]


class Follower:
    """`run` it in one task. `kept` are the marks of an earlier run: it goes on there, and takes
    back what was re-organised meanwhile. `finalized`: only blocks that the chain calls final."""

    def __init__(
        self,
        chain: SequencedChain,
        addresses: tuple[bytes, ...],
        handler: Handler,
        *,
        start: int = 0,
        kept: Iterable[Mark] = (),
        finalized: bool = False,
        on_error: Callable[[AssayError], None] = lambda error: None,
    ) -> None:
        self._chain, self._addresses, self._handler = chain, addresses, handler
        self._start, self._finalized, self._on_error = start, finalized, on_error
        self._kept: deque[tuple[Mark, tuple[Log, ...]]] = deque(
            ((mark, ()) for mark in kept), maxlen=KEPT_MAX
        )

    @property
    def kept(self) -> tuple[Mark, ...]:
        """The newest blocks that were handled, oldest first: what a later run begins with."""
        return tuple(mark for mark, _ in self._kept)

    async def run(self, poll_seconds: float = POLL_SECONDS) -> NoReturn:
        """Polls until cancelled; what the chain or the handler raise is told and tried again."""
        while True:
            try:
                with trio.fail_after(POLL_SECONDS_MAX):
                    await self.poll()
            except AssayError as error:
                self._on_error(error)
            except trio.TooSlowError:
                self._on_error(AssayError("chain_unavailable", "following takes too long"))
            await trio.sleep(poll_seconds)

    async def poll(self) -> None:
        """Brings the handler up to the chain's present head.

        Raises AssayError: "chain_unavailable", "chain_mismatch" (a fork deeper than what is kept),
        and what the handler raises.
        """
        core = FollowerCore(self._start, self.kept)
        head = await (self._chain.finalized() if self._finalized else self._chain.head())
        queue = deque(core.handle(Polled(head.number)))
        logs: dict[bytes, tuple[Log, ...]] = {}
        for _ in range(STEPS_MAX):
            if not queue:
                return
            read = await self._do(queue.popleft(), logs)
            if read is not None:
                queue.extend(core.handle(read))

    async def _do(self, effect: Effect, logs: dict[bytes, tuple[Log, ...]]) -> Read | None:
        match effect:
            case Fetch(first, count, compare):
                blocks = await self._chain.blocks(first, count)
                logs.clear()
                if not compare and blocks:
                    names = tuple(block.hash for block in blocks)
                    found = await self._chain.logs_of(names, self._addresses)
                    logs.update(zip(names, found, strict=True))
                return Read(first, blocks)
            case Forward(block):
                change = Change(True, Mark(block.number, block.hash), logs[block.hash])
                await self._handler(change)
                self._kept.append((change.mark, change.logs))
            case Back():
                mark, told = self._kept[-1]
                await self._handler(Change(False, mark, told))
                self._kept.pop()
            case Lost(oldest):
                text = f"block {oldest.number} and all after it are not the chain's any more"
                raise AssayError("chain_mismatch", text)
        return None
