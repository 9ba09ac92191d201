"""`coordinator calibrate`: from recorded audits of trusted nodes to a signed table in a file."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from assay_coordinator.adapters.store import Store
from assay_coordinator.adapters.verdicts import traces
from assay_coordinator.core.calibration import MILLION
from assay_coordinator.core.fitting import PAIR_JOBS_MIN, fit
from assay_network.keystore import load_or_create_key
from assay_protocol.errors import AssayError
from assay_protocol.messages import PairNoise
from assay_protocol.signing import Identity, seal


def calibrate(
    url: str, trusted: Collection[bytes], version: int, key: Path, output: Path
) -> dict[str, Any]:
    """Write the table and say what is in it.

    Raises AssayError("calibration_invalid") if there are too few audits or the version is 0.
    """
    if version < 1:
        raise AssayError("calibration_invalid", "version 0 is the one that is built in")
    store = Store(url)
    try:
        seen = list(traces(store, trusted))
    finally:
        store.close()
    if len(seen) < PAIR_JOBS_MIN:
        many = f"{len(seen)} audits among trusted nodes; {PAIR_JOBS_MIN} are needed"
        raise AssayError("calibration_invalid", many)
    table = fit(version, time.time_ns() // 1000, seen)
    signer = Identity(load_or_create_key(key))
    try:
        output.write_bytes(seal(signer, table))
    except OSError as error:
        raise AssayError("calibration_invalid", f"{output}: {error}") from error
    return {
        "version": version,
        "audits": len(seen),
        "file": str(output),
        "signer": signer.public_key.hex(),
        "pairs": [_told(pair) for pair in table.pairs],
    }


def _told(pair: PairNoise) -> dict[str, Any]:
    return {
        "model": pair.model.hex(),
        "executor": pair.executor,
        "auditor": pair.auditor,
        "jobs": pair.jobs,
        "drift": pair.drift / MILLION,
        "leaf_sd": pair.leaf_sd / MILLION,
        "job_sd": pair.job_sd / MILLION,
        "flips": [flip / MILLION for flip in pair.flips],
        "refused": bool(pair.refused),
    }
