"""The command: lines and JSON against a door that answers, exit codes, and completion."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from assay import cli
from assay.top.command import main
from assay_network.http_listener import listening_socket
from sdk.top.top_cases import KEY, OTHER, pages, status


@contextmanager
def door() -> Iterator[str]:
    """The pages of a node and a coordinator, served on loopback; its URL."""
    bodies = pages()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's own name
            body = bodies.get(self.path.partition("?")[0])
            self.send_response(404 if body is None else 200)
            self.send_header("content-length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *values: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_lines_and_json_tell_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with door() as url:
        given = ["--node", url, "--coordinator", url, "--interval", "0.2"]
        assert main([*given, "--count", "1"]) == 0, "no terminal: lines"
        head, own, other = capsys.readouterr().out.splitlines()
        assert main([*given, "--count", "2", "--json"]) == 0
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert head.startswith("network ready | nodes 1 active")
    assert own.startswith(f"{KEY[:8]} serving/active (busy) | smollm2 | slots 3/4")
    assert other.startswith(f"{OTHER[:8]} serving/inquiry")
    first, second = told
    assert [node["node"] for node in second["nodes"]] == [KEY, OTHER]
    assert first["nodes"][0]["tokens_out_per_second"] is None
    assert second["nodes"][0]["tokens_out_per_second"] == 0
    assert second["network"]["epoch"] == 4
    assert second["at"] > first["at"]


def test_a_local_node_is_found_as_node_status_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASSAY_NODE_DATA_DIR", str(tmp_path))
    assert main(["--count", "1"]) == 0
    assert capsys.readouterr().out == f"{tmp_path} gone (no_status)\n"
    (tmp_path / "status.json").write_text(json.dumps(status(at=0)))
    assert main(["--count", "1"]) == 0
    assert capsys.readouterr().out == "abababab gone (stale)\n"


def test_a_node_that_is_gone_is_told_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    with listening_socket("127.0.0.1", 0) as listener:
        where = f"127.0.0.1:{listener.getsockname()[1]}"
    assert main(["--node", where, "--count", "2", "--interval", "0.2"]) == 0
    assert capsys.readouterr().out == f"{where} gone (unreachable)\n" * 2


@pytest.mark.parametrize(
    "given",
    [
        ["--node", "http://user@host"],
        ["--coordinator", "ftp://host"],
        ["--interval", "0"],
        ["--interval", "nan"],
        ["--count", "0"],
        [word for n in range(17) for word in ("--node", f"h:{n + 1}")],
    ],
)
def test_wrong_usage_is_exit_code_2(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "assay top: " in said.err


def test_a_full_screen_without_the_extra_names_the_mend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.delitem(sys.modules, "assay.top.screen", raising=False)
    monkeypatch.setitem(sys.modules, "textual.app", None)  # as where it is not installed
    assert cli.main(["top", "--node", "127.0.0.1:1"]) == 2
    said = capsys.readouterr().err
    assert "textual" in said
    assert "pip install 'assay-network[top]'" in said
    assert cli.main(["top", "--node", "127.0.0.1:1", "--plain", "--count", "1"]) == 0


def test_the_shell_completes_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    (line,) = [line for line in script.splitlines() if line.strip().startswith('"top")')]
    for flag in ("--node", "--coordinator", "--interval", "--count", "--plain", "--json"):
        assert flag in line
