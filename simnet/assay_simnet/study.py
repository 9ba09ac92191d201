"""`simnet sweep|diff|compare|calibrate|plot`: many runs, two side by side, what they look like.

Exit codes as in commands.py: 1 where a run broke an invariant, or two runs differ (compare: in
their ledgers, or by more than the tolerance).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Final

from assay_protocol.errors import AssayError
from assay_protocol.extras import report_missing
from assay_simnet.commands import INTERRUPTED, PROGRESS_SECONDS, commit
from assay_simnet.compare import compare
from assay_simnet.compare_report import as_json, as_markdown
from assay_simnet.events import parting
from assay_simnet.grid import Plan
from assay_simnet.invariants import Violated
from assay_simnet.pools import WORKERS_MAX, Here, Local, Pool, Ray, in_order
from assay_simnet.quantities import QuantityError, share
from assay_simnet.report import write_report
from assay_simnet.scenario import source_of
from assay_simnet.schema import ScenarioError
from assay_simnet.sweep import Row, Rows, Task, compute

WRONG: Final = 1
SLOTS_MAX: Final = 64  # answers at once that are measured


def add_studies(verbs: Any) -> None:
    """The five verbs, each with `act` set to what it does."""
    sweep = verbs.add_parser("sweep", help="a run for every point of a file's [sweep] table")
    sweep.add_argument("scenario", help="a file with a [sweep] table")
    sweep.add_argument("--out", type=Path, help="folder to make; runs/NAME-sweep if left out")
    sweep.add_argument(
        "--workers", type=int, default=1, help="processes; results do not depend on it"
    )
    sweep.add_argument("--resume", action="store_true", help="go on where it was stopped")
    sweep.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="on a Ray cluster; four runs are under way for each of --workers",
    )
    sweep.add_argument("--show", type=int, metavar="RUN", help="print that run's scenario only")
    sweep.set_defaults(act=_sweep)
    diff = verbs.add_parser("diff", help="the first event in which two runs differ")
    diff.add_argument("a", type=Path, help="a folder that `run --events` made")
    diff.add_argument("b", type=Path)
    diff.set_defaults(act=_diff)
    levels = verbs.add_parser("compare", help="a scenario at two levels: how far they agree")
    levels.add_argument("a", type=Path, help="a run's folder")
    levels.add_argument("b", type=Path, help="the run that the first is held against")
    levels.add_argument("--tolerance", default="10 %", help="of the p50 of TTFT and TPOT")
    levels.add_argument("--json", action="store_true", help="one object for programs")
    levels.set_defaults(act=_compare)
    speeds = verbs.add_parser("calibrate", help="what this machine does, as keys of a scenario")
    speeds.add_argument("out", type=Path, help="file to write")
    speeds.add_argument("--slots", type=int, default=4, help="answers at once")
    speeds.set_defaults(act=_calibrate)
    plot = verbs.add_parser("plot", help="report.html of a run or a sweep")
    plot.add_argument("folder", type=Path)
    plot.add_argument("--out", type=Path, help="file to write; FOLDER/report.html if left out")
    plot.set_defaults(act=_plot)


def _sweep(args: argparse.Namespace) -> int:
    if not 1 <= args.workers <= WORKERS_MAX:
        raise ScenarioError(f"--workers {args.workers}: from 1 to {WORKERS_MAX:,}")
    plan = Plan(source_of(args.scenario))
    if args.show is not None:
        if not 0 <= args.show < len(plan):
            raise ScenarioError(f"--show {args.show}: runs are 0..{len(plan) - 1}")
        sys.stdout.write(plan.run(args.show).text)
        return 0
    try:
        pool = _pool(args)
    except ModuleNotFoundError as error:
        return report_missing("simnet", "ray", error)
    try:
        folder = args.out or Path("runs") / f"{plan.base.name}-sweep"
        rows = Rows(folder, plan, commit(), resume=args.resume)
        try:
            return _compute(rows, pool, args, folder)
        finally:
            rows.close()
    finally:
        pool.stop()


def _pool(args: argparse.Namespace) -> Pool[Task, Row]:
    if args.ray is not None:
        return Ray(compute, args.ray)
    return Here(compute) if args.workers == 1 else Local(compute, args.workers)


def _compute(rows: Rows, pool: Pool[Task, Row], args: argparse.Namespace, folder: Path) -> int:
    whole, begun_with = len(rows.plan), rows.done
    if rows.dropped:
        sys.stderr.write(f"half a row ({rows.dropped} bytes) is cut off and made again\n")
    try:
        for row in _shown(in_order(pool, rows.tasks(), args.workers), rows):
            rows.add(row)
            if row.violated:
                again = f"simnet sweep {args.scenario} --show {row.number} > again.toml"
                sys.stderr.write(f"run {row.number}: {row.violated}\n  {again}\n")
                sys.stderr.write("  simnet replay again.toml\n")
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{rows.done} of {whole} runs are kept; --resume goes on\n")
        return INTERRUPTED
    except BrokenProcessPool:
        sys.stderr.write(f"simnet: a worker was killed after {rows.done} runs; --resume goes on\n")
        return WRONG
    done = f"{whole} runs, {whole - begun_with} of them now, {rows.violated} broke an invariant"
    sys.stdout.write(f"{folder / 'sweep.csv'}: {done}\n")
    return WRONG if rows.violated else 0


def _shown(results: Iterator[Row], rows: Rows) -> Iterator[Row]:
    """The same, with a line on a terminal now and then."""
    terminal = sys.stderr.isatty()
    shown = time.monotonic()
    for row in results:
        yield row
        if terminal and time.monotonic() - shown >= PROGRESS_SECONDS:
            shown = time.monotonic()
            sys.stderr.write(f"\r{rows.done}/{len(rows.plan)} runs ")
            sys.stderr.flush()


def _diff(args: argparse.Namespace) -> int:
    words, part = parting(args.a, args.b)
    sys.stdout.write(words)
    return WRONG if part else 0


def _compare(args: argparse.Namespace) -> int:
    try:
        tolerance = share(args.tolerance)
    except QuantityError as error:
        raise ScenarioError(f"--tolerance: {error}") from error
    seen = compare(args.a, args.b, tolerance)
    sys.stdout.write(json.dumps(as_json(seen)) + "\n" if args.json else as_markdown(seen))
    return 0 if seen.exact and seen.within else WRONG


def _calibrate(args: argparse.Namespace) -> int:
    if args.out.exists():
        raise ScenarioError(f"{args.out} is there already; nothing is overwritten")
    if not 1 <= args.slots <= SLOTS_MAX:
        raise ScenarioError(f"--slots {args.slots}: from 1 to {SLOTS_MAX}")
    try:
        from assay_simnet.calibrate import calibrated
    except ModuleNotFoundError as error:
        return report_missing("simnet", "all", error)
    try:
        args.out.write_text(calibrated(args.slots))
    except (AssayError, Violated) as error:
        sys.stderr.write(f"simnet: {error}\n")
        return WRONG
    sys.stdout.write(args.out.read_text())
    return 0


def _plot(args: argparse.Namespace) -> int:
    sys.stdout.write(f"{write_report(args.folder, args.out)}\n")
    return 0
