"""What honest noise looks like: how often tokens flip and how far sketches drift, by class pair.

All statistics of float classes rest on this table: token evidence (token_evidence.py) on the chance
of a flip given the gap, sketch evidence (sketch_evidence.py) on mean and spread of the drift. It
is fitted from answers of trusted nodes (fitting.py), signed by an operator and versioned; a ticket
names the version its receipt will be judged by. Version 0 is built in: two and a half times the
noise of the pairs measured for docs/verification.md, as other models may be noisier; so it is
weaker than a table of one's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.limits import GAP_BINS
from assay_protocol.messages import Calibration, PairNoise
from assay_protocol.signing import ED25519, Verifier, open_signed

MILLION: Final = 1_000_000
_CODES_PER_BIN: Final = 256 // GAP_BINS


@dataclass(frozen=True, slots=True)
class Noise:
    """Honest noise of one pair of classes.

    `flips`: the chance of a flip by gap bin, not rising. `drift`: mean of a job's mean leaf
    distance; `leaf_sd`, `job_sd`: its spread within and between jobs, in the same unit (a share of
    the sketches' length).
    """

    flips: tuple[float, ...]
    drift: float
    leaf_sd: float
    job_sd: float

    def sd(self, leaves: float) -> float:
        """Of the mean of so many leaves of one job; a part of a leaf counts by its tokens."""
        return math.sqrt(self.job_sd**2 + self.leaf_sd**2 / leaves)


class Table:
    """One version's noise, looked up from the most to the least particular entry."""

    def __init__(self, calibration: Calibration, signed: bytes = b"") -> None:
        """`signed`: the blob it was read from, to be shown to whoever asks."""
        self.calibration, self.signed = calibration, signed
        self._pairs = {
            (pair.model, pair.executor, pair.auditor): _noise(pair) for pair in calibration.pairs
        }
        self._refused = {(p.model, p.executor) for p in calibration.pairs if p.refused}
        if (b"", "", "") not in self._pairs:
            raise ProtocolError("calibration_invalid", "no entry for models it does not know")

    @property
    def version(self) -> int:
        return self.calibration.version

    def noise(self, model: bytes, executor: str, auditor: str) -> Noise:
        """Of `auditor`'s class about answers of `executor`'s class."""
        for key in (
            (model, executor, auditor),
            (model, executor, ""),
            (model, "", ""),
        ):
            if key in self._pairs:
                return self._pairs[key]
        return self._pairs[b"", "", ""]

    def refuses(self, model: bytes, class_id: str) -> bool:
        """Whether the class is so noisy for this model that cheats would pass for noise."""
        return (model, class_id) in self._refused


class Tables:
    """The tables a coordinator judges by, by version; the newest is the one for new tickets."""

    def __init__(self, tables: Iterable[Table] = ()) -> None:
        self._tables = {0: BUILT_IN, **{table.version: table for table in tables}}
        self.newest = self._tables[max(self._tables)]

    def of(self, version: int | None) -> Table:
        """The table a receipt names. Raises AssayError("calibration_unknown")."""
        table = self._tables.get(version or 0)
        if table is None:
            raise AssayError("calibration_unknown", f"version {version}")
        return table


def open_table(blob: bytes, operators: Iterable[bytes], verifier: Verifier = ED25519) -> Table:
    """The table in a signed file. Raises ProtocolError("calibration_invalid")."""
    for key in operators:
        try:
            calibration = open_signed(Calibration, blob, key, verifier)
        except ProtocolError:
            continue
        if calibration.version == 0:
            raise ProtocolError("calibration_invalid", "version 0 is the one that is built in")
        return Table(calibration, blob)
    raise ProtocolError("calibration_invalid", "it is not signed by an operator of this network")


def gap_bin(code: int) -> int:
    """The bin of a gap code (0..255)."""
    return code // _CODES_PER_BIN


def _noise(pair: PairNoise) -> Noise:
    flips = [flip / MILLION for flip in pair.flips]
    if not all(0 < flip < 1 for flip in flips) or not pair.drift or not pair.job_sd:
        raise ProtocolError("calibration_invalid", "a chance of 0 or 1, or no spread")
    return Noise(tuple(flips), pair.drift / MILLION, pair.leaf_sd / MILLION, pair.job_sd / MILLION)


BUILT_IN: Final = Table(
    Calibration(
        version=0,
        fitted_at=0,
        pairs=(
            PairNoise(
                model=b"",
                executor="",
                auditor="",
                flips=(
                    *(550_000, 520_000, 500_000, 470_000, 420_000, 290_000, 190_000, 75_000),
                    *(25_000, 8_000, 3_000, 2_000, 1_000, 1_000, 1_000, 1_000),
                ),
                drift=80_000,
                leaf_sd=12_000,
                job_sd=10_000,
                jobs=0,
            ),
        ),
    )
)
