"""Who takes part: engine classes, honest providers, and the cheats of docs/verification.md."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

import prompts
from assay_node.engine.profiles import FAST_SPLIT, FLASH, PLAIN, Profile
from assay_protocol.messages import Sampler

SAMPLER: Final = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
DECLARED: Final = "Q8_0"

# Ways to compute the declared weights. "float" holds the same Q8_0 weights as 32-bit floats, so its
# activations are not rounded to 8 bits: what backends like Metal or cuBLAS do.
CLASSES: Final[dict[str, Profile]] = {
    "flash": FLASH,
    "plain": PLAIN,
    "fast": replace(FAST_SPLIT, library="", road="fast-wheel"),
    "unfused": replace(FAST_SPLIT, library="", road="fast-unfused", flash=False),
    "float": replace(FLASH, road="float"),
}
FILES: Final = {name: "Q8_0-as-F32" if name == "float" else DECLARED for name in CLASSES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Who answers, and how it differs from what it declares."""

    name: str
    runs: str = "flash"  # a class
    file: str = DECLARED
    kv: str = "f16"
    sampler: Sampler = SAMPLER
    seed: str = ""  # added to the seed of its noise
    system: str | None = prompts.SYSTEM

    def prompt(self, job: int) -> str:
        return prompts.chat(job, self.system)


HONEST: Final = Provider(name="flash")
PROVIDERS: Final = (HONEST, *(Provider(name=n, runs=n, file=FILES[n]) for n in ("plain", "float")))
CHEATS: Final = (
    *(Provider(name=k, file=k) for k in ("Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")),
    Provider(name="1 layer removed", file="Q8_0-less-1"),
    Provider(name="3 layers removed", file="Q8_0-less-3"),
    Provider(name="KV cache q8_0", kv="q8_0"),
    Provider(name="KV cache q4_0", kv="q4_0"),
    Provider(name="temperature 0.9", sampler=replace(SAMPLER, temperature=0.9)),
    Provider(name="wrong seed", seed="another"),
    Provider(name="no system prompt", system=None),
    Provider(name="persona edit", system=prompts.PERSONA),
)
FORGER: Final = "prefill forger"  # Q4_0 writes; the declared model computes what is committed
FORGES: Final = "Q4_0"


def provider(name: str) -> Provider:
    return next(one for one in (*PROVIDERS, *CHEATS) if one.name == name)


def profile(name: str) -> Profile:
    return CLASSES[name]


def with_kv(given: Profile, kv: str) -> Profile:
    return replace(given, kv=kv)


def seed(job: int, other: str = "") -> bytes:
    return hashlib.blake2b(f"{job} {other}".encode(), digest_size=32).digest()
