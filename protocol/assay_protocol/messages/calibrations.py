"""The honest noise that receipts of float classes are judged by: a signed, versioned table."""

from __future__ import annotations

from typing import Annotated

from assay_protocol import limits
from assay_protocol.codec import Range, Size, message, struct
from assay_protocol.messages.parts import Count, Time

Millionths = Annotated[int, Range(0, 1 << 31)]
ClassName = Annotated[str, Size(0, 128)]


@struct
class PairNoise:
    """How far honest nodes of one class are from auditors of another, for one model.

    An empty `model`, `executor` or `auditor` stands for any that has no entry of its own. `flips`
    are upper bounds on the chance that a token differs whose gap (sketches.gap_code) is in
    sixteenth i of the scale. `drift` is the mean distance of an answer's leaves
    (sketches.leaf_distances); `leaf_sd` and `job_sd` are its standard deviation within an answer
    and between answers. A class that is `refused` is too noisy to be told from cheats.
    """

    model: Annotated[bytes, Size(0, 32)]
    executor: ClassName
    auditor: ClassName
    flips: Annotated[tuple[Millionths, ...], Size.exactly(limits.GAP_BINS)]
    drift: Millionths
    leaf_sd: Millionths
    job_sd: Millionths
    jobs: Count
    refused: bool | None = None


@message(86)
class Calibration:
    """A table of honest noise, signed by an operator of the coordinator. Tickets name its version.

    Version 0 is the table that is built in (docs/verification.md).
    """

    version: Count
    fitted_at: Time
    pairs: Annotated[tuple[PairNoise, ...], Size(1, limits.CALIBRATION_PAIRS_MAX)]
