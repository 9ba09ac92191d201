"""Every command of every program takes --json, so that scripts need not know which do."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.cli import main
from assay.gateway.command import keys_parser
from assay_coordinator.cli import main as coordinator
from assay_node.cli import main as node

PROGRAMS = (
    "assay.cli",
    "assay_node.cli",
    "assay_coordinator.cli",
    "assay.gateway.command",
    "assay.governance_command",
    "assay.contracts_command",
    "assay_contracts.follow.chain_command",
    "assay.init_command",
    "assay.top.command",
)
# What they print is a script for a shell; or another program's, whose own `init` takes it.
WITHOUT = {"assay completion", "assay init node", "assay init coordinator", "assay init gateway"}


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command that runs, with its whole name."""
    below = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not below:
        yield parser.prog, parser
    for group in below:
        for one in group.choices.values():
            yield from commands(one)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_takes_json(program: str) -> None:
    parsers = [importlib.import_module(program).parser()]
    if program == "assay.gateway.command":
        parsers.append(keys_parser())
    found = [one for parser in parsers for one in commands(parser)]
    lacking = {name for name, one in found if "--json" not in one._option_string_actions}
    assert lacking <= WITHOUT
    assert found


def test_what_they_print_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed() -> dict[str, object]:
        told = json.loads(capsys.readouterr().out)
        assert isinstance(told, dict)
        return told

    data = ["--data-dir", str(tmp_path / "coordinator"), "--json"]
    assert coordinator(["keys", *data]) == 0
    assert len(str(printed()["key"])) == 64
    keys = ["--keys", str(tmp_path / "keys"), "--json"]
    assert main(["gateway", "keys", "add", "alice", "--owner", *keys]) == 0
    assert str(printed()["key"]).startswith("assay-")
    assert main(["gateway", "keys", "list", *keys]) == 0
    assert printed()["owner"] is True
    assert main(["gateway", "keys", "revoke", "alice", *keys]) == 0
    assert printed() == {"name": "alice", "revoked": True}
    assert node(["models", "card", "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_a_coordinator_starts_without_a_collector_and_refuses_what_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = importlib.import_module("assay_coordinator.cli").parser()
    assert parser.parse_args(["start"]).otlp is None
    with pytest.raises(SystemExit) as error:
        parser.parse_args(["start", "--otlp", "nowhere"])
    assert error.value.code == 2
    assert "must be http(s)://HOST[:PORT]" in capsys.readouterr().err
