"""The simulated chain behind a production coordinator; it outlives the coordinator's process."""

from __future__ import annotations

import trio

from assay_coordinator.core.events import EpochPosted, PostEpoch, PostRound, RoundMined
from assay_simnet.chain import Chain, Clock


class LiveChain:
    """`submit` and `settled` of the coordinator's Backends."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._chain = clock, Chain(clock)
        self._mined: dict[PostRound, tuple[RoundMined, int]] = {}  # one for each round of the run
        self._back = trio.Event()
        self.down = False

    async def submit(self, effect: PostEpoch | PostRound) -> None:
        """Into an outbox that is never lost: asked again after a crash, it is the same round."""
        await trio.lowlevel.checkpoint()

    async def settled(self, effect: PostEpoch | PostRound) -> EpochPosted | RoundMined:
        """When it is on the chain to stay."""
        while self.down:
            await self._back.wait()
        if isinstance(effect, PostEpoch):
            await trio.lowlevel.checkpoint()
            return EpochPosted(effect.epoch)
        if effect not in self._mined:
            told, later_us = self._chain.post(effect)
            self._mined[effect] = told, self._clock.now + later_us
        told, at_us = self._mined[effect]
        await trio.sleep(max(0, at_us - self._clock.now) / 1e6)
        return told

    def back(self) -> None:
        """It takes transactions again."""
        self.down = False
        self._back.set()
        self._back = trio.Event()
