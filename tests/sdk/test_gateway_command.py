"""`assay gateway` and `assay gateway keys`: what is wrong is said in a line; nothing is harmed."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest

from assay.cli import main
from assay.gateway.api_keys import ApiKeys, add_key, read_keys
from assay.gateway.settings import Settings, load_settings
from assay_network.http_listener import listening_socket
from assay_protocol.errors import AssayError

WHERE = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"


def test_a_key_is_made_listed_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ["--keys", str(tmp_path / "keys")]
    assert main(["gateway", "keys", "add", "alice", *file, "--budget", "500"]) == 0
    secret = capsys.readouterr().out.strip()
    assert main(["gateway", "keys", "add", "bob", *file, "--at-once", "2"]) == 0
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
    assert secret not in (tmp_path / "keys").read_text()
    keys = ApiKeys(tmp_path / "keys")
    found = keys.find(secret)
    assert found is not None
    assert (found.name, found.budget) == ("alice", 500)
    capsys.readouterr()
    assert main(["gateway", "keys", "list", *file, "--json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["name"] for one in listed] == ["alice", "bob"]
    assert "sha256" not in listed[0]
    assert main(["gateway", "keys", "revoke", "alice", *file]) == 0
    keys.refresh()
    assert keys.find(secret) is None
    before = (tmp_path / "keys").read_bytes()
    for words in (["add", "bob"], ["add", "b/b"], ["revoke", "carol"]):
        assert main(["gateway", "keys", *words, *file]) == 2
        assert "config_invalid" in capsys.readouterr().err
    assert (tmp_path / "keys").read_bytes() == before


def test_a_keys_budgets_at_upstreams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ["--keys", str(tmp_path / "keys")]
    given = ["--upstream-budget", "afar=500", "--upstream-budget", "near=0"]
    assert main(["gateway", "keys", "add", "alice", *file, *given]) == 0
    assert read_keys(tmp_path / "keys")[0].upstream_budgets == {"afar": 500, "near": 0}
    capsys.readouterr()
    assert main(["gateway", "keys", "list", *file]) == 0
    assert "at afar 500, at near any" in capsys.readouterr().out
    before = (tmp_path / "keys").read_bytes()
    for wrong in ("afar", "=5", "afar=", "afar=-1", "afar=1.5", "afar=" + "9" * 30, "a b=1"):
        try:
            code = main(["gateway", "keys", "add", "bob", *file, "--upstream-budget", wrong])
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
        assert code == 2, wrong
        assert capsys.readouterr().err.strip()
    twice = ["--upstream-budget", "afar=1", "--upstream-budget", "afar=2"]
    assert main(["gateway", "keys", "add", "bob", *file, *twice]) == 2
    assert "names an upstream twice" in capsys.readouterr().err
    assert (tmp_path / "keys").read_bytes() == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "keys:2: not JSON"),
        ("[]", "keys:2: not an object"),
        ('{"name": "b", "sha256": "00"}', "keys:2: sha256"),
        ('{"name": "", "sha256": "%s"}' % ("0" * 64), "keys:2: a name"),
        ('{"name": "b", "sha256": "%s", "limit": 1}' % ("0" * 64), "keys:2: unknown limit"),
        ('{"name": "b", "sha256": "%s", "budget": -1}' % ("0" * 64), "keys:2: budget"),
        ('{"name": "a", "sha256": "%s"}' % ("1" * 64), "a is there twice"),
        ('{"name": "b", "sha256": "%s", "upstream_budgets": 1}' % ("0" * 64), "an object"),
        ('{"name": "b", "sha256": "%s", "upstream_budgets": {"u": 1.5}}' % ("0" * 64), "at u must"),
        (
            '{"name": "b", "sha256": "%s", "upstream_budgets": {"u v": 1}}' % ("0" * 64),
            "not a name",
        ),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    path.write_text('{{"name": "a", "sha256": "{}"}}\n{}\n'.format("0" * 64, line))
    with pytest.raises(AssayError, match="config_invalid") as refused:
        read_keys(path)
    assert said in str(refused.value)


def test_a_file_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    path.chmod(0o640)
    with pytest.raises(AssayError, match="key_permissions"):
        read_keys(path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({}, "give --coordinator"),
        ({"coordinator": WHERE, "listen": "8000"}, "HOST:PORT"),
        ({"coordinator": WHERE, "listen": "0.0.0.0:1"}, "can be reached by others"),
        ({"coordinator": WHERE, "requests": 0}, "requests must be in"),
        ({"coordinator": WHERE, "verify": "twice"}, "verify must be one of"),
        ({"coordinator": WHERE, "lissten": "x"}, "did you mean 'listen'"),
    ],
)
def test_settings_that_cannot_be(flags: dict[str, object], said: str) -> None:
    with pytest.raises(AssayError, match="config_invalid") as refused:
        load_settings(None, {}, flags)
    assert said in str(refused.value)


def test_settings_come_from_three_places(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f'coordinator = "{WHERE}"\nrequests = 3\nchoices = 4\n')
    environment = {"ASSAY_GATEWAY_CHOICES": "5", "ASSAY_GATEWAY_CORS_ORIGINS": "http://a"}
    found = load_settings(file, environment, {"listen": "[::1]:9"})
    assert (found.requests, found.choices, found.cors_origins) == (3, 5, ("http://a",))
    assert found.address == ("::1", 9)
    assert Settings(coordinator=WHERE, listen="0.0.0.0:1", open=True).address[1] == 1


def test_wrong_settings_end_with_two(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text("requets = 3\n")
    assert main(["gateway", "--config", str(config), "--coordinator", WHERE]) == 2
    said = capsys.readouterr().err
    assert f"{config}: unknown key 'requets'; did you mean 'requests'?" in said


def test_a_key_with_a_budget_at_no_upstream_keeps_a_gateway_from_starting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, routes = tmp_path / "keys", tmp_path / "routes.toml"
    add_key(keys, "alice", upstream_budgets={"afra": 5})
    routes.write_text('[upstream.afar]\nurl = "http://127.0.0.1:1/v1"\n')
    words = ["--coordinator", WHERE, "--data-dir", str(tmp_path / "data")]
    words += ["--keys", str(keys), "--routes", str(routes)]
    assert main(["gateway", *words]) == 2
    assert "alice has a budget at 'afra'" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        words = ["--coordinator", WHERE, "--data-dir", str(tmp_path), "--listen"]
        assert main(["gateway", *words, f"127.0.0.1:{port}"]) == 1
        assert "port_in_use" in capsys.readouterr().err


def test_a_reader_that_does_not_read_is_cut_off() -> None:
    with listening_socket("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                patience = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert patience == 60_000
