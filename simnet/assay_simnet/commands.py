"""`simnet run|check|replay|shrink|list|init` over the drivers.

Exit codes: 0 all that was promised happened, 1 something did not, 2 wrong usage or a scenario that
cannot be run (nothing is written then), 130 stopped by Ctrl-C, what was done is kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from assay_simnet.audit_policies import SCHEMES
from assay_simnet.cheats import BEHAVIOURS
from assay_simnet.chrome import ChromeTrace
from assay_simnet.collecting import let_go, settle
from assay_simnet.drivers.levels import open_driver
from assay_simnet.elsewhere import at_level, on_machine
from assay_simnet.events import EventLog, told
from assay_simnet.exercised import Tally, tallied, tally_of
from assay_simnet.fault_kinds import FAULTS
from assay_simnet.grid import base
from assay_simnet.invariants import Violated
from assay_simnet.pools import Here, Local, in_order
from assay_simnet.population import NATS, PROFILES, REGIONS
from assay_simnet.quantities import QuantityError, time_us
from assay_simnet.record import write_json
from assay_simnet.scenario import LEVELS, SHIPPED, Scenario, source_of, write
from assay_simnet.schema import ScenarioError, Source, read_file
from assay_simnet.seen import Driver
from assay_simnet.setting import START
from assay_simnet.shrink import TRIES
from assay_simnet.shrink_command import may_shrink, shrink_into

SEEDS_MAX: Final = 1_000_000
PROGRESS_SECONDS: Final = 0.5
INTERRUPTED: Final = 130
_OF_VIRTUAL: Final = {
    "evidence": "recorded of SmolLM2-135M Q8_0; no model ran",
    "rates": "measured by others, see population.py; batching is assumed",
}
_OF_REAL: Final = {
    "evidence": "SmolLM2-135M ran, by llama.cpp",
    "rates": "this machine's; its processes and clients share it",
}
_SMALL_SAYS: Final = "at the sizes that the scenario's [small] table says"


def add_verbs(verbs: Any) -> None:
    """The six verbs, each with `act` set to what it does."""
    run = verbs.add_parser("run", help="one scenario, one seed, its figures into a folder")
    run.add_argument("scenario", help="a file, or the name of a shipped one (simnet list)")
    run.add_argument("--seed", type=int, help="in place of the scenario's")
    run.add_argument("--level", choices=LEVELS, help="in place of the scenario's")
    run.add_argument("--machine", type=Path, help="keys that `simnet calibrate` wrote")
    run.add_argument("--small", action="store_true", help=_SMALL_SAYS)
    run.add_argument("--out", type=Path, help="folder to make; runs/NAME-SEED if left out")
    run.add_argument("--events", action="store_true", help="every event, for `simnet diff`")
    run.add_argument("--trace", action="store_true", help="trace.json for chrome://tracing")
    run.set_defaults(act=_run)
    check = verbs.add_parser("check", help="many seeds; stops at the first broken invariant")
    check.add_argument("scenarios", nargs="*", help="files or names; all shipped if left out")
    check.add_argument("--small", action="store_true", help=_SMALL_SAYS)
    check.add_argument("--seeds", default="0..9", help="FIRST..LAST, or one number")
    check.add_argument(
        "--workers", type=int, default=1, help="processes; results do not depend on it"
    )
    check.add_argument("--shrink", action="store_true", help="make the first one found smaller")
    check.set_defaults(act=_check)
    again = verbs.add_parser("replay", help="one run again, told event by event")
    again.add_argument("scenario", help="a file, a shipped name, or a folder that `run` made")
    again.add_argument("--seed", type=int)
    again.add_argument("--small", action="store_true", help=_SMALL_SAYS)
    again.add_argument("--commit", help="the code the run was made with")
    again.add_argument("--until", default="", help="virtual time from the start, like '12.5 s'")
    again.add_argument("--node", type=int, action="append", default=[], help="only events of these")
    again.set_defaults(act=_replay)
    shrink = verbs.add_parser("shrink", help="the smallest scenario that still breaks the same")
    shrink.add_argument("scenario", help="a file, a shipped name, or a folder that `run` made")
    shrink.add_argument("--seed", type=int)
    shrink.add_argument("--small", action="store_true", help=_SMALL_SAYS)
    for verb in (shrink, check):
        verb.add_argument("--runs", type=int, default=TRIES, help="to shrink by, at most")
        verb.add_argument("--to", type=Path, default=Path("shrunk.toml"), help="file to make")
    shrink.set_defaults(act=_shrink)
    listed = verbs.add_parser("list", help="shipped scenarios, behaviours, faults, hardware")
    listed.set_defaults(act=_list)
    first = verbs.add_parser("init", help="write a scenario to start from")
    first.add_argument("file", type=Path)
    first.set_defaults(act=_init)


def act(args: argparse.Namespace) -> int:
    """Do what was asked for; bad input is a line on stderr and exit code 2."""
    try:
        code: int = args.act(args)
    except (ScenarioError, QuantityError) as error:
        sys.stderr.write(f"simnet: {error}\n")
        return 2
    return code


# ---- run ---------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    scenario, source = _scenario(args.scenario, args.level, args.machine, small=args.small)
    seed = _seed(args.seed, scenario)
    size = "-small" if args.small else ""
    folder = args.out or Path("runs") / f"{scenario.name}{size}-{seed}"
    if folder.exists() and any(folder.iterdir()):
        raise ScenarioError(f"{folder} is there already; nothing is overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scenario.toml").write_text(source.text)
    began = time.process_time()
    manifest = _manifest(scenario, seed, small=args.small)
    write_json(folder / "manifest.json", {**manifest, "status": "running"})
    world = open_driver(scenario, seed, folder)
    status, violation = "done", None
    with ExitStack() as open_files:
        progress = open_files.enter_context(_Progress(scenario))
        if args.events:
            open_files.enter_context(EventLog(folder, world))
        if args.trace:
            open_files.enter_context(ChromeTrace(folder, world))
        try:
            world.run(progress.show)
        except Violated as error:
            status, violation = "violated", error
        except KeyboardInterrupt:
            status = "interrupted"
    _write(world, folder, violation)
    cpu = round(time.process_time() - began, 3)
    rate = round(world.events / cpu) if cpu else 0
    done = {"status": status, "trace_digest": world.history.digest, "cpu_s": cpu}
    write_json(folder / "manifest.json", {**manifest, **done, "events_per_cpu_s": rate})
    if violation is not None:
        _tell_violation(world, _again(args.scenario, small=args.small), violation)
        return 1
    sys.stdout.write((folder / "summary.json").read_text())
    sys.stderr.write(f"{status}: {folder} ({cpu:.1f} CPU-s)\n")
    if unpromised := SCHEMES[scenario.audits].unpromised:
        names = ", ".join(unpromised)
        sys.stderr.write(f"not checked, as {scenario.audits} does not promise it: {names}\n")
    return INTERRUPTED if status == "interrupted" else 0


def _write(world: Driver, folder: Path, violation: Violated | None) -> None:
    world.write_tables(folder)
    world.record.jobs.close()
    write_json(folder / "summary.json", world.summary())
    lines = [] if violation is None else [json.dumps(_violation(world, violation))]
    (folder / "violations.jsonl").write_text("".join(f"{line}\n" for line in lines))


def _violation(world: Driver, error: Violated) -> dict[str, Any]:
    return {
        "id": error.ident,
        "why": error.why,
        "at_us": world.now - START,
        "parties": list(error.parties),
        "seed": world.seed,
    }


def _manifest(scenario: Scenario, seed: int, *, small: bool) -> dict[str, Any]:
    return {
        "scenario": scenario.name,
        "question": scenario.question,
        "scenario_digest": scenario.digest,
        "parameters": json.loads(write(scenario)),
        "seed": seed,
        "small": small,
        "commit": commit(),
        "python": platform.python_version(),
        "audits": SCHEMES[scenario.audits].says,
        "not_checked": list(SCHEMES[scenario.audits].unpromised),
        **(_OF_REAL if scenario.level == "real" else _OF_VIRTUAL),
    }


# ---- check and replay --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """`name`: what `simnet replay` is to be given."""

    name: str
    scenario: Scenario
    seed: int


@dataclass(frozen=True)
class _Checked:
    """How one seed went. `told`: the violation in words, empty if there was none."""

    name: str
    seed: int
    digest: str
    tally: Tally
    told: str


def _check(args: argparse.Namespace) -> int:
    names = args.scenarios or sorted(path.stem for path in SHIPPED.glob("*.toml"))
    read = [(name, _scenario(name, small=args.small)[0]) for name in names]  # before any runs
    if args.shrink:
        may_shrink(args.to, args.runs)
    tasks = [
        _Task(_again(name, small=args.small), scenario, seed)
        for seed in seeds_of(args.seeds)
        for name, scenario in read
    ]
    done: dict[str, Tally] = {}
    ok = 0
    try:
        for task, checked in zip(tasks, _all(tasks, args.workers), strict=True):
            if checked.told:
                sys.stdout.write(checked.told)
                if args.shrink:
                    shrink_into(args.to, replace(task.scenario, seed=task.seed), args.runs)
                return 1
            ok += 1
            done[checked.name] = done.get(checked.name, Tally()) + checked.tally
            jobs = checked.tally.jobs
            line = f"ok {checked.name} seed {checked.seed}: {jobs} jobs, {checked.digest}\n"
            sys.stdout.write(line)
    except KeyboardInterrupt:
        sys.stderr.write(f"stopped after {ok} of {len(tasks)} runs, none of them broken\n")
        return INTERRUPTED
    sys.stdout.write(tallied(done))
    sys.stdout.write(f"{ok} runs, no violation\n")
    return 0


def _all(tasks: list[_Task], workers: int) -> Iterator[_Checked]:
    """Results in the order of the tasks, whoever computed them."""
    pool = Local(_checked, workers) if workers > 1 else Here(_checked)
    try:
        yield from in_order(pool, tasks, workers)
    finally:
        pool.stop()


def _checked(task: _Task) -> _Checked:
    settle()
    checked = _run_and_checked(task)
    let_go()
    return checked


def _run_and_checked(task: _Task) -> _Checked:
    world = open_driver(task.scenario, task.seed)
    words = ""
    try:
        world.run()
    except Violated as error:
        words = describe(world, task.name, error)
    return _Checked(task.name, task.seed, world.history.digest, tally_of(world.summary()), words)


def _replay(args: argparse.Namespace) -> int:
    name, seed, named, small = args.scenario, args.seed, args.commit, args.small
    path = Path(name)
    if path.is_dir():
        name, found, made_with, small = _of_folder(path)
        seed = found if seed is None else seed
        named = named or made_with
    scenario, _ = _scenario(name, small=small)
    if named and not commit().startswith(named[:12]):
        sys.stderr.write(f"simnet: this is {commit()[:12]}, the run was made with {named[:12]}\n")
    until = START + time_us(args.until) if args.until else None
    world = open_driver(scenario, _seed(seed, scenario))
    return _tell(world, _again(name, small=small), until, frozenset(args.node))


def _shrink(args: argparse.Namespace) -> int:
    may_shrink(args.to, args.runs)
    name, seed, small, path = args.scenario, args.seed, args.small, Path(args.scenario)
    if path.is_dir():
        name, found, _, small = _of_folder(path)
        seed = found if seed is None else seed
    scenario, _ = _scenario(name, small=small)
    return shrink_into(args.to, replace(scenario, seed=_seed(seed, scenario)), args.runs)


def _of_folder(folder: Path) -> tuple[str, int, str, bool]:
    """Scenario, seed and commit of a run, and whether it was a small one."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        seed, made_with = int(manifest["seed"]), str(manifest["commit"])
        copied = folder / "scenario.toml"
        name = str(copied) if copied.is_file() else str(manifest["scenario"])
        return name, seed, made_with, bool(manifest.get("small"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScenarioError(f"{folder}: no whole manifest.json of a run ({error})") from error


class _Until(BaseException):
    """The time to stop at has come."""


def _tell(world: Driver, name: str, until: int | None, nodes: frozenset[int]) -> int:
    def telling(now: int, source: int, target: int, what: str, detail: bytes) -> None:
        if until is not None and now > until:
            raise _Until
        if nodes and (source in nodes or target in nodes):
            sys.stdout.write(told((now, source, target, what, detail[:24])))

    at = 0
    world.history.listeners.append(telling)
    try:
        world.run()
    except Violated as error:
        _tell_violation(world, name, error)
        return 1
    except _Until:
        at = until or at
    except KeyboardInterrupt:
        return INTERRUPTED
    sys.stdout.write(f"at {((at or world.now) - START) / 1e6:.3f} s: {world.record.begun} jobs, ")
    sys.stdout.write(f"no violation, digest {world.history.digest}\n")
    return 0


def describe(world: Driver, name: str, error: Violated) -> str:
    """A violation in words: how to see it again, what does not hold, what those involved did."""
    again = f"simnet replay {name} --seed {world.seed} --commit {commit()[:12]}"
    at = (world.now - START) / 1e6
    head = f"{again}\n{error.ident} does not hold at {at:.3f} s: {error.why}\n"
    return head + "".join(map(told, world.history.of(frozenset(error.parties))))


def _tell_violation(world: Driver, name: str, error: Violated) -> None:
    sys.stdout.write(describe(world, name, error))


# ---- list and init -----------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    lines = ["scenarios"]
    for path in sorted(SHIPPED.glob("*.toml")):
        lines.append(f"  {path.stem:24} {base(read_file(path)).question}")
    lines.append("behaviours")
    lines += [f"  {name:24} {cheat.does}" for name, cheat in BEHAVIOURS.items()]
    lines.append("faults")
    lines += [f"  {kind:24} {does}" for kind, does in FAULTS.items()]
    lines += ["regions", "  " + ", ".join(REGIONS), "nat", "  " + ", ".join(NATS)]
    lines.append(
        "profiles (memory GB, slots, prefill and decode tokens/s of an 8B model in 4 bits)"
    )
    for name, one in PROFILES.items():
        sheet = f"{one.memory_gb:g}, {one.slots}, {one.prefill_tps:g}, {one.decode_tps:g}"
        lines.append(f"  {name:24} {sheet}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _init(args: argparse.Namespace) -> int:
    target: Path = args.file
    if target.exists():
        raise ScenarioError(f"{target} is there already; nothing is overwritten")
    text = (SHIPPED / "baseline.toml").read_text()
    target.write_text(text.replace('"baseline"', f'"{target.stem}"'))
    sys.stdout.write(f"simnet run {target}\n")
    return 0


# ---- inside ------------------------------------------------------------------------------------


class _Progress:
    """One line on a terminal, now and then; nothing where stderr is none."""

    def __init__(self, scenario: Scenario) -> None:
        self._whole = (scenario.warm_up + scenario.duration) / 1e6
        self._shown, self._to = 0.0, sys.stderr if sys.stderr.isatty() else None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._to is not None and self._shown:
            self._to.write("\n")

    def show(self, world: Driver) -> None:
        now = time.monotonic()
        if self._to is None or now - self._shown < PROGRESS_SECONDS:
            return
        self._shown = now
        at = (world.now - START) / 1e6
        jobs = f"{world.record.over}/{world.record.begun} jobs"
        self._to.write(f"\r{world.phase:8} {at:10.0f} of {self._whole:.0f} s  {jobs}   ")
        self._to.flush()


def _scenario(
    name: str, level: str | None = None, machine: Path | None = None, *, small: bool
) -> tuple[Scenario, Source]:
    """A [sweep] table is for `simnet sweep` to read; here it is left out."""
    source = source_of(name)
    if level is not None:
        source = at_level(source, level)
    if machine is not None:
        source = on_machine(source, read_file(machine))
    return base(source, small=small), source


def _again(name: str, *, small: bool) -> str:
    """A scenario as `simnet replay` is to be given it."""
    return f"{name} --small" if small else name


def _seed(given: int | None, scenario: Scenario) -> int:
    seed = scenario.seed if given is None else given
    return next(iter(_range(seed, seed)))


def seeds_of(text: str) -> Iterable[int]:
    """FIRST..LAST, or one number. Raises ScenarioError."""
    first, dots, last = text.partition("..")
    try:
        return _range(int(first), int(last if dots else first))
    except ValueError as error:
        raise ScenarioError(f"--seeds {text}: FIRST..LAST wanted, like 0..99") from error


def _range(first: int, last: int) -> range:
    if not 0 <= first <= last < 1 << 63 or last - first >= SEEDS_MAX:
        raise ScenarioError(f"seeds {first}..{last}: from 0 on, at most {SEEDS_MAX:,} of them")
    return range(first, last + 1)


def commit() -> str:
    """The code's commit; "unknown" where it is installed without its history."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
