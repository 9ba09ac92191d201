"""What has to be recorded for so many jobs, the most telling first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from conditions import CHEATS, CLASSES, HONEST, PROVIDERS, Provider
from recordings import Wanted

EXACT_AUDITOR: Final = "flash"  # shares the class that cheats declare: compares bits
FLOAT_AUDITOR: Final = "plain"  # another class: compares within noise
PAIRS: Final = tuple(
    (provider, auditor)
    for provider in PROVIDERS
    for auditor in CLASSES
    if not (provider.runs == "float" and auditor == "float")
)
FLOAT_PAIRS: Final = tuple((p, a) for p, a in PAIRS if p.runs != a)


def everything(honest_blocks: int, cheat_blocks: int) -> Iterator[Wanted]:
    """Block by block, so that a run cut short has figures for all."""
    for block in range(max(honest_blocks, cheat_blocks)):
        if block < honest_blocks:
            yield from _honest(block)
        if block < cheat_blocks:
            yield from _cheats(block)


def _honest(block: int) -> Iterator[Wanted]:
    yield from (Wanted(one, block) for one in PROVIDERS)
    for auditor in CLASSES:
        yield from (Wanted(one, block, other) for one, other in PAIRS if other == auditor)


def _cheats(block: int) -> Iterator[Wanted]:
    honest_file = sorted(CHEATS, key=lambda one: _engine(one) != _engine(HONEST))
    yield from (Wanted(one, block) for one in honest_file)
    for auditor in (EXACT_AUDITOR, FLOAT_AUDITOR):
        yield from (Wanted(one, block, auditor) for one in CHEATS)


def _engine(one: Provider) -> tuple[str, str, str]:
    return one.runs, one.file, one.kv
