"""Level real, small: processes, a model that runs; the same books as at level fast."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay_simnet.cli import main
from assay_simnet.compare import compare
from assay_simnet.results import read_json, table_rows

START_SECONDS_MAX = 240.0  # bounds of a busy machine, not what it takes
STOP_SECONDS_MAX = 120.0
SHORT = """# Do processes keep the books that a simulation keeps?
schema = 1
name = "short"
level = "real"
warm_up = "5 s"
duration = "6 s"
heal = "1 min"
[model]
context = 512
parameters = 134.5e6
size = "98.4 MB"
[population]
nodes = 2
profiles = { "cpu-thread" = 1 }
[workload]
rate = "2 / s"
clients = 2
prompt_tokens = 16
prompt_most = 64
answer_tokens = 24
answer_most = 32
[coordinator]
round = "1 s"
audit_bps_min = 10_000
reaudit_bps = 0
audit_pay_bps = 500
audit_alone = "3 s"
"""


@pytest.mark.end_to_end
@pytest.mark.model
@pytest.mark.slow
def test_processes_keep_the_books_of_the_simulation(tmp_path: Path) -> None:
    file = tmp_path / "short.toml"
    file.write_text(SHORT)
    real, fast = tmp_path / "real", tmp_path / "fast"
    assert main(["run", str(file), "--out", str(real)]) == 0
    assert main(["run", str(file), "--level", "fast", "--out", str(fast)]) == 0
    seen = compare(fast, real, 1.0)
    assert seen.differs == ()
    assert seen.matched == len(list(table_rows(real, "jobs"))) > 3
    told = read_json(real / "summary.json")
    assert told["phase"] == "audit"
    assert told["jobs"]["by_finish"] == {"length": seen.matched}
    assert told["verification"]["audits"] > 0
    assert 0 < told["utilisation"] < 2
    assert {row["kind"] for row in table_rows(real, "nodes")} == {"llama.cpp"}
    assert (real / "processes" / "coordinator.log").is_file()
    assert main(["plot", str(real)]) == 0


@pytest.mark.end_to_end
@pytest.mark.model
@pytest.mark.slow
def test_an_interrupted_run_leaves_no_process_and_its_figures(tmp_path: Path) -> None:
    file, out = tmp_path / "short.toml", tmp_path / "out"
    file.write_text(SHORT)
    command = [sys.executable, "-m", "assay_simnet", "run", str(file), "--out", str(out)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = out / "processes" / "node-1.log"
    deadline = time.monotonic() + START_SECONDS_MAX
    while not (log.is_file() and b"coordinator_connected" in log.read_bytes()):
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    assert run.wait(STOP_SECONDS_MAX) == 130
    assert read_json(out / "manifest.json")["status"] == "interrupted"
    assert "jobs" in read_json(out / "summary.json")
    assert str(out) not in _commands()


def _commands() -> str:
    """The command lines of all processes."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                found.append((folder / "cmdline").read_text())
            except OSError:
                continue  # it ended meanwhile
    return "\n".join(found)
