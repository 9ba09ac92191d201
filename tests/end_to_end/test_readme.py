"""The README's own three commands, from a clone to an answer in OpenAI's client.

They are taken out of the page and run by a shell in a fresh copy of what is tracked. Two things are
not as a newcomer has them: the environment is the one these tests run in (`make setup` would take
minutes; here it is only looked at, and docs/transcript.md shows it run), with the copy's own
packages put before the installed ones; and the port is a free one.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from free_ports import free_port
from tidy_rules import PACKAGES, ROOT

README_PORT = "127.0.0.1:8000"
READY_SECONDS_MAX = 240.0  # bounds of a busy machine, not what it takes
STOP_SECONDS_MAX = 45.0


def newcomer() -> list[str]:
    """The commands in the README's order."""
    page = (ROOT / "README.md").read_text()
    found = re.findall(r"<!-- newcomer (\d) -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert [number for number, _ in found] == ["1", "2", "3"]
    return [command for _, command in found]


def copy_of_checkout(folder: Path) -> Path:
    """What a clone of the checkout as it stands now would hold."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    copy = folder / "assay"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


def surroundings(copy: Path) -> dict[str, str]:
    roots = os.pathsep.join(str(copy / folder) for folder in PACKAGES.values())
    return {**os.environ, "PYTHONPATH": roots, "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def running(command: str, copy: Path) -> Iterator[list[str]]:
    """The lines a command said until it was ready; Ctrl-C at the end, as in its terminal."""
    process = subprocess.Popen(
        ["sh", "-c", f"exec {command}"],
        cwd=copy,
        env=surroundings(copy),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    try:
        yield until_ready(process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(STOP_SECONDS_MAX) == 0
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_SECONDS_MAX)
        assert process.stdout is not None
        process.stdout.close()


def until_ready(process: subprocess.Popen[bytes]) -> list[str]:
    assert process.stdout is not None
    said, until = b"", time.monotonic() + READY_SECONDS_MAX
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while b"ready:" not in said:
            assert time.monotonic() < until, said.decode()
            if selector.select(1.0):
                read = os.read(process.stdout.fileno(), 65_536)
                assert read, f"it ended:\n{said.decode()}"
                said += read
    return said.decode().splitlines()


def parties(process: psutil.Process) -> dict[str, psutil.Process]:
    """What a network consists of, by the module each runs."""
    return {child.cmdline()[2]: child for child in process.children()}


def folder_of(lines: list[str]) -> Path:
    (line,) = [line for line in lines if line.startswith("folder ")]
    return Path(line.split()[1])


def run(command: str, copy: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command],
        cwd=copy,
        env=surroundings(copy),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.end_to_end
@pytest.mark.model
@pytest.mark.slow
def test_three_commands_lead_from_a_clone_to_an_answer(tmp_path: Path) -> None:
    set_up, start, ask = newcomer()
    assert README_PORT in start
    assert README_PORT in ask
    ours = f"127.0.0.1:{free_port()}"
    copy = copy_of_checkout(tmp_path)
    looked = run(f"set -e\n{set_up.strip()} --dry-run\nbash -n scripts/setup.sh", copy)
    assert (looked.returncode, looked.stderr) == (0, "")
    assert "scripts/setup.sh" in looked.stdout
    used = run(".venv/bin/python -c 'import assay_simnet; print(assay_simnet.__file__)'", copy)
    assert used.stdout.startswith(str(copy)), "the copy's code, not the checkout's"
    with running(start.replace(README_PORT, ours), copy) as lines:
        folder = folder_of(lines)
        assert (folder / "coordinator").is_dir()
        answer = run(ask.replace(README_PORT, ours), copy)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert len(answer.stdout.split()) > 3, "a real model writes words"
    assert not folder.exists(), "what was said to be removed is"


@pytest.mark.end_to_end
@pytest.mark.model
@pytest.mark.slow
def test_a_network_that_lost_a_party_says_so_and_ends(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    command = [sys.executable, "-m", "assay_simnet", "up", "--listen", "127.0.0.1:0"]
    command += ["--nodes", "1", "--json", "--keep", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read().decode()
        ready = json.loads(line)
        started = parties(psutil.Process(process.pid))
        assert set(started) == {"assay_coordinator", "assay_node", "assay"}
        started["assay_node"].kill()
        assert process.wait(STOP_SECONDS_MAX) == 1
        assert "peer_gone: node-1 ended" in process.stderr.read().decode()
    _, alive = psutil.wait_procs(started.values(), timeout=0)
    assert alive == []
    assert (ready["event"], ready["folder"], ready["kept"]) == ("ready", str(folder), True)
    assert (folder / "coordinator" / "coordinator.db").is_file()
    assert (folder / "node-1" / "node.key").is_file()
