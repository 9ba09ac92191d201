"""What prevents a start is said in one line with its code, and the exit code tells."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay_protocol.cards import encode_card
from end_to_end.places import scripted_card, write_card

pytestmark = pytest.mark.end_to_end
KEY = "00" * 32


@pytest.fixture
def taken() -> Iterator[int]:
    """A port somebody else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def _fails(code: str, exit_code: int, *words: str) -> None:
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == exit_code, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"{code}: "), done.stderr
    assert "Traceback" not in done.stderr


def _coordinator(folder: Path, *words: str) -> tuple[str, ...]:
    return ("assay_coordinator", "start", "--data-dir", str(folder), *words)


def _node(folder: Path, *words: str) -> tuple[str, ...]:
    coordinator = "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
    where = f"/ip4/127.0.0.1/tcp/1/p2p/{coordinator}"
    return ("assay_node", "start", "--data-dir", str(folder), "--coordinator", where, *words)


def test_a_port_in_use(tmp_path: Path, taken: int) -> None:
    listen = ("--listen", f"/ip4/127.0.0.1/tcp/{taken}")
    _fails("port_in_use", 1, *_coordinator(tmp_path / "c", *listen))
    _fails("port_in_use", 1, *_node(tmp_path / "n", "--engine", "scripted", *listen))


def test_a_port_for_http_in_use(tmp_path: Path, taken: int) -> None:
    free = ("--listen", "/ip4/127.0.0.1/tcp/0")
    for page in ("--rpc", "--http"):
        _fails("port_in_use", 1, *_coordinator(tmp_path, *free, page, f"127.0.0.1:{taken}"))


def test_a_key_others_can_read(tmp_path: Path) -> None:
    for name in ("coordinator.key", "node.key"):
        (tmp_path / name).write_bytes(b"")
        (tmp_path / name).chmod(0o644)
    _fails("key_permissions", 1, *_coordinator(tmp_path))
    _fails("key_permissions", 1, *_node(tmp_path, "--engine", "scripted"))


def test_a_card_that_is_none(tmp_path: Path) -> None:
    bad = tmp_path / "bad.card"
    bad.write_bytes(encode_card(scripted_card())[:-9])
    _fails("card_invalid", 1, *_coordinator(tmp_path / "c", "--catalogue", str(bad)))
    _fails("card_invalid", 1, *_node(tmp_path / "n", "--card", str(bad)))


def test_another_model_than_the_cards(tmp_path: Path) -> None:
    model = tmp_path / "tiny.gguf"
    model.write_bytes(bytes(scripted_card().size_bytes))
    given = ("--card", str(write_card(tmp_path)), "--model", str(model))
    _fails("model_corrupt", 1, *_node(tmp_path / "n", *given))


def test_a_misspelt_setting(tmp_path: Path) -> None:
    policy, config = tmp_path / "policy.toml", tmp_path / "node.toml"
    policy.write_text("lease_uss = 1\n")
    config.write_text("slotz = 1\n")
    _fails("config_invalid", 1, *_coordinator(tmp_path / "c", "--policy", str(policy)))
    _fails("config_invalid", 1, *_coordinator(tmp_path / "c", "--operator", KEY[:-2]))
    _fails("config_invalid", 2, *_node(tmp_path / "n", "--config", str(config)))
