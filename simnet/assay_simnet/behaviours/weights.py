"""Nodes that compute with another model than they are paid for, always or at times.

What a real quantization, cache or missing layer does to tokens and sketches is measured by
bench/verify; here it is drift of the same size (language.DRIFT).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from assay_protocol.messages import Ticket
from assay_simnet.behaviours.behaviour import Behaviour
from assay_simnet.behaviours.engines import ALWAYS, Louder, OtherWeights, ShownRight
from assay_simnet.engine import Engine


@dataclass
class QuantDown(Behaviour):
    """`weights`: what it computes with, one of language.DRIFT's."""

    name: ClassVar[str] = "quant_down"
    does: ClassVar[str] = "serves Q4_K_M weights under the name of Q8_0"
    saves: ClassVar[float] = 0.4
    weights: str = "Q4_K_M"

    def executor(self, honest: Engine) -> Engine:
        return OtherWeights(honest, self.weights)


@dataclass
class KvQ8(QuantDown):
    name: ClassVar[str] = "kv_q8"
    does: ClassVar[str] = "keeps its attention cache in 8 bits"
    saves: ClassVar[float] = 0.05
    weights: str = "kv_q8_0"


@dataclass
class KvQ4(QuantDown):
    name: ClassVar[str] = "kv_q4"
    does: ClassVar[str] = "keeps its attention cache in 4 bits"
    saves: ClassVar[float] = 0.1
    weights: str = "kv_q4_0"


@dataclass
class LayerSkip(Behaviour):
    """`layers`: 1 or 3."""

    name: ClassVar[str] = "layer_skip"
    does: ClassVar[str] = "leaves out one layer of thirty"
    saves: ClassVar[float] = 0.03
    layers: int = 1

    def executor(self, honest: Engine) -> Engine:
        return OtherWeights(honest, f"layer_{self.layers}")


@dataclass
class SmallModel(QuantDown):
    name: ClassVar[str] = "small_model"
    does: ClassVar[str] = "answers with a small model that has the same tokens"
    saves: ClassVar[float] = 0.8
    weights: str = "other_model"


@dataclass
class WrongFinetune(QuantDown):
    name: ClassVar[str] = "wrong_finetune"
    does: ClassVar[str] = "leaves out the adapter that belongs to the model"
    saves: ClassVar[float] = 0.05
    weights: str = "lora_off"


@dataclass
class PartialCheat(QuantDown):
    name: ClassVar[str] = "partial_cheat"
    does: ClassVar[str] = "serves Q4_K_M weights in one job of ten"
    fraction: float = 0.1


@dataclass
class TailCheat(Behaviour):
    """`after`: tokens of the answer that are right."""

    name: ClassVar[str] = "tail_cheat"
    does: ClassVar[str] = "serves Q4_K_M weights only after an answer's first 32 tokens"
    saves: ClassVar[float] = 0.2
    after: int = 32

    def executor(self, honest: Engine) -> Engine:
        return OtherWeights(honest, "Q4_K_M", ALWAYS[self.after :])


@dataclass
class MidSwitch(Behaviour):
    """`begin`, `end`: the span of the answer that is computed with other weights."""

    name: ClassVar[str] = "mid_switch"
    does: ClassVar[str] = "serves Q4_K_M weights in one span of 16 tokens"
    saves: ClassVar[float] = 0.1
    begin: int = 16
    end: int = 32

    def executor(self, honest: Engine) -> Engine:
        return OtherWeights(honest, "Q4_K_M", range(self.begin, self.end))


@dataclass
class Sleeper(QuantDown):
    name: ClassVar[str] = "sleeper"
    does: ClassVar[str] = "is honest until 400 audits passed, then serves Q4_K_M weights"
    start: int = 60


@dataclass
class HitAndRun(SmallModel):
    """`jobs_max` of its trial is how many it cheats on before it rests."""

    name: ClassVar[str] = "hit_and_run"
    does: ClassVar[str] = "rests until nothing is held back, serves a small model eight times"


@dataclass
class WashPadder(SmallModel):
    """`friend`: the client that is its operator's own."""

    name: ClassVar[str] = "wash_padder"
    does: ClassVar[str] = "serves a small model, and buys tiny jobs of itself to free its pay"
    friend: bytes = b""

    def cheats(self, number: int, ticket: Ticket) -> bool:
        return ticket.client != self.friend


@dataclass
class NoiseRider(Behaviour):
    """`times`: its noise, in honest ones."""

    name: ClassVar[str] = "noise_rider"
    does: ClassVar[str] = (
        "computes a third less exactly than others, just inside what one job shows"
    )
    saves: ClassVar[float] = 0.1
    times: float = 1.33

    def executor(self, honest: Engine) -> Engine:
        return Louder(honest, self.times)


@dataclass
class ClassLiar(QuantDown):
    name: ClassVar[str] = "class_liar"
    does: ClassVar[str] = "serves Q6_K weights and claims a class of its own for the noise"
    saves: ClassVar[float] = 0.2
    weights: str = "Q6_K"


@dataclass
class PromptMiner(QuantDown):
    """Its client asks what is nearly a tie at every token (trials.py gives it the sampler)."""

    name: ClassVar[str] = "prompt_miner"
    does: ClassVar[str] = "serves Q4_K_M weights to a friend whose prompts are full of near-ties"


@dataclass
class PrefillForger(Behaviour):
    name: ClassVar[str] = "prefill_forger"
    does: ClassVar[str] = "writes with Q4_0 weights and shows the right model's logits of that text"
    saves: ClassVar[float] = 0.3

    def executor(self, honest: Engine) -> Engine:
        return ShownRight(honest, "Q4_0")


@dataclass
class FingerprintForger(Behaviour):
    """`share`: how near its guesses come to the right logits."""

    name: ClassVar[str] = "fingerprint_forger"
    does: ClassVar[str] = (
        "writes with Q4_0 weights and guesses the right logits to half their distance"
    )
    saves: ClassVar[float] = 0.4
    share: float = 0.5

    def executor(self, honest: Engine) -> Engine:
        return ShownRight(honest, "Q4_0", self.share)


@dataclass
class BitFault(Behaviour):
    """`variant`: how far off the spoilt tokens are."""

    name: ClassVar[str] = "bit_fault"
    does: ClassVar[str] = "is honest, but a failing memory cell changes bits in one job of fifty"
    fraction: float = 0.02
    variant: str = "kv_q8_0"

    def executor(self, honest: Engine) -> Engine:
        return OtherWeights(honest, self.variant, range(8, 24))


@dataclass
class OneFault(BitFault):
    """`at`: the number of the job that is spoilt, grossly; it happens once."""

    name: ClassVar[str] = "one_fault"
    does: ClassVar[str] = "is honest, but one job in its life comes out as garbage"
    variant: str = "Q2_K"
    at: int = 5

    def cheats(self, number: int, ticket: Ticket) -> bool:
        return number == self.at
