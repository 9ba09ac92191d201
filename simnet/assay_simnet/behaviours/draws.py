"""Nodes that have the right logits and draw otherwise than the seed and the sampler say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from assay_protocol.messages import Sampler
from assay_protocol.samplers import SamplerLike
from assay_simnet.behaviours.behaviour import Behaviour
from assay_simnet.behaviours.engines import LossyDrafts, OtherSampler, OtherSeed
from assay_simnet.engine import Engine


@dataclass
class LossySpec(Behaviour):
    """`margin`: logits by which a draft may lose and is taken all the same."""

    name: ClassVar[str] = "lossy_spec"
    does: ClassVar[str] = "takes a small model's drafts where they lose by less than half a logit"
    saves: ClassVar[float] = 0.3
    margin: float = 0.5

    def executor(self, honest: Engine) -> Engine:
        return LossyDrafts(honest, "Q2_K", self.margin)


@dataclass
class SeedSwap(Behaviour):
    name: ClassVar[str] = "seed_swap"
    does: ClassVar[str] = "draws by a seed of its own, or the best of several"

    def executor(self, honest: Engine) -> Engine:
        return OtherSeed(honest.language, honest.key, honest.noise)


@dataclass
class TempShift(Behaviour):
    """`temperature`: what it draws at, for the 0.8 it was asked for."""

    name: ClassVar[str] = "temp_shift"
    does: ClassVar[str] = "draws at temperature 0.9 where 0.8 was asked for"
    temperature: float = 0.9

    def executor(self, honest: Engine) -> Engine:
        return OtherSampler(honest, lambda asked: _like(asked, temperature=self.temperature))


@dataclass
class TopkGreedy(Behaviour):
    name: ClassVar[str] = "topk_greedy"
    does: ClassVar[str] = "draws the likeliest token whatever the sampler says"
    saves: ClassVar[float] = 0.02

    def executor(self, honest: Engine) -> Engine:
        return OtherSampler(honest, lambda asked: _like(asked, temperature=0.0))


def _like(asked: SamplerLike, temperature: float) -> Sampler:
    assert isinstance(asked, Sampler)
    return replace(asked, temperature=temperature)
