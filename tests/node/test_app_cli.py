"""The owner's commands: what they print and the exit codes they promise."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import trio

from assay_network.host import open_host
from assay_node.cli import main
from assay_node.status import Status, notify_systemd, read_status, write_status
from assay_node.store import ReceiptStore
from assay_protocol.cards import encode_card
from assay_protocol.errors import AssayError
from assay_protocol.messages import Heartbeat, Register
from card_cases import small_card
from free_ports import free_port
from node.app_world import COORDINATOR, FakeCoordinator
from node.test_app_store import saved


def status_at(at: int, phase: str = "serving") -> Status:
    texts = dict.fromkeys(("node", "engine", "device", "model", "state", "reason"), "x")
    counts = dict.fromkeys(Status.__slots__, 0)
    fields = counts | texts | {"at": at, "phase": phase, "addresses": (), "connected": True}
    fields["models"] = (
        {"model": "aa", "state": "resident", "jobs": 2},
        {"model": "bb", "state": "absent", "jobs": 0},
    )
    return Status(**fields)  # type: ignore[arg-type]  # filled by name


def test_keys_are_made_once_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--data-dir", str(tmp_path)]
    assert main(["keys", "show", *where]) == 1
    assert main(["keys", "new", *where]) == 0
    made = capsys.readouterr().out
    assert main(["keys", "show", *where]) == 0
    assert capsys.readouterr().out == made
    assert main(["keys", "new", *where]) == 1
    assert capsys.readouterr().err.startswith("key_invalid: ")


def test_status_tells_a_running_node_from_a_dead_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data-dir", str(tmp_path)]
    assert main(["status", *where]) == 2
    import time

    write_status(tmp_path, status_at(time.time_ns() // 1000))
    assert main(["status", *where, "--json"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["phase"] == "serving"
    assert main(["status", *where]) == 0
    line, *models = capsys.readouterr().out.splitlines()
    assert "1 of 2 models loaded" in line
    assert models == ["aa resident 2 jobs", "bb absent 0 jobs"]
    write_status(tmp_path, status_at(1))
    assert main(["status", *where]) == 3
    (tmp_path / "status.json").write_text("[]")
    assert main(["status", *where]) == 2
    (tmp_path / "status.json").write_text('{"old": 1}')
    assert main(["status", *where]) == 2
    write_status(tmp_path, replace(status_at(1), models=({"other": 1},)))
    assert main(["status", *where]) == 2


def test_receipts_are_exported_as_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ReceiptStore(tmp_path / "receipts.sqlite")
    store.write([saved(1), saved(2, b"ack")], [])
    store.close()
    assert main(["credit", "receipts", "--data-dir", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["ack"] for line in lines] == [None, b"ack".hex()]
    assert lines[0]["state"] == "saved"


def test_the_benchmark_prints_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["benchmark", "--engine", "scripted", "--data-dir", str(tmp_path)]
    assert main([*argv, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["profiles"].values()
    assert row["prefill_tps"] > 0
    assert row["decode_tps"] > 0
    assert row["exact"] is False
    assert main([*argv, "--json", "--cached"]) == 0
    assert json.loads(capsys.readouterr().out)["profiles"]["exact"] == row, "remembered"
    assert main(argv) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["profile", "prefill/s", "decode/s", "exact", "class"]
    assert line.split()[3:] == ["no", "scripted"]


def test_the_doctor_names_each_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"{COORDINATOR.public_key.hex()}@/ip4/127.0.0.1/tcp/{free_port()}"
    argv = ["doctor", "--data-dir", str(tmp_path), "--listen", "/ip4/127.0.0.1/tcp/0"]
    assert main([*argv, "--coordinator", where, "--model", "/nowhere.gguf"]) == 12
    lines = capsys.readouterr().out.splitlines()
    said = [line.split(":")[0] for line in lines if not line.startswith(("     ", "--"))]
    assert said[:5] == ["ok   key", "ok   disk", "FAIL model", "ok   port", "FAIL coordinator"]
    models = ["--models", str(tmp_path / "none.card"), "--models", "other.card=other.gguf"]
    assert main([*argv, "--coordinator", where, *models]) == 12
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines].count("FAIL model") == 2, "each is looked at"


class _Server(BaseHTTPRequestHandler):
    """Lists two tokens after everything, with or without their ids."""

    ids: ClassVar[bool] = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        names = ({"id": 2}, {"id": 3}) if self.ids else ({}, {})
        listed = [{"logprob": -0.7, "token": "a"} | name for name in names]
        self._answer({"completion_probabilities": [{"top_logprobs": listed}]})

    def do_GET(self) -> None:
        self._answer({})

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def _answer(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def test_the_doctor_asks_the_other_server_and_says_why_it_cannot_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "card").write_bytes(encode_card(small_card()))
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        argv = ["doctor", "--data-dir", str(tmp_path), "--listen", "/ip4/127.0.0.1/tcp/0"]
        argv += ["--coordinator", f"{COORDINATOR.public_key.hex()}@/ip4/127.0.0.1/tcp/1"]
        argv += ["--card", str(tmp_path / "card"), "--engine", "openai"]
        argv += ["--engine-url", f"http://127.0.0.1:{server.server_port}"]
        try:
            main(argv)
            assert "ok   engine: openai/llama-server/Q4_1/L" in capsys.readouterr().out
            monkeypatch.setattr(_Server, "ids", False)
            assert main(argv) == 14
            said = capsys.readouterr().out
            assert "FAIL engine: engine_failed: the server cannot serve: llama-server: no" in said
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "argv",
    [
        ["start", "--slots", "0"],
        ["start", "--slots", "many"],
        ["start", "--engine", "scripted"],
        ["nonsense"],
        [],
    ],
)
def test_wrong_usage_has_its_own_exit_code(argv: list[str]) -> None:
    assert main(argv) == 2


def test_a_card_of_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["models", "card", str(tmp_path / "none.gguf"), "-o", str(tmp_path / "none.card")]
    assert main(argv) == 1
    assert capsys.readouterr().err.startswith("model_missing: ")


def test_systemd_is_told_only_if_it_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_systemd("READY=1")
    path = tmp_path / "notify"
    with ExitStack() as stack:
        inbox = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        inbox.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify_systemd("READY=1")
        assert inbox.recv(64) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify_systemd("READY=1")


def test_no_status_is_an_error_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(AssayError) as caught:
        read_status(tmp_path)
    assert caught.value.code == "config_invalid"


@pytest.mark.end_to_end
@pytest.mark.parametrize(("signals", "code"), [(1, 0), (2, 130)])
async def test_a_started_node_registers_and_drains_on_the_first_signal_and_ends_on_the_second(
    tmp_path: Path, signals: int, code: int
) -> None:
    async with open_host(COORDINATOR.seed, ["/ip4/127.0.0.1/tcp/0"]) as host:
        coordinator = FakeCoordinator(host, beats=signals == 1)
        argv = ["start", "--coordinator", host.addresses[0], "--engine", "scripted", "--json"]
        argv += ["--data-dir", str(tmp_path), "--listen", "/ip4/127.0.0.1/tcp/0"]
        program = f"import sys; from assay_node.cli import main; sys.exit(main({argv!r}))"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment
        )
        try:
            with trio.fail_after(30):
                while not any(isinstance(m, Register) for m in coordinator.heard):
                    await coordinator.stirred.wait()
                process.send_signal(signal.SIGTERM)
                while signals == 2 and not any(_drains(m) for m in coordinator.heard):
                    await coordinator.stirred.wait()
                if signals == 2:
                    process.send_signal(signal.SIGINT)
                assert await process.wait() == code
        finally:
            if process.returncode is None:
                process.kill()
        assert any(_drains(m) for m in coordinator.heard)
    assert (read_status(tmp_path)["phase"] == "drained") == (code == 0)


def _drains(message: object) -> bool:
    return isinstance(message, Heartbeat) and message.draining
