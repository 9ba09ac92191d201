"""Evidence over a node's life: a detector for each way of being wrong, and their average.

Each audit gives a likelihood ratio for each of ALTERNATIVES; under honesty its mean is at most 1,
given the past. A detector is M = e * max(1, M): it adds up slow cheats, and good history is no
credit to draw on. Alternatives are mixed over the life, not in each audit, because a cheat that is
near the noise shows only where the same weak sign repeats. The mean of detectors is one: under
honesty it first exceeds 10^6 after 10^6 audits or more on average (e-detectors; Lorden, Ville).

Two are kept. `detectors` take any auditor's word, with a bound on one word; they raise the alarm,
which convicts nobody. `proof` takes only what two auditors found who agree with each other, and of
one job at most JOB_CAP, so that two jobs at least are behind a conviction (S2).

Evidence is in integer micro-nats, rounded down.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final

from assay_coordinator.core.sketch_evidence import SHIFTS
from assay_coordinator.core.token_evidence import STRENGTHS, average

MICRO: Final = 1_000_000
ALTERNATIVES: Final = 2 * len(STRENGTHS) + 2 * len(SHIFTS)
ALARM: Final = math.floor(MICRO * math.log(1e6))
CONVICTION: Final = ALARM  # of what a quorum proved
SUSPICION: Final = 2 * MICRO  # of one job: it is shown to further auditors
FAILURE: Final = math.floor(MICRO * math.log(1e4))  # of one job: it is not the model's answer
WORD_CAP: Final = 3 * MICRO  # of one auditor's word, for each alternative
JOB_CAP: Final = CONVICTION // 2  # of one job, however clear: a bit may have flipped
_LIMIT: Final = 10**12

Levels = tuple[int, ...]  # one for each alternative
FRESH: Final[Levels] = (0,) * ALTERNATIVES
_PACKED: Final = struct.Struct(f"<{ALTERNATIVES}q")


def whole(nats: Sequence[float]) -> Levels:
    """Logarithms as integer micro-nats, rounded down and bounded."""
    assert len(nats) == ALTERNATIVES
    return tuple(
        math.floor(max(-_LIMIT, min(_LIMIT, MICRO * x))) if not math.isnan(x) else _LIMIT
        for x in nats
    )


def combined(levels: Levels) -> int:
    """ln of the average over the alternatives, rounded down: what one job says, or a life."""
    return math.floor(MICRO * average([level / MICRO for level in levels]))


def accumulate(levels: Levels, ratios: Levels) -> Levels:
    """ln max(1, e * max(1, M)) of each detector."""
    return tuple(max(0, level + ratio) for level, ratio in zip(levels, ratios, strict=True))


def weakest(words: Sequence[Levels]) -> Levels:
    """What all of them say at least: a liar cannot raise it."""
    return tuple(map(min, zip(*words, strict=True)))


def capped(ratios: Levels, most: int) -> Levels:
    return tuple(min(most, ratio) for ratio in ratios)


def pack(levels: Levels) -> bytes:
    """As it is stored; nothing of a fresh node."""
    return b"" if levels == FRESH else _PACKED.pack(*levels)


def unpack(data: bytes) -> Levels:
    return _PACKED.unpack(data) if data else FRESH
