"""Who serves: hardware, where it stands, and how fast it computes the scenario's model.

Rates are computed, not measured. A batch decodes at the speed its weights are read at, and prefill
at the speed of the multiplications, each at a fixed share of what the maker's data sheet says:

    decode, tokens/s of each answer   DECODE_SHARE * bandwidth / bytes of the model
    prefill, tokens/s of each answer  PREFILL_SHARE * flops / (2 * parameters) / slots

(the roofline of Williams, Waterman and Patterson 2009). Whoever has measurements writes them into
the scenario: `[profile.NAME]` replaces any of these numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DECODE_SHARE: Final = 0.6
PREFILL_SHARE: Final = 0.3
MEMORY_SHARE: Final = 0.9  # of the memory that a model may fill; the rest is for caches


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of machine. Gigabytes, GB/s, dense half-precision TFLOP/s; rates: tokens/s.

    `slots`: answers at once. A rate of 0 is computed from the sheet.
    """

    memory_gb: float
    bandwidth_gbs: float
    tflops: float
    slots: int
    prefill_tps: float = 0.0
    decode_tps: float = 0.0


# The makers' data sheets; tensor cores with 32-bit accumulation where the sheet tells them apart.
PROFILES: Final[dict[str, Profile]] = {
    "rtx3060-12g": Profile(12, 360, 25, 4),
    "rtx3090-24g": Profile(24, 936, 71, 8),
    "rtx4060ti-16g": Profile(16, 288, 44, 4),
    "rtx4070-12g": Profile(12, 504, 58, 4),
    "rtx4090-24g": Profile(24, 1_008, 165, 8),
    "rtx5090-32g": Profile(32, 1_792, 210, 8),
    "rx7900xtx-24g": Profile(24, 960, 123, 8),
    "l4-24g": Profile(24, 300, 121, 8),
    "l40s-48g": Profile(48, 864, 362, 16),
    "a100-80g": Profile(80, 2_039, 312, 32),
    "h100-80g": Profile(80, 3_350, 989, 32),
    "apple-m2": Profile(16, 100, 3.6, 2),
    "apple-m2-max": Profile(64, 400, 13.6, 4),
    "apple-m3-max": Profile(96, 400, 14.2, 4),
    "cpu-ddr5": Profile(64, 80, 1.5, 1),
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
HOURS_AHEAD: Final = {"na": -6, "eu": 1, "asia": 8, "sa": -3, "oceania": 10}  # of UTC


@dataclass(frozen=True, slots=True)
class Speed:
    """What a machine does with one model. Microseconds a token, of one answer in a full batch."""

    slots: int
    prefill_us: float
    decode_us: float


def speed(profile: Profile, parameters: float, size_bytes: int) -> Speed:
    """`parameters`: how many numbers the model has, active ones where not all are."""
    prefill = profile.prefill_tps or (
        PREFILL_SHARE * profile.tflops * 1e12 / (2 * parameters) / profile.slots
    )
    decode = profile.decode_tps or DECODE_SHARE * profile.bandwidth_gbs * 1e9 / size_bytes
    return Speed(profile.slots, 1e6 / prefill, 1e6 / decode)


def fits(profile: Profile, size_bytes: int) -> bool:
    """Whether the model can be loaded at all."""
    return size_bytes <= MEMORY_SHARE * profile.memory_gb * 1e9
