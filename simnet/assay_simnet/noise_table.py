"""The honest noise of the simulated model, fitted as any operator fits it.

The figures are what `python -m assay_simnet.noise_table` prints: honest engines of the class
"scripted/F" replay one another's answers, and the coordinator's own fitting counts.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Final

from assay_coordinator.core.calibration import BUILT_IN, Table
from assay_coordinator.core.fitting import Trace, noise_of
from assay_node.engine.interface import Generate, Replay
from assay_protocol.messages import Calibration, PairNoise
from assay_protocol.sketches import gap_code, leaf_distances
from assay_simnet.engine import Engine
from assay_simnet.language import VOCABULARY, Language
from assay_simnet.setting import MODEL
from assay_simnet.workload import SAMPLER, SYSTEM

JOBS: Final = 400
TOKENS: Final = 48
_LANGUAGE: Final = Language(MODEL)
_FLIPS: Final = (446_087, 316_684, 179_718, 58_939, 9_233, *[499] * 11)

FITTED: Final = PairNoise(
    model=MODEL,
    executor="",
    auditor="",
    flips=_FLIPS,
    drift=18_757,
    leaf_sd=1_704,
    job_sd=1_585,
    jobs=JOBS,
)
NOISE_TABLE: Final = Table(
    Calibration(version=1, fitted_at=0, pairs=(FITTED, *BUILT_IN.calibration.pairs))
)


def fitted(jobs: int = JOBS) -> PairNoise:
    """FITTED, measured again from so many jobs."""
    return noise_of((MODEL, "", ""), [_trace(number) for number in range(jobs)])


def _trace(number: int) -> Trace:
    """One honest node's answer, replayed by another."""
    seed = hashlib.sha256(number.to_bytes(4, "big")).digest()
    writer, reader = (Engine(_LANGUAGE, name + seed[:4]) for name in (b"one", b"two"))
    prompt = SYSTEM + tuple(1 + byte % (VOCABULARY - 1) for byte in seed[:12])
    chunks = list(writer.answer(Generate(prompt, 0, TOKENS, SAMPLER, seed)))
    output = tuple(token for chunk in chunks for token in chunk.tokens)
    replayed = reader.replay(Replay(prompt, output, 0, SAMPLER, seed))
    drawn = zip(output, replayed.drawn, strict=True)
    return Trace(
        model=MODEL,
        executor="scripted/F",
        auditor="scripted/F",
        gaps=bytes(map(gap_code, replayed.gaps)),
        mismatches=tuple(i for i, (given, own) in enumerate(drawn) if given != own),
        distances=leaf_distances(b"".join(c.sketches for c in chunks), replayed.sketches),
    )


if __name__ == "__main__":
    sys.stdout.write(f"{fitted()}\n")
