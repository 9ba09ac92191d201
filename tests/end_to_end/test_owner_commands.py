"""What an owner types at a real coordinator: the doctor, a drain, and hours of rest."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from assay_protocol.errors import RemoteError
from end_to_end.scripted_network import granted, scripted_network, start_paced

pytestmark = pytest.mark.end_to_end


async def node_command(*words: str) -> tuple[int, Any]:
    """Exit code of `node ... --json` and the object it printed."""
    argv = [sys.executable, "-m", "assay_node", *words, "--json"]
    done = await trio.run_process(argv, capture_stdout=True, capture_stderr=True, check=False)
    assert isinstance(done, subprocess.CompletedProcess)
    return done.returncode, json.loads(done.stdout)


async def test_a_well_node_is_dialed_back_started_and_drained(tmp_path: Path) -> None:
    async with scripted_network(tmp_path) as network:
        where = ["--data-dir", str(tmp_path / "n"), "--coordinator", network.address]
        where += ["--engine", "scripted", "--listen", "/ip4/127.0.0.1/tcp/0"]
        code, said = await node_command("doctor", *where)
        states = {one["check"]: one["state"] for one in said["findings"]}
        assert code == 0, said
        assert (states["reach"], states["clock"], states["protocol"]) == ("ok", "ok", "ok")
        await start_paced(network, "n", 0.01)
        code, said = await node_command("drain", "--data-dir", str(tmp_path / "n"))
        assert (code, said["drained"], said["status"]["phase"]) == (0, True, "drained")


async def test_a_node_outside_its_hours_is_there_and_gets_no_job(tmp_path: Path) -> None:
    hour = (time.gmtime().tm_hour + 12) % 24
    async with scripted_network(tmp_path) as network:
        await start_paced(network, "n", 0.01, hours=f"{hour:02}:00-{hour:02}:01", time_zone="UTC")
        status = tmp_path / "n" / "status.json"
        with trio.fail_after(60):
            while json.loads(status.read_text())["phase"] != "paused":
                await trio.sleep(0.1)
        code = ""
        with trio.fail_after(60):  # the heartbeat that says so may still be under way
            while not code:
                try:
                    await granted(network, 4)
                except RemoteError as error:
                    code = error.code
                await trio.sleep(0.2)
        assert code == "no_capacity"
