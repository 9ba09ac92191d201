"""What clients of a simulated network ask: prompts behind one system prompt, sampled answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from assay_protocol.messages import Sampler
from assay_simnet.language import BLOCK, VOCABULARY

SAMPLER: Final = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
NEAR_TIES: Final = Sampler(temperature=0.02, top_k=40, top_p=1.0, min_p=0.0)
SYSTEM: Final = tuple(1 + place * 11 % (VOCABULARY - 1) for place in range(4 * BLOCK))
SECOND: Final = 1_000_000


class Dice(Protocol):
    """Where prompts' chance comes from."""

    def below(self, bound: int) -> int: ...


class Asked(Dice, Protocol):
    """The network that is asked."""

    def run(self, done: Callable[[], bool]) -> bool: ...

    def idle(self, seconds: float) -> None: ...


class Asker(Protocol):
    """The client that asks."""

    @property
    def running(self) -> int: ...

    def start(
        self,
        prompt: tuple[int, ...],
        max_tokens: int,
        sampler: Sampler,
        only: tuple[bytes, ...] = (),
    ) -> None: ...


@dataclass(frozen=True)
class Workload:
    """Jobs one after another, `pace_us` apart at least. `own_tokens`: of each prompt, at most."""

    max_tokens: int = 48
    own_tokens: int = 16
    sampler: Sampler = SAMPLER
    system: tuple[int, ...] = SYSTEM
    pace_us: int = 2 * SECOND

    def prompt(self, world: Dice) -> tuple[int, ...]:
        """The system prompt and some tokens nobody else sends."""
        length = 1 + world.below(self.own_tokens)
        return self.system + tuple(1 + world.below(VOCABULARY - 1) for _ in range(length))

    def ask(self, world: Asked, client: Asker, only: tuple[bytes, ...] = ()) -> None:
        """Start one job and let it end; then let the pace pass."""
        client.start(self.prompt(world), self.max_tokens, self.sampler, only)
        assert world.run(lambda: client.running == 0), "a job never ends"
        world.idle(self.pace_us / SECOND)
