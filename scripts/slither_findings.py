"""Runs slither and compares with the triage: no finding without a reason, and none that is gone.

    python scripts/slither_findings.py      # slither and forge on PATH

tests/contracts/forge/triage.json has, by detector and place (contract.function, or * for all of
it), why a finding stays.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
FORGE: Final = ROOT / "tests" / "contracts" / "forge"
TRIAGE: Final = FORGE / "triage.json"
SECONDS_MAX: Final = 900
_PLACE: Final = re.compile(r"\b(\w+\.\w+)[.(]")

Triage = dict[str, dict[str, str]]


def main() -> int:
    triage: Triage = json.loads(TRIAGE.read_text())
    findings = run()
    open_ones, stale = compare(triage, findings)
    for check, place, text in open_ones:
        print(f"untriaged: {check} at {place}\n    {text}")
    for check, place in stale:
        print(f"triaged, but found no more: {check} at {place}")
    print(f"slither: {len(findings)} findings, {len(open_ones)} untriaged, {len(stale)} stale")
    return 1 if open_ones or stale else 0


def run() -> list[tuple[str, str, str]]:
    """(detector, place, first line) of each finding. Raises RuntimeError if slither did not run."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        settings = ["--config-file", str(FORGE / "slither.json"), "--json", str(report)]
        done = subprocess.run(
            ["slither", ".", *settings],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
        if not report.exists():
            raise RuntimeError(done.stderr[-2_000:])
        told = json.loads(report.read_text())
    if not told["success"]:
        raise RuntimeError(told["error"])
    return [finding(one) for one in told["results"].get("detectors", [])]


def finding(told: dict[str, Any]) -> tuple[str, str, str]:
    line = told["description"].splitlines()[0]
    place = _PLACE.search(line)
    return told["check"], place[1] if place else "?", line


def compare(
    triage: Triage, findings: list[tuple[str, str, str]]
) -> tuple[list[tuple[str, str, str]], list[tuple[str, str]]]:
    """Findings without a reason, and reasons without a finding."""
    used = set()
    open_ones = []
    for check, place, line in findings:
        reasons = triage.get(check, {})
        known = next((one for one in (place, "*") if reasons.get(one)), None)
        if known is None:
            open_ones.append((check, place, line))
        used.add((check, known))
    written = {(check, place) for check, reasons in triage.items() for place in reasons}
    return open_ones, sorted(written - used)


if __name__ == "__main__":
    sys.exit(main())
