"""Nodes that serve honestly and audit otherwise."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from assay_node.engine.interface import Replay, Replayed
from assay_protocol.adjustments import Logits
from assay_protocol.messages import AuditTask, Ticket
from assay_simnet.behaviours.behaviour import Behaviour
from assay_simnet.behaviours.engines import OtherWeights, made_up
from assay_simnet.engine import Engine, Text


@dataclass
class LazyAuditor(Behaviour):
    name: ClassVar[str] = "lazy_auditor"
    does: ClassVar[str] = "computes nothing and calls every answer right"
    saves: ClassVar[float] = 1.0

    def auditor(self, honest: Engine) -> Engine:
        return _MadeUp(honest.language, honest.key, honest.noise)


@dataclass
class CheapAuditor(Behaviour):
    name: ClassVar[str] = "cheap_auditor"
    does: ClassVar[str] = "replays with Q4_0 weights and calls every answer right"
    saves: ClassVar[float] = 0.4

    def auditor(self, honest: Engine) -> Engine:
        return _Agreeing(honest, "Q4_0")


@dataclass
class GriefingAuditor(Behaviour):
    name: ClassVar[str] = "griefing_auditor"
    does: ClassVar[str] = "calls every second token of every answer wrong"

    def auditor(self, honest: Engine) -> Engine:
        return _Griefing(honest.language, honest.key, honest.noise)


@dataclass
class Cartel(Behaviour):
    """Members tell one another which tickets are theirs, and call those answers right.

    `members` is one set for all of them. As executors they serve Q4_K_M weights, and a member that
    audits them computes with the same weights, so that its leaves fit theirs.
    """

    name: ClassVar[str] = "cartel"
    does: ClassVar[str] = "serves Q4_K_M weights and has friends among the auditors"
    saves: ClassVar[float] = 0.4
    tickets: set[bytes] = field(default_factory=set)
    serves: bool = True

    def cheats(self, number: int, ticket: Ticket) -> bool:
        if not self.serves:
            return False
        self.tickets.add(ticket.ticket)
        return super().cheats(number, ticket)

    def executor(self, honest: Engine) -> Engine:
        return OtherWeights(honest, "Q4_K_M")

    def auditor(self, honest: Engine) -> Engine:
        return _Agreeing(honest, "Q4_K_M") if self._ours else honest

    def hears(self, message: object) -> list[object]:
        if isinstance(message, AuditTask):
            self._ours = message.ticket in self.tickets
        return [message]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ours = False


class _MadeUp(Engine):
    """Sees no model: the draws are the executor's, the logits are made up."""

    def row(self, text: Text, count: int, loudness: float) -> Logits:
        return made_up(hashlib.sha256(self.key + repr(text[-3:]).encode()).digest())

    def replay(self, request: Replay) -> Replayed:
        return _agreed(super().replay(request), request)


class _Agreeing(OtherWeights):
    """Computes with a variant and says that every token is the one drawn."""

    def replay(self, request: Replay) -> Replayed:
        return _agreed(super().replay(request), request)


class _Griefing(Engine):
    """Computes rightly and says that every second token is not the one drawn, by far."""

    def replay(self, request: Replay) -> Replayed:
        right = super().replay(request)
        drawn = list(right.drawn)
        margins = list(right.margins)
        for place in range(0, len(drawn), 2):
            drawn[place] = request.output[place] + 1
            margins[place] = 1.5
        return Replayed(
            drawn=tuple(drawn),
            logits=right.logits,
            margins=tuple(margins),
            sketches=right.sketches,
            gaps=right.gaps,
        )


def _agreed(found: Replayed, request: Replay) -> Replayed:
    """What it found, with every draw the executor's."""
    count = len(request.output)
    likely = np.full(count, 0.5)  # gaps of tokens that were sure
    return Replayed(
        drawn=request.output,
        logits=found.logits,
        margins=(0.0,) * count,
        sketches=found.sketches,
        gaps=tuple(float(gap) for gap in likely),
    )
