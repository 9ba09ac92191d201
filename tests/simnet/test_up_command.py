"""What `simnet up` refuses before it starts or writes anything; test_readme.py runs it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from assay_simnet import up_command
from assay_simnet.cli import main


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("it was not refused")

    monkeypatch.setattr(up_command, "prepare", started)


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("8000", "HOST:PORT"),
        ("0.0.0.0:8000", "can be reached by others"),
        ("[::]:8000", "can be reached by others"),
        ("example.org:8000", "can be reached by others"),
        ("127.0.0.1:65536", "HOST:PORT"),
    ],
)
def test_only_this_machine_is_listened_on(
    listen: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", "--listen", listen]) == 2
    assert said in capsys.readouterr().err


def test_a_port_in_use_is_told_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["up", "--listen", f"127.0.0.1:{other.getsockname()[1]}"]) == 1
    assert "port_in_use" in capsys.readouterr().err


@pytest.mark.parametrize("nodes", ["0", "9", "-1", "two", "2²"])
def test_nodes_are_from_one_to_eight(nodes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["up", "--nodes", nodes])
    assert stop.value.code == 2
    assert "1 to 8" in capsys.readouterr().err


def test_a_folder_of_others_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    assert main(["up", "--listen", "127.0.0.1:0", "--keep", str(tmp_path)]) == 2
    assert "config_invalid" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_one_network_runs_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hold = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX); "
    hold += "print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / up_command.MARK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert main(["up", "--listen", "127.0.0.1:0", "--keep", str(tmp_path)]) == 2
        assert other.stdin is not None
        other.stdin.close()
    assert "already" in capsys.readouterr().err
    with pytest.raises(AssertionError, match="not refused"):  # its own folder is taken up again
        main(["up", "--listen", "127.0.0.1:0", "--keep", str(tmp_path)])
