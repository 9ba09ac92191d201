import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from assay import cli, contracts_command
from assay_contracts.adapters.embedded_chain import EmbeddedChain
from assay_contracts.credit.ledger_abi import Header
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.deploy.plan import DAY, PUBLIC
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_network.keystore import load_or_create_key
from assay_protocol.signing import Identity

ACCOUNT = bytes([0xAC]) * 32
NOW = 1_800_000_000


class Place:
    """A chain that takes transactions as one behind a URL would, and a key file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder / "some.key"
        self.seed = load_or_create_key(self.key)
        self.now = NOW
        self.poster = address_of(poster_key(self.seed))

    def open(self) -> LocalChain:
        genesis = Genesis(self.poster)
        return LocalChain.open(self.folder / "chain", genesis=genesis, clock=lambda: self.now)

    def run(self, verb: str, *options: str) -> int:
        records = str(self.folder / "records")
        told = ["contracts", verb, "--chain", "http://node", "--records", records, *options]
        return cli.main(told)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)

    @asynccontextmanager
    async def opened(where: str) -> AsyncIterator[EmbeddedChain]:
        assert where == "http://node"
        chain = EmbeddedChain(made.open())
        try:
            yield chain
        finally:
            await chain.aclose()

    monkeypatch.setattr(contracts_command, "opened_chain", opened)
    return made


def test_deploy_again_only_verifies(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    key = ("--key", str(place.key))
    chosen = ("--set", "window=90000", "--set", "demand_seconds=3600")
    assert place.run("deploy", *key, *chosen, "--json") == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["ok"]
    assert len(told["contracts"]) == 8
    assert err.count("creating") == 8
    record = json.loads((place.folder / "records" / "42330.json").read_text())
    assert record["parameters"]["window"] == 90_000
    assert record["parameters"]["probation"] == PUBLIC.probation
    assert record["poster_key"] == "0x" + Identity(place.seed).public_key.hex()
    assert place.run("deploy", *key) == 0
    out, err = capsys.readouterr()
    assert "the deployment holds" in out
    assert err == ""
    assert place.run("verify") == 0
    assert place.run("deploy", *key, "--set", "window=1") == 1
    assert "leave out the choices" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ("--set", "windw=1"),
        ("--set", "window=-1"),
        ("--set", "window"),
        ("--set", "window=1"),
        ("--set", "quorum_bps=10001"),
        ("--set", "min_bond=0"),
        ("--set", "draw_delay=256"),
        ("--set", "models_open=2"),
        ("--set", "court_reporter_bps=10000"),
        ("--set", f"unbonding={DAY}"),
        ("--poster", "0x12"),
        ("--account", "zz"),
        ("--account", "00"),
    ],
)
def test_what_cannot_be_deployed_is_told(
    place: Place, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.run("deploy", "--key", str(place.key), *options) == 1
    assert capsys.readouterr().err.startswith("assay: ")
    assert not (place.folder / "records").exists()


def test_verify_names_what_differs(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("verify") == 1
    assert "there is no record" in capsys.readouterr().err
    assert place.run("deploy", "--key", str(place.key)) == 0
    path = place.folder / "records" / "42330.json"
    record = json.loads(path.read_text())
    record["parameters"]["quorum_bps"] += 1
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert place.run("verify") == 1
    out = capsys.readouterr().out
    assert "Governance: immutables: not as recorded: quorumBps" in out
    assert "the deployment DOES NOT HOLD" in out
    path.write_text("{}")
    assert place.run("verify", "--json") == 1


def test_a_local_chain_is_verified_without_a_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(tmp_path)
    with place.open() as chain:
        CreditLedgerClient(chain, poster_key(place.seed), ACCOUNT).deploy()

    def verify(account: bytes, *options: str) -> int:
        who = ("--deployer", "0x" + place.poster.hex(), "--account", account.hex())
        where = ("--chain", str(tmp_path / "chain"))
        return cli.main(["contracts", "verify", *where, *who, *options])

    assert verify(ACCOUNT) == 0
    capsys.readouterr()
    assert verify(bytes(32), "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert [s["name"] for s in told["steps"] if not s["ok"]] == ["CreditLedger: immutables"]


def test_upgrade_says_what_governance_has_to_pass(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ("--key", str(place.key))
    assert place.run("upgrade", *key) == 1
    assert place.run("deploy", *key) == 0
    assert place.run("upgrade", *key) == 1
    assert "no epoch is final yet" in capsys.readouterr().err
    with place.open() as chain:
        account = Identity(place.seed).public_key
        ledger = CreditLedgerClient(chain, poster_key(place.seed), account, PUBLIC)
        ledger.post(1, Header(bytes([7]) * 32, 5, 1, 1, bytes(32), bytes(32)))
        token = ledger.plan.addresses["CreditToken"]
    place.now += PUBLIC.window + 60
    assert place.run("upgrade", *key, "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["targets"] == [token.hex()]
    assert told["payloads"][0].endswith(told["ledger"])
    assert place.run("upgrade", *key) == 0
    assert f"0x{told['ledger']}" in capsys.readouterr().out
    assert place.run("verify") == 0


def test_a_key_that_is_not_there_is_told(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("deploy", "--key", str(place.folder / "none")) == 1
    assert "No such file" in capsys.readouterr().err
