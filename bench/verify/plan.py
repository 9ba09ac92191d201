"""What has to be recorded for so many jobs, the most telling first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from conditions import CHEATS, CLASSES, DECLARED, FORGES, HONEST, PROVIDERS, Provider
from recordings import Wanted

EXACT_AUDITOR: Final = "flash"  # shares the class that cheats declare: compares bits
FLOAT_AUDITOR: Final = "plain"  # another class: compares within noise
EXACT_PAIRS: Final = tuple((one, one.runs) for one in PROVIDERS if one.runs != "float")
FLOAT_PAIRS: Final = tuple(
    (one, auditor) for one in PROVIDERS for auditor in CLASSES if one.runs != auditor
)
_MILD: Final = (
    "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "1 layer removed", "KV cache q8_0", "KV cache q4_0",
    "temperature 0.9",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """Blocks of jobs; `mild`: the cheats that are hard to see, and no class but two."""

    honest: int
    cheats: int
    mild: bool = False

    def wanted(self) -> Iterator[Wanted]:
        """Block by block, so that a run cut short has figures for all."""
        for block in range(max(self.honest, self.cheats)):
            if block < self.honest:
                yield from self._honest(block)
            if block < self.cheats:
                yield from self._cheats(block)

    def _honest(self, block: int) -> Iterator[Wanted]:
        pairs = [
            (one, auditor)
            for one, auditor in (*EXACT_PAIRS, *FLOAT_PAIRS)
            if not self.mild or (one is HONEST and auditor in (EXACT_AUDITOR, FLOAT_AUDITOR))
        ]
        yield from (Wanted(one, block) for one in dict.fromkeys(one for one, _ in pairs))
        for auditor in CLASSES:
            yield from (Wanted(one, block, other) for one, other in pairs if other == auditor)

    def _cheats(self, block: int) -> Iterator[Wanted]:
        cheats = [one for one in CHEATS if not self.mild or one.name in _MILD]
        of_one_engine_first = sorted(cheats, key=lambda one: _engine(one) != _engine(HONEST))
        yield from (Wanted(one, block) for one in of_one_engine_first)
        # Other weights never give the same bits: a few jobs show it. The forger needs its own.
        compared = [
            one for one in cheats if block == 0 or one.file == DECLARED or one.name == FORGES
        ]
        yield from (Wanted(one, block, EXACT_AUDITOR) for one in compared)
        yield from (Wanted(one, block, FLOAT_AUDITOR) for one in cheats)


def _engine(one: Provider) -> tuple[str, str, str]:
    return one.runs, one.file, one.kv
