"""How much of what cheats do each check catches, and how often it accuses honest nodes.

    python bench/verify/run.py [--jobs 24] [--honest 120] [--quick] [--model FILE.gguf]

One thread. The declared model is MODEL (the test model) in Q8_0; jobs are chats of 96 answer
tokens at temperature 0.8. Honest nodes of three classes and fourteen cheats answer `honest` and
`jobs` of them, auditors of five classes replay them (conditions.py); everything computed is kept
below the cache folder and not computed again (recordings.py): most of an hour on one core the first
time. All checks judge the same jobs. TOPLOC's column is empty without its package (pyproject.toml,
group `bench`).

Printed: share of jobs caught, in percent with 95 % intervals, by cheat and method (methods.py);
jobs of honest nodes that each method accuses, by pair of classes. `--record` also rewrites the
table that lifetime.py resamples. `--kept` computes nothing new. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from assay_node.models.fetch import TEST_MODEL_PATH
from conditions import CHEATS, DECLARED, FORGER
from models import model_file
from noted import RECORDED, Noted, write_table
from plan import FLOAT_AUDITOR, FLOAT_PAIRS, Plan
from recordings import BLOCK, TOKENS, Recordings
from sampling_cost import sampling_cost
from tables import (
    METHODS,
    Count,
    Row,
    cheat_rows,
    false_alarms,
    honest_judge,
    mean,
    show_alarms,
    show_cheats,
    total,
)
from weighing import weighed
from wire_sizes import opened_bytes, receipt_bytes

STREAMS: Final = (1, 16)
RECORDED_HONEST_MAX: Final = 144  # jobs of each pair of classes: the table stays small
RECORDED_CHEATS_MAX: Final = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=TEST_MODEL_PATH)
    parser.add_argument("--jobs", type=int, default=BLOCK, help="of each cheat")
    parser.add_argument("--honest", type=int, default=5 * BLOCK, help="of each honest class")
    parser.add_argument("--quick", action="store_true", help=f"{BLOCK} jobs of each")
    parser.add_argument("--mild", action="store_true", help="fewer cheats and classes")
    parser.add_argument("--kept", action="store_true", help="only what was recorded before")
    parser.add_argument("--record", action="store_true", help=f"rewrite {RECORDED.name}")
    options = parser.parse_args()
    asked = (BLOCK, BLOCK) if options.quick else (options.honest, options.jobs)
    honest, cheats = (-(-jobs // BLOCK) for jobs in asked)
    recordings = Recordings(options.model)
    if not options.kept:
        recordings.make(Plan(honest, cheats, options.mild).wanted())
    rows = cheat_rows(recordings, honest_judge(recordings, honest), cheats)
    show_cheats(rows)
    alarms = false_alarms(recordings, honest)
    show_alarms(alarms)
    if options.record:
        write_table(RECORDED, noted_table(recordings, honest, cheats))
    figures = detection(rows) | accusations(alarms) | costs(model_file(DECLARED, options.model))
    about = {"bench": "verify", "model": options.model.stem, "tokens": TOKENS}
    by_cheat = {
        row.name: {method: count.packed() for method, count in row.caught.items()} for row in rows
    }
    print(json.dumps(about | figures | {"caught": by_cheat}))


def detection(rows: list[Row]) -> dict[str, Any]:
    """Means over the cheats, the forger by itself."""
    cheats = [row for row in rows if row.name != FORGER]
    forger = next((row for row in rows if row.name == FORGER), None)
    return {
        "cheats": len(cheats),
        "cheats_planned": len(CHEATS),
        "exact_detection": mean(cheats, "E"),
        "float_detection": mean(cheats, "T or S"),
        "float_detection_by_evidence": mean(cheats, "evidence"),
        "prefill_forger_detection": _of(forger, "T or S"),
        "prefill_forger_detection_by_evidence": _of(forger, "evidence"),
        "anchors": {method: mean(cheats, method) for method in METHODS[5:]},
        "anchors_prefill_forger": {method: _of(forger, method) for method in METHODS[5:]},
    }


def accusations(alarms: dict[str, dict[str, Count]]) -> dict[str, Any]:
    rows = list(alarms.values())
    by_method = {method: total(rows, method) for method in METHODS}
    exact, either = by_method["E"], by_method["T or S"]
    return {
        "honest_audits": exact.trials + either.trials,
        "honest_pairs": len(rows),
        "exact_audits": exact.trials,
        "exact_false_alarms": exact.hits,
        "float_false_alarms": either.hits,
        "float_false_alarms_by_evidence": by_method["evidence"].hits,
        "false_alarms": {method: count.packed() for method, count in by_method.items()},
    }


def costs(model: Path) -> dict[str, Any]:
    return {
        "receipt_bytes_per_token_128": round(receipt_bytes(128) / 128, 3),
        "receipt_bytes_per_token_512": round(receipt_bytes(512) / 512, 3),
        "opened_bytes_128": opened_bytes(128),
        "sampler_share_of_decode": [sampling_cost(model, streams) for streams in STREAMS],
    }


def noted_table(recordings: Recordings, honest: int, cheats: int) -> dict[str, Noted]:
    """Of every pair of different classes, and of every cheat."""
    blocks = min(honest, RECORDED_HONEST_MAX // BLOCK)
    table = {}
    for provider, auditor in FLOAT_PAIRS:
        some = min(blocks, recordings.blocks(provider.name, auditor))
        if some:
            found = weighed(recordings, provider.name, auditor, some)
            table[f"{provider.name} > {auditor}"] = found.noted()
    for name in (*(one.name for one in CHEATS), FORGER):
        most = min(cheats, RECORDED_CHEATS_MAX // BLOCK)
        some = min(most, recordings.blocks(name, FLOAT_AUDITOR))
        if some:
            table[name] = weighed(recordings, name, FLOAT_AUDITOR, some).noted()
    return table


def _of(row: Row | None, method: str) -> float | None:
    count = row.caught.get(method) if row else None
    return None if count is None else round(count.share, 4)


if __name__ == "__main__":
    main()
