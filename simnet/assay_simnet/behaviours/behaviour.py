"""What a behaviour is: an honest node, and the few places where an adversary does otherwise.

A behaviour sits around a node's production core. It may say that a job is cheated on and give the
engine that computes it, give the engine that replays for audits, and change what the node tells and
hears of the coordinator. Subclasses override one of these; everything else stays honest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from assay_node.core.node import Node
from assay_node.core.parameters import Served
from assay_protocol.messages import Ticket
from assay_protocol.signing import Identity
from assay_simnet.engine import Engine
from assay_simnet.workload import Dice


class Party(Protocol):
    """The node it is plugged into, as behaviours know it."""

    identity: Identity
    core: Node
    cheated: dict[bytes, int]  # tickets of the jobs it cheated on, with their places

    @property
    def world(self) -> Dice: ...

    def say(self, message: object) -> None:
        """A notice to the coordinator, past the core."""
        ...


@dataclass
class Behaviour:
    """Honest. `name`, `does` and `saves` (of what a job or audit costs) say what subclasses do.

    fraction: the share of its jobs it cheats on. start: the first of them, counted from 0.
    """

    name: ClassVar[str] = "honest"
    does: ClassVar[str] = "serves and audits as it should"
    saves: ClassVar[float] = 0.0
    fraction: float = 1.0
    start: int = 0

    def __post_init__(self) -> None:
        self._party: Party | None = None

    @property
    def party(self) -> Party:
        """The node it is plugged into."""
        assert self._party is not None
        return self._party

    @party.setter
    def party(self, party: Party) -> None:
        self._party = party

    def cheats(self, number: int, ticket: Ticket) -> bool:
        """Whether its job number `number` is cheated on."""
        if number < self.start:
            return False
        return self.fraction >= 1.0 or self.party.world.below(1_000_000) < self.fraction * 1e6

    def executor(self, honest: Engine) -> Engine:
        """What computes the answers of the jobs it cheats on."""
        return honest

    def auditor(self, honest: Engine) -> Engine:
        """What replays other nodes' answers."""
        return honest

    def served(self, served: Served) -> Served:
        """What it says of itself when it joins."""
        return served

    def sends(self, message: object) -> list[object]:
        """What leaves for the coordinator where the core says `message`."""
        return [message]

    def hears(self, message: object) -> list[object]:
        """What the core gets to hear where the coordinator tells `message`."""
        return [message]

    def waits_us(self, message: object) -> int:
        """How long what leaves for the coordinator is kept back."""
        return 0

    def frames(self, frame: bytes) -> list[bytes]:
        """What leaves for a client where the core sends `frame`."""
        return [frame]
