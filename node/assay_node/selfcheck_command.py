"""`node selfcheck exact`: prove on this machine that decode and replay give the same bits, or not.

Every road to the exact class is tried anew with the owner's own file: answers that come and go,
other batch widths and threads, prefixes cached and cold, jobs preempted and resumed (selfcheck.py
says what a trial does). The verdict is the class a node would claim, and the exit code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from assay_node.config import Settings
from assay_node.engine.profiles import CANDIDATES, Profile
from assay_node.engine.trials import FAILED, Trial, first_alive, run_trial
from assay_node.models.gguf import read_header
from assay_node.models.projectors import check_projector
from assay_protocol.errors import AssayError


def selfcheck_command(settings: Settings, claim: str, *, as_json: bool) -> bool:
    """Try every road of `claim` with the settings' model and print it; whether one is exact.

    With `projector` answers about images are tried, too. Raises AssayError: "model_missing" without
    a model file, "gguf_invalid", "engine_missing" without the bindings.
    """
    if not settings.model:
        raise AssayError("model_missing", "name a GGUF file: --model FILE")
    path = Path(settings.model)
    if not path.is_file():
        raise AssayError("model_missing", str(path))
    header = read_header(path)  # a broken file is told as such, not as a road that failed
    projector = Path(settings.projector) if settings.projector else None
    if projector is not None:
        check_projector(projector, header)
    tried = _try_all(path, projector, claim, settings.engine_threads)
    best = _best(tried)
    if as_json:
        print(json.dumps({"claim": claim, "roads": [_plain(*one) for one in tried], **_told(best)}))
    else:
        _print(tried, best)
    return best is not None


def _try_all(
    path: Path, projector: Path | None, claim: str, threads: int
) -> list[tuple[Profile, Trial | None]]:
    """Each road; None: its library is not on this machine."""

    def tried(profile: Profile) -> Trial:
        return run_trial(path, profile, threads, projector=projector)

    roads = (one for group in CANDIDATES[claim] for one in group)
    return [first_alive(one, tried) if one.available else (one, None) for one in roads]


def _best(tried: list[tuple[Profile, Trial | None]]) -> tuple[Profile, Trial] | None:
    exact = [(profile, trial) for profile, trial in tried if trial is not None and trial.exact]
    return min(exact, key=lambda one: one[1].seconds_per_token, default=None)


def _print(tried: list[tuple[Profile, Trial | None]], best: tuple[Profile, Trial] | None) -> None:
    print(
        f"{'road':12} {'library':9} {'compared':>8} {'differ':>7} {'prefill/s':>10} {'decode/s':>9}"
    )
    for profile, trial in tried:
        name = f"{profile.road:12} {profile.library or 'bindings':9}"
        if trial is None:
            print(f"{name} not built here: scripts/build_engine.sh {profile.library}")
        elif trial == FAILED:
            print(f"{name} died: it is not for this machine or this file")
        else:
            rates = f"{trial.prefill_tps:10.1f} {trial.decode_tps:9.1f}"
            print(f"{name} {trial.tokens:8} {trial.differing:7} {rates}")
    if best is None:
        print("not exact: no road gives the same bits here; the node will say float")
    else:
        print(f"exact: {best[1].tokens} tokens compared, none differs; class {best[1].class_id}")


def _plain(profile: Profile, trial: Trial | None) -> dict[str, Any]:
    row: dict[str, Any] = {"road": profile.road, "library": profile.library or "bindings"}
    if trial is None:
        return row | {"state": "not built"}
    if trial == FAILED:
        return row | {"state": "died"}
    return row | {
        "state": "exact" if trial.exact else "differs",
        "tokens": trial.tokens,
        "differing": trial.differing,
        "prefill_tps": trial.prefill_tps,
        "decode_tps": trial.decode_tps,
        "class_id": trial.class_id,
    }


def _told(best: tuple[Profile, Trial] | None) -> dict[str, Any]:
    return {"exact": best is not None, "class_id": best[1].class_id if best else None}
