"""What exactness costs: every road, on every format, in turns on one machine.

    python bench/profiles.py [MODEL.gguf] [--threads 1] [--rounds 3] [--formats Q8_0,Q4_0,...]

MODEL (the test model) is rewritten in each format; each road's self-check runs in a process of its
own, `rounds` times, the roads taking turns. Rates are medians in tokens per second: a prompt of 256
tokens alone, then 4 sequences decoding at once. `differing` counts logits whose bits differ
between decode and replay, out of `tokens`. A road whose library was not built is left out. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from assay_node.engine.profiles import (
    FAST_SPLIT,
    FAST_UNIFIED,
    FLASH,
    FLASH_PORTABLE,
    PLAIN,
    Profile,
)
from assay_node.engine.quantize import requantize
from assay_node.engine.trials import Trial, run_trial
from assay_node.hardware import detect
from assay_node.models.fetch import TEST_MODEL_PATH

VARIANT: Final = os.environ.get("VARIANT", "")  # of the portable library, if its own choice dies
FORMATS: Final = ("Q8_0", "Q4_0", "Q4_1", "Q4_K_M", "F16")
ROADS: Final = (
    FLASH,
    PLAIN,
    *(replace(one, variant=VARIANT) for one in (FLASH_PORTABLE, FAST_SPLIT, FAST_UNIFIED)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=TEST_MODEL_PATH)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", type=lambda text: text.split(","), default=list(FORMATS))
    options = parser.parse_args()
    roads = [profile for profile in ROADS if profile.available]
    figures: dict[str, Any] = {}
    print(f"{'format':8}{'road':27}{'exact':>6}{'differing':>12}{'prefill':>9}{'decode':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        for kind in options.formats:
            file = Path(scratch) / f"{kind}.gguf"
            requantize(options.model, file, kind, threads=options.threads)
            figures[kind] = measure(file, kind, roads, options.threads, options.rounds)
            file.unlink()
    machine = detect(Path())
    about = {"cpu": machine.cpu, "cores": machine.cores, "threads": options.threads}
    print(json.dumps({"bench": "profiles", "unit": "tokens/s", **about, "formats": figures}))


def measure(
    file: Path, kind: str, roads: list[Profile], threads: int, rounds: int
) -> dict[str, dict[str, float]]:
    trials: dict[str, list[Trial]] = {_title(profile): [] for profile in roads}
    for _ in range(rounds):
        for profile in roads:
            trials[_title(profile)].append(run_trial(file, profile, threads))
    rows = {}
    for road, found in trials.items():
        row = {
            "exact": all(trial.exact for trial in found),
            "tokens": found[0].tokens,
            "differing": max(trial.differing for trial in found),
            "prefill_tps": round(statistics.median(trial.prefill_tps for trial in found), 1),
            "decode_tps": round(statistics.median(trial.decode_tps for trial in found), 1),
        }
        shown = f"{row['differing']}/{row['tokens']}"
        rates = f"{row['prefill_tps']:9.0f}{row['decode_tps']:8.0f}"
        exact = "yes" if row["exact"] else "no"
        print(f"{kind:8}{road:27}{exact:>6}{shown:>12}{rates}", flush=True)
        rows[road] = row
    return rows


def _title(profile: Profile) -> str:
    return f"{profile.road} {profile.library or 'wheel'}"


if __name__ == "__main__":
    main()
