"""`assay governance` from the command line: what is told, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay import governance_command
from assay.cli import main
from assay_contracts.deploy.deployment_record import Record
from assay_contracts.deploy.ledger import CreditLedgerClient
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_network.keystore import load_or_create_key

KEY = poster_key(bytes(range(32)))
MODEL = "4d" * 32


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A chain file and the address of Governance on it, and beside it the record."""
    folder = tmp_path_factory.mktemp("governance")
    path = folder / "chain.db"
    with LocalChain.open(path, genesis=Genesis(address_of(KEY))) as local:
        client = CreditLedgerClient(local, KEY)
        address = client.deploy().contracts["Governance"]
        (folder / "record.json").write_text(Record(client.plan).encode())
    load_or_create_key(folder / "voter.key")
    return path, f"0x{address.hex()}"


def run(deployed: tuple[Path, str], *words: str) -> int:
    path, address = deployed
    return main(["governance", *words, "--chain", str(path), "--governance", address])


def test_nothing_was_proposed_yet(
    deployed: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(deployed, "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"proposals": []}
    assert run(deployed, "list") == 0
    assert "nothing" in capsys.readouterr().out


def test_the_record_says_where_it_is(
    deployed: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = deployed
    record = str(path.with_name("record.json"))
    assert main(["governance", "list", "--json", "--chain", str(path), "--record", record]) == 0
    assert json.loads(capsys.readouterr().out) == {"proposals": []}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "1"), "no proposal 1"),
        (("execute", "1", "--key", "KEY"), "no proposal 1"),
        (("vote", "1", "for", "--key", "KEY"), "assay credit claim"),
        (("propose", "--deny", MODEL, "--key", "KEY"), "assay credit claim"),
    ],
)
def test_what_cannot_be_done_has_a_reason(
    deployed: tuple[Path, str],
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    key = str(deployed[0].with_name("voter.key"))
    assert run(deployed, *(key if word == "KEY" else word for word in words)) == 1
    assert said in capsys.readouterr().err


def test_another_contract_is_no_governance(
    deployed: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = deployed
    assert main(["governance", "list", "--chain", str(path), "--governance", "0x" + "11" * 20]) == 1
    assert main(["governance", "list", "--chain", str(path)]) == 1
    assert "--record" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [(), ("vote", "1", "maybe"), ("show", "x"), ("propose", "--open")]
)
def test_a_wrong_command_line_exits_with_2(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        governance_command.main(list(words))
    assert caught.value.code == 2


def test_wishes_are_read_from_words() -> None:
    account = "aa" * 32
    words = ["propose", "--chain", "x", "--key", "k", "--allow", MODEL, "--closed"]
    words += ["--split", f"{MODEL}={account}:publisher:500", "--split", f"{MODEL}={account}:data:1"]
    words += ["--no-split", "bb" * 32, "--min-bond", "5", "--no-moderation", "3"]
    wish = governance_command.wish_of(governance_command.parser().parse_args(words))
    assert wish.allow == (bytes.fromhex(MODEL),)
    assert (wish.open, wish.min_bond, wish.moderation) == (False, 5, (bytes(32), 3))
    shares = wish.splits[bytes.fromhex(MODEL)]
    assert [(one.role, one.bps) for one in shares] == [(1, 500), (3, 1)]
    assert wish.splits[b"\xbb" * 32] == ()
