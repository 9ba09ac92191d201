"""Who serves: hardware, where it stands, and how fast it computes the scenario's model.

Rates are measurements of others: llama.cpp with LLaMA 3 8B, Q4_K_M, one answer of 1,024 tokens
(github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference at aa72e0ec, May 2024). For another model
they are scaled: decode reads all weights for a token, prefill multiplies by all of them, so

    decode ~ 1 / bytes of the file      prefill ~ 1 / parameters

What is assumed, not measured: how many answers a machine takes at once (`slots`), that each of them
decodes as fast as one alone, and that prompts read at one time share the machine. Who has
measurements writes them into the scenario: `[profile.NAME]` replaces any number here, and
`simnet calibrate` measures all of them for the machine it runs on, `cpu-thread`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MEASURED_BYTES: Final = 4_920_000_000  # of the file that was measured
MEASURED_PARAMETERS: Final = 8.03e9
PIECE_TOKENS: Final = 32  # what a node signs at once
SHARED_PIECE_TOKENS: Final = 4
MEMORY_SHARE: Final = 0.9  # of the memory that a model may fill; the rest is for caches


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of machine. Rates are tokens/s of one answer with the model that was measured; those
    of its line are Mbit/s, 0 where the scenario's network says."""

    memory_gb: float
    slots: int
    prefill_tps: float
    decode_tps: float
    up_mbps: float = 0.0
    down_mbps: float = 0.0
    # Of each answer where two, three, ... are decoded at once: shares of `decode_tps`. Beyond the
    # last, together they get no faster. None: each decodes as fast as one alone.
    decode_shares: tuple[float, ...] = ()
    request_ms: float = 0.0  # to a first token, beyond the prompt's; 0: as any other token's
    redraw_ms: float = 0.0  # of an answer's token in an audit, beyond reading it
    step_tokens: int = 0  # of a prompt, computed at once; 0: as fine as you like (pace.py)
    parameters: float = MEASURED_PARAMETERS  # of the model that was measured
    size_gb: float = MEASURED_BYTES / 1e9


PROFILES: Final[dict[str, Profile]] = {
    "rtx3070-8g": Profile(8, 2, 2_283.62, 70.94),
    "rtx3080-10g": Profile(10, 4, 3_557.02, 106.40),
    "rtx3080ti-12g": Profile(12, 4, 3_556.67, 106.71),
    "rtx3090-24g": Profile(24, 8, 3_865.39, 111.74),
    "rtx4070ti-12g": Profile(12, 4, 3_653.07, 82.21),
    "rtx4080-16g": Profile(16, 6, 5_064.99, 106.22),
    "rtx4090-24g": Profile(24, 8, 6_898.71, 127.74),
    "apple-m1-8g": Profile(8, 1, 87.26, 9.72),
    "apple-m1-max-64g": Profile(64, 4, 355.45, 34.49),
    "apple-m2-ultra-192g": Profile(192, 8, 1_023.89, 76.28),
    "apple-m3-max-64g": Profile(64, 4, 678.04, 50.74),
    "rtx4000ada-20g": Profile(20, 6, 2_310.53, 58.59),
    "rtxa6000-48g": Profile(48, 16, 3_621.81, 102.22),
    "rtx6000ada-48g": Profile(48, 16, 5_560.94, 130.99),
    "a40-48g": Profile(48, 16, 3_240.95, 88.95),
    "l40s-48g": Profile(48, 16, 5_908.52, 113.60),
    "a100-sxm-80g": Profile(80, 32, 5_863.92, 133.38),
    "h100-pcie-80g": Profile(80, 32, 7_760.16, 144.49),
    # Measured by us, with SmolLM2-135M in Q4_1: one thread of a virtual machine's AMD EPYC.
    "cpu-thread": Profile(
        *(8, 4, 241.0, 140.7),
        decode_shares=(0.389, 0.280, 0.249),
        request_ms=0.001,
        redraw_ms=5.15,
        step_tokens=48,
        parameters=134.5e6,
        size_gb=0.098_362,
    ),
}

# One way, milliseconds, between the middles of regions: rounded by us, of the size that public
# clouds show between their regions. Within a region 10 ms: homes, not data centres.
WORLD_5: Final[dict[str, dict[str, int]]] = {
    "na": {"na": 10, "eu": 45, "asia": 80, "sa": 65, "oceania": 85},
    "eu": {"na": 45, "eu": 10, "asia": 90, "sa": 95, "oceania": 130},
    "asia": {"na": 80, "eu": 90, "asia": 10, "sa": 150, "oceania": 60},
    "sa": {"na": 65, "eu": 95, "asia": 150, "sa": 10, "oceania": 150},
    "oceania": {"na": 85, "eu": 130, "asia": 60, "sa": 150, "oceania": 10},
}
REGIONS: Final = tuple(WORLD_5)
NATS: Final = ("open", "cone", "symmetric")  # what stands before a node
HOURS_AHEAD: Final = {"na": -6, "eu": 1, "asia": 8, "sa": -3, "oceania": 10}  # of UTC


@dataclass(frozen=True, slots=True)
class Speed:
    """What a machine does with one model: answers at once, and microseconds a token of one."""

    slots: int
    prefill_us: float
    decode_us: float
    decode_shares: tuple[float, ...] = ()
    request_us: float = 0.0
    redraw_us: float = 0.0
    step_tokens: int = 0

    def read_us(self, tokens: int, together: int) -> float:
        """To read a prompt. `together`: prompts that share the machine, this one among them."""
        return self.prefill_us * tokens * together

    @property
    def piece_tokens(self) -> int:
        """Of an answer's further pieces. Where answers slow one another down, how many there are
        is looked at more often."""
        return SHARED_PIECE_TOKENS if self.decode_shares else PIECE_TOKENS

    def first_us(self, together: int) -> float:
        """To the first token, once the prompt is read."""
        return self.request_us or self.draw_us(1, together)

    def draw_us(self, tokens: int, together: int) -> float:
        """For so many tokens of an answer, where `together` are decoded, this one among them."""
        shares = self.decode_shares
        if together <= 1 or not shares:
            return self.decode_us * tokens
        last = len(shares) + 1
        share = shares[min(together, last) - 2] * min(1.0, last / together)
        return self.decode_us * tokens / share


def speed(profile: Profile, parameters: float, size_bytes: int) -> Speed:
    """`parameters`: how many numbers the model has, active ones where not all are."""
    prefill = profile.prefill_tps * profile.parameters / parameters
    decode = profile.decode_tps * profile.size_gb * 1e9 / size_bytes
    return Speed(
        slots=profile.slots,
        prefill_us=1e6 / prefill,
        decode_us=1e6 / decode,
        decode_shares=profile.decode_shares,
        request_us=profile.request_ms * 1e3,
        redraw_us=profile.redraw_ms * 1e3,
        step_tokens=profile.step_tokens,
    )


def fits(profile: Profile, size_bytes: int) -> bool:
    """Whether the model can be loaded at all."""
    return size_bytes <= MEMORY_SHARE * profile.memory_gb * 1e9
