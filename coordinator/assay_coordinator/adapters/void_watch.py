"""Notices epochs that the contract voided: a fraud was proven, or a leaf was not shown in time.

The coordinator cannot undo that; its operator must know at once. What was voided while the
coordinator was away is seen at the start: the ledger's head is below what was posted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import trio

from assay_contracts.adapters.backend import SequencedChain
from assay_contracts.adapters.follower import Change, Follower
from assay_contracts.calls import events, topic
from assay_contracts.credit import ledger_abi
from assay_coordinator.core.events import EpochVoided
from assay_network.logs import get_logger
from assay_protocol.errors import AssayError

BLOCKS_BEFORE: Final = 64  # of the chain's head, where following begins
POLL_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 10.0
COMPLAINT_SECONDS: Final = 60.0  # between two lines about one thing that stays wrong
_EVENT: Final = "EpochVoided"

log = get_logger("anchor")


class VoidWatch:
    """`posted` is asked once, at the start: the newest epoch whose post is still in its block."""

    def __init__(
        self,
        chain: SequencedChain,
        ledger: bytes,
        posted: Callable[[], Awaitable[int]],
        tell: Callable[[EpochVoided], None],
    ) -> None:
        self._chain, self._ledger, self._posted, self._tell = chain, ledger, posted, tell
        self._quiet_until = 0.0
        self._topic = topic(ledger_abi.CONTRACT, _EVENT)

    async def run(self) -> NoReturn:
        """Until cancelled; a chain that is down is asked again."""
        while True:
            try:
                start = max(0, (await self._chain.head()).number - BLOCKS_BEFORE)
                await self.look_back()
                break
            except AssayError as error:
                self._complain(error)
                await trio.sleep(RETRY_SECONDS)
        follower = Follower(
            self._chain,
            (self._ledger,),
            self.changed,
            start=start,
            on_error=self._complain,
        )
        await follower.run(POLL_SECONDS)

    async def look_back(self) -> None:
        """What was voided while nobody followed."""
        posted = await self._posted()
        answer = await self._chain.call(self._ledger, ledger_abi.head_call())
        head = ledger_abi.decode_number(answer)
        if head < posted:
            self._say(head + 1, standing=True)

    async def changed(self, change: Change) -> None:
        for emitted in change.logs:
            if emitted.topics[:1] == (self._topic,):
                _, fields = events(ledger_abi.CONTRACT, emitted)
                self._say(fields["epoch"], standing=change.applied)

    def _complain(self, error: AssayError) -> None:
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + COMPLAINT_SECONDS
            log.error("not_followed", code=error.code, detail=error.message)

    def _say(self, epoch: int, standing: bool) -> None:
        log.error("epoch_voided", epoch=epoch, standing=standing)
        self._tell(EpochVoided(epoch, standing))
