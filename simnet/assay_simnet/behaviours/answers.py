"""Nodes that send other tokens than the ones they drew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from assay_node.engine.interface import Generate
from assay_protocol.adjustments import Logits
from assay_protocol.messages import Ticket
from assay_simnet.behaviours.behaviour import Behaviour
from assay_simnet.behaviours.engines import Edited, Endless, OtherWeights, Recited
from assay_simnet.engine import Engine, Text
from assay_simnet.language import END
from assay_simnet.workload import SAMPLER

ADVERT: Final[Text] = (17, 4, 42, 9)
_RECITED_MAX: Final = 64  # tokens: no simulated answer is longer


@dataclass
class TokenEdit(Behaviour):
    """`at`: where the advert stands in the answer."""

    name: ClassVar[str] = "token_edit"
    does: ClassVar[str] = "puts a four-token advert into each answer"
    saves: ClassVar[float] = 0.05
    at: int = 12

    def executor(self, honest: Engine) -> Engine:
        return Edited(honest, self._edit)

    def _edit(self, count: int, drawn: int) -> int:
        place = count - self.at
        return ADVERT[place] if 0 <= place < len(ADVERT) else drawn


@dataclass
class EarlyStop(Behaviour):
    """`after`: how many tokens it sends."""

    name: ClassVar[str] = "early_stop"
    does: ClassVar[str] = "ends each answer after 24 tokens as if the model had"
    saves: ClassVar[float] = 0.0
    after: int = 24

    def executor(self, honest: Engine) -> Engine:
        return Edited(honest, lambda count, drawn: END if count == self.after else drawn)


@dataclass
class Padder(Behaviour):
    """The end token never leaves it: the client would stop there."""

    name: ClassVar[str] = "padder"
    does: ClassVar[str] = "draws on past the end of the answer to bill more"

    def executor(self, honest: Engine) -> Engine:
        return _Padded(honest.language, honest.key, honest.noise)


@dataclass
class Replayer(Behaviour):
    """Its first answer is honest; every later job gets that one again."""

    name: ClassVar[str] = "replayer"
    does: ClassVar[str] = "sends the answer to an older job again, with a new receipt"
    saves: ClassVar[float] = 1.0

    def executor(self, honest: Engine) -> Engine:
        return Recited(honest, _answer_of(honest, bytes(32)), computes=False)


@dataclass
class Copycat(Behaviour):
    """It has the tokens another node drew for the same prompt under that node's own ticket."""

    name: ClassVar[str] = "copycat"
    does: ClassVar[str] = "copies another node's answer to the same prompt"
    saves: ClassVar[float] = 0.6

    def executor(self, honest: Engine) -> Engine:
        return _Copied(honest.language, honest.key, honest.noise)


@dataclass
class ProxyNode(Behaviour):
    """`forwards`: it passes the whole job on, seed and all, which makes it honest work."""

    name: ClassVar[str] = "proxy_node"
    does: ClassVar[str] = "resells the answers of an API that knows nothing of seeds"
    saves: ClassVar[float] = 0.5
    forwards: bool = False

    def executor(self, honest: Engine) -> Engine:
        return honest if self.forwards else _Copied(honest.language, b"the API", honest.noise)


@dataclass
class WorksNot(Behaviour):
    """What a stranger's first job looks like from one who has no model at all."""

    name: ClassVar[str] = "works_not"
    does: ClassVar[str] = "sends made-up tokens and never loads a model"
    saves: ClassVar[float] = 1.0

    def executor(self, honest: Engine) -> Engine:
        return Recited(honest, tuple(range(1, _RECITED_MAX)), computes=False)


@dataclass
class SoleProvider(WorksNot):
    """Its trial has no auditors."""

    name: ClassVar[str] = "sole_provider"
    does: ClassVar[str] = "sends made-up tokens for a model that nobody else serves"


@dataclass
class ProbeSpotter(Behaviour):
    """Takes jobs with long prompts for probes, which they are no more often than others."""

    name: ClassVar[str] = "probe_spotter"
    does: ClassVar[str] = "serves Q4_K_M weights where it believes that nobody looks"
    saves: ClassVar[float] = 0.4
    longer_than: int = 40

    def cheats(self, number: int, ticket: Ticket) -> bool:
        return ticket.n_in <= self.longer_than and super().cheats(number, ticket)

    def executor(self, honest: Engine) -> Engine:
        return OtherWeights(honest, "Q4_K_M")


class _Padded(Endless):
    """Where the model ends, its next likeliest token is sent."""

    def token(self, request: Generate, text: Text, count: int, drawn: int, row: Logits) -> int:
        return drawn if drawn != END else 1 + count % 7


class _Copied(Engine):
    """Draws right from the right logits, but under another job's seed, and does not see it."""

    def seed(self, request: Generate) -> bytes:
        return request.seed[::-1]


def _answer_of(honest: Engine, seed: bytes) -> Text:
    asked = Generate(
        prompt=tuple(range(1, 9)), start=0, max_tokens=_RECITED_MAX, sampler=SAMPLER, seed=seed
    )
    return tuple(token for chunk in honest.answer(asked) for token in chunk.tokens)
