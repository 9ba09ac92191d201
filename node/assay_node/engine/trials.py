"""Which profile this machine uses for a model: tried once, in a process of its own, remembered.

A trial (selfcheck.py) is good for one model file, its adapters and its projector, one set of
library files, one processor, one profile and one number of threads; change any and it is made
again. A profile whose trial dies, hangs or finds a difference is not `proved`, and its class id
then says float.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from assay_network.logs import get_logger
from assay_node.engine import library
from assay_node.engine.profiles import (
    CANDIDATES,
    FLASH,
    LIBRARY_VARIABLE,
    PORTABLE,
    VARIANTS,
    Profile,
    claim,
)
from assay_node.hardware import detect
from assay_node.models.gguf import read_header
from assay_protocol.errors import AssayError

TRIAL_SECONDS_MAX: Final = 3_600  # tens of gigabytes on a slow processor
FILE: Final = "trials.json"
_FORM: Final = 5  # of the file, and of what a trial does
_PREFILL_SHARE: Final = 2.0  # prompt tokens for each token of an answer, where rates are compared

_FLOATS: Final = (0, 1, 30)  # f32, f16, bf16: ggml_type of ggml.h
_COMPLAINT_MAX: Final = 300

_log = get_logger("engine")

Adapters = Sequence[tuple[Path, bytes]]  # file and digest


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found: rates in tokens per second; zeros if the trial failed."""

    exact: bool
    tokens: int
    differing: int  # logits of drawn tokens whose bits differ between decode and replay
    prefill_tps: float
    decode_tps: float
    class_id: str = ""  # what it may claim; not remembered

    @property
    def seconds_per_token(self) -> float:
        """Of an answer, its share of the prompt included."""
        if min(self.prefill_tps, self.decode_tps) <= 0:
            return float("inf")
        return _PREFILL_SHARE / self.prefill_tps + 1 / self.decode_tps


FAILED: Final = Trial(False, 0, 0, 0.0, 0.0)


def choose(
    path: Path,
    digest: bytes,
    name: str,
    *,
    threads: int,
    directory: Path,
    adapters: Adapters = (),
    projector: tuple[Path, bytes] | None = None,
) -> Profile:
    """The profile for `name`, a key of CANDIDATES; blocks for seconds to minutes the first time.

    "exact" and "exact-native": of the first group in which any road proves exact the quickest one,
    and if none does, the first, not proved. "fast": the quickest; where the portable library is not
    there or dies in all variants, that of the bindings. With `adapters`, their answers are tried as
    well; if they hold floats, by PLAIN alone: by FLASH their bits differ so seldom that a trial
    could miss it. With `projector` so are answers about images. Trials are kept in `directory`.

    Raises AssayError: "engine_missing" without the bindings, "model_missing" or "gguf_invalid" for
    a file that is no adapter.
    """

    def tried(profile: Profile) -> Trial:
        return try_profile(
            path,
            digest,
            profile,
            threads=threads,
            directory=directory,
            adapters=adapters,
            projector=projector,
        )

    groups = CANDIDATES[name]
    if name != "fast":
        floats = any(_holds_floats(file) for file, _ in adapters)
        for group in groups:
            roads = [one for one in group if not (floats and one.road == FLASH.road)]
            exact = {one: trial for one, trial in _alive(roads, tried).items() if trial.exact}
            if exact:
                return replace(_quickest(exact), proved=True)
        _log.warning("not_exact", model=digest.hex())
        return groups[0][0]
    found = _alive(groups[0], tried)
    return _quickest(
        found or {one: tried(one) for one in (replace(one, library="") for one in groups[0])}
    )


def _alive(profiles: Sequence[Profile], tried: Callable[[Profile], Trial]) -> dict[Profile, Trial]:
    """Those whose trial did not die, each in the first variant of its library that lives."""
    tries = (first_alive(profile, tried) for profile in profiles if profile.available)
    return {candidate: trial for candidate, trial in tries if trial != FAILED}


def first_alive(profile: Profile, tried: Callable[[Profile], Trial]) -> tuple[Profile, Trial]:
    """The first variant of the profile's library whose trial does not die; else the last one."""
    for variant in ("", *VARIANTS) if profile.library == PORTABLE else ("",):
        candidate = replace(profile, variant=variant)
        if (trial := tried(candidate)) != FAILED:
            break
    return candidate, trial


def _quickest(found: dict[Profile, Trial]) -> Profile:
    return min(found, key=lambda profile: found[profile].seconds_per_token)


def try_profile(
    path: Path,
    digest: bytes,
    profile: Profile,
    *,
    threads: int,
    directory: Path,
    adapters: Adapters = (),
    projector: tuple[Path, bytes] | None = None,
) -> Trial:
    """The remembered trial of `profile` with this file, or a new one."""
    place = _library_of(profile)
    key = json.dumps(
        [
            _FORM,
            digest.hex(),
            library.library_digest(place),
            detect(directory).cpu,
            threads,
            replace(profile, proved=False).packed(),
            *(adapter.hex() for _, adapter in adapters),
            *(() if projector is None else (f"images {projector[1].hex()}",)),
        ]
    )
    file = directory / FILE
    with _one_at_a_time(file):  # the nodes of a machine start together, and would all be slow
        known = _read(file)
        if key not in known:
            files, eyes = [file for file, _ in adapters], projector and projector[0]
            known[key] = run_trial(path, profile, threads, files, eyes)
            _write(file, known)
    return known[key]


def _holds_floats(adapter: Path) -> bool:
    return any(tensor.kind in _FLOATS for tensor in read_header(adapter).tensors)


@contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_suffix(".lock").open("w")
    except OSError as error:  # nothing will be remembered either; the trial is made all the same
        _log.warning("trial_not_kept", reason=error.strerror)
        yield
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _library_of(profile: Profile) -> Path:
    if profile.library:
        place = library.folder(profile.library)
        library.check(place)
        return place
    if named := os.environ.get(LIBRARY_VARIABLE):
        return Path(named)
    found = find_spec("llama_cpp")  # finds the package without loading the library
    if found is None or found.origin is None:
        raise AssayError("engine_missing", "llama-cpp-python is not installed")
    return Path(found.origin).parent / "lib"


def run_trial(
    path: Path,
    profile: Profile,
    threads: int,
    adapters: Sequence[Path] = (),
    projector: Path | None = None,
) -> Trial:
    """One trial, now, in a process of its own; FAILED if that dies. Nothing is remembered."""
    command = [sys.executable, "-m", "assay_node.engine.selfcheck", str(path)]
    command += ["--profile", json.dumps(profile.packed()), "--threads", str(threads)]
    command += [f"--adapter={file}" for file in adapters]
    command += [] if projector is None else [f"--projector={projector}"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=TRIAL_SECONDS_MAX,
            env=profile.environment(),
            check=True,
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        complaint = (getattr(error, "stderr", None) or b"").decode("utf-8", "replace").strip()
        _log.error(
            "trial_failed",
            road=profile.road,
            variant=profile.variant,
            reason=str(error)[-_COMPLAINT_MAX:],
            complaint=complaint[-_COMPLAINT_MAX:],
        )
        return FAILED
    differing = found["logits_differing"] + found["tokens_differing"]
    exact = found["tokens"] > 0 and differing == 0
    trial = Trial(
        exact=exact,
        tokens=found["tokens"],
        differing=found["logits_differing"],
        prefill_tps=found["prefill_tps"],
        decode_tps=found["decode_tps"],
        class_id=claim(found["class_id"], proved=exact),
    )
    _log.info("trial", road=profile.road, exact=trial.exact, differing=trial.differing)
    return trial


def _read(file: Path) -> dict[str, Trial]:
    """What is remembered; nothing if the file is not there or not ours."""
    try:
        entries: dict[str, Any] = json.loads(file.read_text())
        return {key: Trial(*fields) for key, fields in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(file: Path, trials: dict[str, Trial]) -> None:
    entries = {
        key: [one.exact, one.tokens, one.differing, one.prefill_tps, one.decode_tps]
        for key, one in trials.items()
        if one != FAILED  # what failed may have been out of memory: try again next time
    }
    partial = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        partial.write_text(json.dumps(entries))
        partial.replace(file)
    except OSError as error:
        _log.warning("trial_not_kept", reason=error.strerror)
