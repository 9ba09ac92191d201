"""One node a data folder; others on the machine find it, stop it, and leave its key alone."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from assay_network.keystore import load_key
from assay_node.cli import main
from assay_node.running import drain_node, only_node, running_node
from assay_node.store import ReceiptStore
from assay_protocol.errors import AssayError
from node.test_app_cli import status_at
from node.test_app_store import saved

CAPSYS = pytest.CaptureFixture[str]
SLEEPER = """
import signal, sys, time
from pathlib import Path
from assay_node.running import only_node
from assay_protocol.errors import AssayError
signal.signal(signal.SIGTERM, signal.default_int_handler)
with only_node(Path(sys.argv[1])):
    print("ready", flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(float(sys.argv[2]))
"""


@contextmanager
def other_process(directory: Path, drains_for: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder as a node does, and takes its time to end."""
    argv = [sys.executable, "-c", SLEEPER, str(directory), str(drains_for)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_running_node_is_found_and_drained(tmp_path: Path) -> None:
    assert running_node(tmp_path) is None
    with other_process(tmp_path, drains_for=0.3) as process:
        assert running_node(tmp_path) == process.pid
        with pytest.raises(AssayError, match=f"pid {process.pid}"), only_node(tmp_path):
            pass
        looks: list[int] = []
        assert not drain_node(tmp_path, wait_seconds=0.0, told=lambda: None)
        assert drain_node(tmp_path, wait_seconds=20, told=lambda: looks.append(1))
        assert process.wait(5) is not None
    with only_node(tmp_path):
        assert running_node(tmp_path) == os.getpid()
    with pytest.raises(AssayError, match="no node runs"):
        drain_node(tmp_path, wait_seconds=0, told=lambda: None)


def test_a_killed_node_leaves_no_lock(tmp_path: Path) -> None:
    with other_process(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(5)
        assert (tmp_path / "node.lock").read_text() == str(process.pid), "its id is there still"
        assert running_node(tmp_path) is None


def test_the_drain_command_waits_and_says_so(tmp_path: Path, capsys: CAPSYS) -> None:
    where = ["--data-dir", str(tmp_path)]
    assert main(["drain", *where]) == 2
    (tmp_path / "status.json").write_text(status_at(1, "draining").json())
    with other_process(tmp_path, drains_for=0.5):
        assert main(["drain", *where, "--wait", "0"]) == 0
    with other_process(tmp_path):
        assert main(["drain", *where]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "drained"
    with other_process(tmp_path):
        assert main(["drain", *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["drained"] is True


def test_a_key_is_exported_privately_and_never_over_a_file(tmp_path: Path, capsys: CAPSYS) -> None:
    where, copy = ["--data-dir", str(tmp_path / "data")], tmp_path / "backup.key"
    assert main(["keys", "export", str(copy), *where]) == 1
    assert main(["keys", "new", *where]) == 0
    assert main(["keys", "export", str(copy), *where]) == 0
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert load_key(copy) == load_key(tmp_path / "data" / "node.key")
    assert main(["keys", "export", str(copy), *where]) == 1
    assert main(["keys", "export", str(tmp_path / "no" / "folder"), *where]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_rotated_key_is_kept_and_what_is_owed_to_it_stops_it(
    tmp_path: Path, capsys: CAPSYS
) -> None:
    where = ["--data-dir", str(tmp_path)]
    assert main(["keys", "new", "--json", *where]) == 0
    first, old = json.loads(capsys.readouterr().out), load_key(tmp_path / "node.key")
    store = ReceiptStore(tmp_path / "receipts.sqlite")
    store.write([saved(1)], [])
    store.close()
    assert main(["keys", "rotate", *where]) == 2
    assert "1 receipts of this key" in capsys.readouterr().err
    with only_node(tmp_path):
        assert main(["keys", "rotate", "--give-up-receipts", *where]) == 2
    assert load_key(tmp_path / "node.key") == old
    assert main(["keys", "rotate", "--give-up-receipts", "--json", *where]) == 0
    told = json.loads(capsys.readouterr().out)
    assert load_key(Path(told["old"])) == old
    assert told["old"] == f"{tmp_path}/node.key.{first['peer']}"
    assert told["key"] != first["key"]
