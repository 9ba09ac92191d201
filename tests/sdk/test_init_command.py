"""`assay init`: each role gets a configuration its own program reads, and a key."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from assay.cli import main
from assay.completion import script
from assay.gateway.settings import load_settings as load_gateway
from assay_coordinator.policy_file import policy_defaults, read_policy
from assay_network.config_files import as_toml, write_new
from assay_network.keystore import load_key
from assay_network.typed_settings import defaults_of
from assay_node.config import Settings, load_settings
from assay_protocol.errors import AssayError

CAPSYS = pytest.CaptureFixture[str]
COORDINATOR = "ab" * 32 + "@/ip4/127.0.0.1/tcp/4600"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a user of the moment."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("ASSAY_COORDINATOR", "ASSAY_KEY", "ASSAY_NODE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def told(capsys: CAPSYS) -> dict[str, str]:
    said = json.loads(capsys.readouterr().out)
    assert isinstance(said, dict)
    return said


def test_a_node_is_written_as_its_flags_say_and_its_program_reads_it(
    tmp_path: Path, capsys: CAPSYS
) -> None:
    argv = ["init", "node", "--json", "--coordinator", COORDINATOR, "--engine", "scripted"]
    argv += ["--listen", "/ip4/127.0.0.1/tcp/0", "--slots", "2", "--hours", "sat 08:00-09:00"]
    assert main(argv) == 0
    said = told(capsys)
    config = Path(said["config"])
    assert config == tmp_path / "XDG_CONFIG_HOME" / "assay" / "node.toml"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    settings = load_settings(config, {}, {})
    assert (settings.coordinator, settings.slots) == (COORDINATOR, 2)
    assert settings.hours == ("sat 08:00-09:00",)
    commented = [line for line in config.read_text().splitlines() if line.startswith("# fit = ")]
    assert commented == ['# fit = "shrink"']
    key = load_key(Path(said["key_file"]))
    assert main(argv) == 2, "the configuration is there"
    config.unlink()
    assert main(argv) == 0
    assert load_key(Path(said["key_file"])) == key, "a key is kept"


def test_what_a_node_would_refuse_is_not_written(tmp_path: Path, capsys: CAPSYS) -> None:
    config = tmp_path / "n.toml"
    assert main(["init", "node", "--config", str(config), "--hours", "nights"]) == 2
    assert "nights" in capsys.readouterr().err
    assert not config.exists()


def test_a_gateway_and_a_coordinator_read_theirs(tmp_path: Path, capsys: CAPSYS) -> None:
    gateway = tmp_path / "g.toml"
    where = f"/ip4/127.0.0.1/tcp/4600/p2p/{'x' * 10}"
    argv = ["init", "gateway", "--config", str(gateway), "--coordinator", where, "--requests", "9"]
    assert main(argv) == 0
    assert load_gateway(gateway, {}, {}).requests == 9
    load_key(Path(told(capsys)["key_file"]))
    assert main(argv) == 2
    capsys.readouterr()
    data = tmp_path / "coordinator"
    argv = ["init", "coordinator", "--data-dir", str(data), "--faucet", "7", "--json"]
    assert main(argv) == 0
    said = told(capsys)
    assert read_policy(Path(said["policy"])).faucet == 7
    load_key(data / "coordinator.key")
    assert main(argv) == 1
    assert "not overwritten" in capsys.readouterr().err


def test_a_client_sources_its_variables(tmp_path: Path, capsys: CAPSYS) -> None:
    assert main(["init", "client"]) == 1
    argv = ["init", "client", "--json", "--coordinator", COORDINATOR]
    assert main([*argv, "--key", str(tmp_path / "a b" / "my.key")]) == 0
    said = told(capsys)
    load_key(tmp_path / "a b" / "my.key")
    shell = f'. "{said["config"]}" && echo "$ASSAY_COORDINATOR $ASSAY_KEY"'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout == f"{COORDINATOR} {tmp_path / 'a b' / 'my.key'}\n"
    assert main(argv) == 1


def test_every_default_survives_being_written_and_read() -> None:
    for defaults in (defaults_of(Settings), policy_defaults()):
        written = tomllib.loads(as_toml(defaults, defaults, "head\nof two lines"))
        lists = {key: list(v) if isinstance(v, tuple) else v for key, v in defaults.items()}
        assert written == lists
    odd = {"text": 'quote " slash \\ tab \t bell \x07 delete \x7f é', "on": True}
    assert tomllib.loads(as_toml(odd, odd, "")) == odd


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AssayError) as caught:
        write_new(tmp_path / "file" / "x.toml", "")
    assert caught.value.code == "storage_failed"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"),
    [
        ("assay ", ["chat", "node", "init", "coordinator"], ["start"]),
        ("assay no", ["node"], ["chat"]),
        ("assay node ", ["start", "doctor", "service"], ["chat", "install"]),
        ("assay node service install --dr", ["--dry-run"], ["--config"]),
        ("assay node --x start --ho", ["--hours"], ["--card"]),
        ("assay coordinator in", ["init"], ["start"]),
        ("assay credit claim --pay", ["--payee"], ["--save"]),
        ("assay init ", ["client", "gateway"], ["chat"]),
    ],
)
def test_bash_completes_what_the_parsers_know(
    typed: str, offered: list[str], not_offered: list[str], tmp_path: Path, capsys: CAPSYS
) -> None:
    assert main(["completion", "bash"]) == 0
    file = tmp_path / "complete.bash"
    file.write_text(capsys.readouterr().out)
    words = typed.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _assay; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(
        ["bash", "-c", f". {file}; {ask}"], capture_output=True, text=True, check=True
    )
    found = done.stdout.split()
    assert [word for word in offered if word not in found] == []
    assert [word for word in not_offered if word in found] == []


def test_a_program_that_is_not_installed_is_completed_by_name() -> None:
    text = script("zsh", {"": None, "node": None})
    assert text.startswith("autoload -U +X compinit bashcompinit")
    assert '    "") echo "node" ;;' in text
