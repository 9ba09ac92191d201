"""The honest noise of the simulated model, as its operator has measured it.

The figures are what `python -m assay_simnet.noise_table` prints: honest engines of the class
"scripted/F" replay one another's answers, and flips and distances are counted.
"""

from __future__ import annotations

import hashlib
import sys
from statistics import fmean, pstdev
from typing import Final

from assay_coordinator.core.calibration import MILLION, Table, gap_bin
from assay_node.engine.interface import Generate, Replay
from assay_protocol.limits import GAP_BINS
from assay_protocol.messages import Calibration, PairNoise
from assay_protocol.sketches import gap_code, leaf_distances
from assay_simnet.engine import Engine
from assay_simnet.language import VOCABULARY, Language
from assay_simnet.setting import MODEL
from assay_simnet.workload import SAMPLER, SYSTEM

JOBS: Final = 400
TOKENS: Final = 48
_SURE: Final = 2.6  # standard deviations: the upper bound that 99.5 % are below
_FLIPS: Final = (
    *(500_000, 450_000, 400_000, 320_000, 230_000, 110_000, 40_000, 18_000),
    *(8_000, 5_000, 4_000, 2_000, 1_000, 1_000, 1_000, 1_000),
)

NOISE_TABLE: Final = Table(
    Calibration(
        version=1,
        fitted_at=0,
        pairs=(
            PairNoise(
                model=b"",
                executor="",
                auditor="",
                flips=_FLIPS,
                drift=18_000,
                leaf_sd=2_000,
                job_sd=1_500,
                jobs=JOBS,
            ),
        ),
    )
)


class Counts:
    """What honest replays showed, summed up."""

    def __init__(self) -> None:
        self.tokens, self.flips = [0] * GAP_BINS, [0] * GAP_BINS
        self.means: list[float] = []
        self.within: list[float] = []

    def add(self, number: int) -> None:
        """One more job."""
        seed = hashlib.sha256(number.to_bytes(4, "big")).digest()
        writer, reader = (Engine(Language(MODEL), name + seed[:4]) for name in (b"one", b"two"))
        prompt = SYSTEM + tuple(1 + byte % (VOCABULARY - 1) for byte in seed[:12])
        chunks = list(writer.answer(Generate(prompt, 0, TOKENS, SAMPLER, seed)))
        output = tuple(token for chunk in chunks for token in chunk.tokens)
        replayed = reader.replay(Replay(prompt, output, 0, SAMPLER, seed))
        for given, drawn, gap in zip(output, replayed.drawn, replayed.gaps, strict=True):
            place = gap_bin(gap_code(gap))
            self.tokens[place] += 1
            self.flips[place] += given != drawn
        distances = leaf_distances(b"".join(c.sketches for c in chunks), replayed.sketches)
        self.means.append(fmean(distances))
        self.within += [distance - self.means[-1] for distance in distances]

    def rates(self) -> list[int]:
        """Upper bounds of flips in millionths, not rising with the gap."""
        rates = [_upper(f, n) for f, n in zip(self.flips, self.tokens, strict=True)]
        for place in range(GAP_BINS - 2, -1, -1):
            rates[place] = max(rates[place], rates[place + 1] if self.tokens[place] else 0)
        for place in range(1, GAP_BINS):
            rates[place] = min(rates[place], rates[place - 1])
        return [max(1_000, min(600_000, round(MILLION * rate))) for rate in rates]


def _upper(flips: int, tokens: int) -> float:
    """What a rate is below at 99.5 %, with two more seen of each kind (Agresti, Coull 1998)."""
    rate = (flips + 2) / (tokens + 4)
    return float(rate + _SURE * (rate * (1 - rate) / (tokens + 4)) ** 0.5)


def main() -> int:
    """Count and print."""
    counts = Counts()
    for number in range(JOBS):
        counts.add(number)
    sys.stdout.write(f"flips={counts.rates()}\n")
    for name, value in (
        ("drift", fmean(counts.means)),
        ("leaf_sd", pstdev(counts.within)),
        ("job_sd", pstdev(counts.means)),
    ):
        sys.stdout.write(f"{name}={round(MILLION * value)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
