"""What audits noted of answers, as little as the coordinator's evidence needs, and its table.

The table in recorded/ is small enough to be kept with the code, so that lifetimes can be simulated
where there is no model. Its rows are jobs, the same ones for every pair of classes: what several
auditors said of one answer stands in one row of several entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from assay_coordinator.core.calibration import Noise
from assay_coordinator.core.evidence import Levels, whole
from assay_coordinator.core.findings import HARD_MARGIN
from assay_coordinator.core.sketch_evidence import sketch_ratios
from assay_coordinator.core.token_evidence import token_ratios

RECORDED: Final = Path(__file__).with_name("recorded") / "smollm2-135m-q8_0.npz"


@dataclass(frozen=True, slots=True)
class Noted:
    """Arrays by job. `behind`: the largest margin of the answer, logits."""

    gaps: NDArray[np.uint8]  # [jobs, tokens]: codes
    wrong: NDArray[np.bool_]  # [jobs, tokens]
    distances: NDArray[np.float64]  # [jobs, leaves]
    behind: NDArray[np.float64]  # [jobs]

    @property
    def jobs(self) -> int:
        return len(self.behind)

    def some(self, rows: NDArray[Any] | slice) -> Noted:
        return Noted(self.gaps[rows], self.wrong[rows], self.distances[rows], self.behind[rows])

    def ratios(self, noise: Noise, job: int) -> Levels:
        """What the coordinator makes of one audit, by alternative."""
        positions = np.flatnonzero(self.wrong[job]).tolist()
        tokens = token_ratios(noise, self.gaps[job].tobytes(), positions)
        return whole((*tokens, *sketch_ratios(noise, self.distances[job].tolist())))

    def hard(self, job: int) -> bool:
        """Whether some token was farther behind than any drift explains."""
        return bool(self.behind[job] * 1000 > HARD_MARGIN)


def write_table(path: Path, table: Mapping[str, Noted]) -> None:
    arrays = {}
    for name, one in table.items():
        arrays[f"{name}|gaps"] = one.gaps
        arrays[f"{name}|wrong"] = np.packbits(one.wrong, axis=1)
        arrays[f"{name}|distances"] = one.distances.astype(np.float16)
        arrays[f"{name}|behind"] = one.behind.astype(np.float16)
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_table(path: Path = RECORDED) -> dict[str, Noted]:
    """By entry: "executor > auditor" of honest pairs, a cheat's name otherwise."""
    table = {}
    with np.load(path) as loaded:
        for name in sorted({key.split("|")[0] for key in loaded.files}):
            gaps = loaded[f"{name}|gaps"]
            table[name] = Noted(
                gaps,
                np.unpackbits(loaded[f"{name}|wrong"], axis=1, count=gaps.shape[1]).astype(bool),
                loaded[f"{name}|distances"].astype(np.float64),
                loaded[f"{name}|behind"].astype(np.float64),
            )
    return table
