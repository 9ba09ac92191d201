"""The simulated chain behind a production coordinator, which reaches it as production does: by
production's outbox (posts.py). Chain and rows outlive the coordinator's process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from assay_coordinator.core.events import EpochPosted, PostEpoch, PostRound, RoundMined
from assay_simnet.drivers.agenda import Agenda
from assay_simnet.mined_chain import MinedChain
from assay_simnet.posts import PASS_US, Posts, Told
from assay_simnet.scenario import Scenario


class ChainWorld(Protocol):
    """What a chain needs of its world."""

    scenario: Scenario
    agenda: Agenda

    @property
    def now(self) -> int: ...

    def secret(self) -> bytes:
        """The chain's."""
        ...


class LiveChain:
    """`submit` and `settled` of the coordinator's Backends, and what can befall a chain."""

    def __init__(self, world: ChainWorld) -> None:
        given = world.scenario.chain
        self._world = world
        self._posts: Posts | None = None
        self._block_us, self._confirmations = given.block, given.confirmations
        self._told: dict[tuple[type, int], Told] = {}  # to this process; one for each post
        self._changed = trio.Event()
        self._passing = False
        self.down = False

    @property
    def posts(self) -> Posts:
        """Its chain begins when it is first looked at: within the run."""
        if self._posts is None:
            chain = MinedChain(self._world.secret(), self._world.now, self._block_us)
            self._posts = Posts(chain, self._confirmations)
        return self._posts

    async def submit(self, effect: PostEpoch | PostRound) -> None:
        """Into the outbox, which is never lost: asked again after a crash, it is the same."""
        await trio.lowlevel.checkpoint()
        self.posts.submit(self._world.now, effect)
        self._look()

    async def settled(self, effect: PostEpoch | PostRound) -> EpochPosted | RoundMined:
        """When it is on the chain to stay."""
        key = _key(effect)
        while key not in self._told:
            await self._changed.wait()
        return self._told[key]

    def restart(self) -> None:
        """The coordinator's process is a new one, and asks again for what it waits for."""
        self.posts.restart()
        self._told = {}

    def back(self) -> None:
        """It can be asked again; the next pass finds it so."""
        self.down = False

    def reorganise(self, depth: int, forgets: Callable[[], bool]) -> None:
        """The newest blocks become others, and what was in them is somewhere else."""
        self.posts.chain.reorganise(self._world.now, depth, forgets)
        self._look()

    def _look(self) -> None:
        """Passes from now on, until there is nothing to wait for."""
        if not self._passing:
            self._passing = True
            self._world.agenda.after(0, self._pass)

    def _pass(self) -> None:
        self._passing = False
        if self.down:
            self.posts.forget()
        else:
            for told in self.posts.go(self._world.now):
                self._told[_key(told)] = told
            self._changed.set()
            self._changed = trio.Event()
        if self.posts.open:
            self._passing = True
            self._world.agenda.after(PASS_US, self._pass)


def _key(one: PostEpoch | PostRound | Told) -> tuple[type, int]:
    if isinstance(one, PostEpoch | EpochPosted):
        return EpochPosted, one.epoch
    return RoundMined, one.number
