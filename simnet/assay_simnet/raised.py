"""What a run that raised is reported as: production's code is not to raise, whatever comes."""

from __future__ import annotations

import traceback
from pathlib import Path

from assay_simnet.invariants import RAISED, Violated
from assay_simnet.scenario import INVARIANTS


def violated_by(error: Exception) -> Violated:
    """With the id that its assertion names, if it does, and the line that raised."""
    head = str(error).split(":", 1)[0]
    ident = head if head in INVARIANTS else RAISED
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return Violated(ident, f"{type(error).__name__} in {place}: {error}")
