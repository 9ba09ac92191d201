"""make conformance: other people's suites against the gateway, and against two other servers.

    python -m conformance.run [--subjects assay,llama-server,llama-cpp-python] [--suites NAME,...]
                              [--examples 40] [--output tests/conformance/results.json]

Each subject is started, asked by every suite one after another, and stopped. What is measured again
replaces what the results file had of that subject and suite; the rest of it stays. The page
docs/compatibility.md is written from the file. Ends with 1 if a failure of ours has no reason in
reasons.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, Final

import trio

from conformance import environments, page
from conformance.outcomes import Outcome
from conformance.subjects import STARTERS, Subject
from conformance.suites import ALL, Suite

EXAMPLES: Final = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=_words, default=list(STARTERS))
    parser.add_argument("--suites", type=_words, default=[suite.name for suite in ALL])
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="of schemathesis, each")
    parser.add_argument("--output", type=Path, default=page.RESULTS)
    args = parser.parse_args()
    suites = [suite for suite in ALL if suite.name in args.suites]
    unknown = {*args.subjects} - STARTERS.keys(), {*args.suites} - {one.name for one in ALL}
    if any(unknown):
        parser.error(f"unknown: {', '.join(sorted(unknown[0] | unknown[1]))}")
    for environment in environments.ALL:
        environment.make()
    for name in args.subjects:
        trio.run(measure, name, suites, args)
    results = json.loads(args.output.read_text())
    if args.output == page.RESULTS:
        page.PAGE.write_text(page.written(page.PAGE.read_text(), results))
    ours = page.unexplained(results)
    for suite, test in ours:
        print(f"no reason is given in reasons.py: {suite}, {test}", file=sys.stderr)
    sys.exit(bool(ours))


async def measure(name: str, suites: list[Suite], args: argparse.Namespace) -> None:
    """Start one subject and run `suites` against it; the results file grows with each."""
    with tempfile.TemporaryDirectory(prefix=f"conformance-{name}-") as folder:
        async with STARTERS[name](Path(folder)) as subject:
            for suite in suites:
                if suite.embeddings and subject.embedding_model is None:
                    continue
                if suite.weights and subject.weights is None:
                    continue
                found = await trio.to_thread.run_sync(_run, suite, subject, Path(folder), args)
                _merge(args.output, subject, suite, found)


def _run(suite: Suite, subject: Subject, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    try:
        found = suite.run(subject, folder, args.examples)
    except subprocess.TimeoutExpired as late:
        found = [Outcome("the whole suite", "failed", f"it did not end within {late.timeout} s")]
    seconds = round(time.monotonic() - began)
    counts = {kind: sum(one.status == kind for one in found) for kind in ("passed", "failed")}
    print(f"{subject.name:18} {suite.name:26} {counts} {seconds} s", flush=True)
    outcomes = [{k: v for k, v in asdict(one).items() if v} for one in found]
    more = {"examples": args.examples} if suite.name == "schemathesis" else {}
    return {"version": suite.version(), "seconds": seconds, **more, "outcomes": outcomes}


def _merge(file: Path, subject: Subject, suite: Suite, found: dict[str, Any]) -> None:
    known = json.loads(file.read_text()) if file.is_file() else {"subjects": {}}
    known["measured"] = known.get("measured", {}) | {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {_processors()}",
    }
    if subject.weights is not None:  # not of a simulated one
        known["measured"]["model"] = subject.model
    place = known["subjects"].setdefault(subject.name, {"suites": {}})
    place["version"] = subject.version
    place["suites"][suite.name] = found
    order = {one.name: number for number, one in enumerate(ALL)}
    place["suites"] = dict(sorted(place["suites"].items(), key=lambda item: order[item[0]]))
    file.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def _processors() -> str:
    return f"{len(os.sched_getaffinity(0))} processors, no GPU"


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


if __name__ == "__main__":
    main()
