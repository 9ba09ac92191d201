"""What a machine costs its owner: watts and its price, by the profiles of population.py.

Watts at work are the makers' board power, for Apple's the whole machine's; prices are the makers'
list prices at launch in US dollars, or for parts sold without one what dealers asked in 2024. Both
are round figures from public data sheets; nothing here was measured by us. A PC around a board
draws HOST_WATTS more, an idle board about IDLE_SHARE of its power. One credit is taken to buy one
US dollar's worth. Who knows better writes `[machine.NAME]` into the scenario.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HOST_WATTS: Final = 60.0
IDLE_SHARE: Final = 0.08


@dataclass(frozen=True, slots=True)
class Machine:
    """Watts of the whole machine; its price in credits."""

    watts_busy: float
    watts_idle: float
    price: float


def _board(watts: float, price: float) -> Machine:
    return Machine(watts + HOST_WATTS, watts * IDLE_SHARE + HOST_WATTS, price)


MACHINES: Final[dict[str, Machine]] = {
    "rtx3070-8g": _board(220, 499),
    "rtx3080-10g": _board(320, 699),
    "rtx3080ti-12g": _board(350, 1_199),
    "rtx3090-24g": _board(350, 1_499),
    "rtx4070ti-12g": _board(285, 799),
    "rtx4080-16g": _board(320, 1_199),
    "rtx4090-24g": _board(450, 1_599),
    "apple-m1-8g": Machine(39, 7, 699),
    "apple-m1-max-64g": Machine(115, 11, 2_599),
    "apple-m2-ultra-192g": Machine(295, 13, 5_599),
    "apple-m3-max-64g": Machine(96, 8, 3_899),
    "rtx4000ada-20g": _board(130, 1_250),
    "rtxa6000-48g": _board(300, 4_650),
    "rtx6000ada-48g": _board(300, 6_800),
    "a40-48g": _board(300, 4_500),
    "l40s-48g": _board(350, 7_500),
    "a100-sxm-80g": _board(400, 15_000),
    "h100-pcie-80g": _board(350, 30_000),
}
