"""Kinds of faults that cut a step in two: what they leave, and that they find bugs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from assay_node.core.effects import SaveReceipt
from assay_simnet.cli import main
from assay_simnet.drivers.disk import Disk
from assay_simnet.drivers.fast import Fast
from simnet.planted_bugs import Patch, forgets_rounds, gives_up, posts_again, starts_empty
from simnet.scenario_texts import SMALL, ran, scenario

LONG = SMALL.replace('"40 s"', '"3 min"')
REORG = """[chain]
confirmations = 6
[[fault]]
kind = "chain_reorg"
at = "70 s"
every = "13 s"
depth = 4
fraction = 0.3
"""
COMMIT = """[coordinator]
round = "8 s"
[[fault]]
kind = "commit_crash"
at = "20 s"
for = "5 s"
every = "17 s"
"""
TORN = '[[fault]]\nkind = "torn_disk"\nat = "5 s"\nfor = "9 s"\nevery = "20 s"\nfraction = 0.5\n'
CLOG = '[[fault]]\nkind = "clog"\nat = "5 s"\nfor = "28 s"\nevery = "40 s"\nfraction = 0.7\n'


@pytest.mark.parametrize(
    "more", [REORG, COMMIT, TORN, CLOG], ids=["reorg", "commit", "torn", "clog"]
)
def test_everything_ends_and_adds_up_all_the_same(more: str) -> None:
    world = ran(more, text=LONG)
    assert world.faults_happened >= 3
    assert world.summary()["jobs"]["by_finish"]["length"] > 100
    assert ran(more, text=LONG).history.digest == world.history.digest


@pytest.mark.parametrize(
    ("more", "plant", "ident"),
    [
        (REORG, posts_again, "L5"),
        (COMMIT, forgets_rounds, "P1"),
        (TORN, starts_empty, "D1"),
        (CLOG, gives_up, "D1"),
    ],
    ids=["reorg", "commit", "torn", "clog"],
)
def test_a_bug_that_only_such_a_fault_shows_is_found_and_replayed(
    more: str,
    plant: Patch,
    ident: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant(monkeypatch)
    calm, rough = tmp_path / "calm.toml", tmp_path / "rough.toml"
    calm.write_text(LONG)
    rough.write_text(LONG + more)
    assert main(["check", str(calm), "--seeds", "0..2"]) == 0, "without it nothing is seen"
    capsys.readouterr()
    assert main(["check", str(rough), "--seeds", "0..199"]) == 1
    told = capsys.readouterr().out
    again = re.search(r"^simnet (replay .*)$", told, re.MULTILINE)
    found = re.search(r"^(\w+) does not hold at .*$", told, re.MULTILINE)
    assert again is not None
    assert found is not None
    assert found[1] == ident, found[0]
    assert main(again[1].split()) == 1
    assert found[0] in capsys.readouterr().out


def test_crashes_that_meet_are_crashes_all_the_same() -> None:
    """A coordinator that dies while it is to die in its next commit, and is told twice to start."""
    at = 'at = "20 s"\nevery = "30 s"\n'
    both = "".join(
        f'[[fault]]\nkind = "{kind}"\nfor = "{lasts} s"\n{at}'
        for kind, lasts in (("commit_crash", 6), ("coordinator_crash", 3), ("commit_crash", 9))
    )
    world = ran(both, text=LONG)
    assert world.coordinator.starts >= 5
    assert world.record.begun == world.record.over


@pytest.mark.parametrize(("torn", "kept"), [(None, True), (True, True), (False, False)])
def test_a_commit_is_on_disk_as_a_whole_or_not_at_all(torn: bool | None, kept: bool) -> None:
    disk, receipt = Disk(torn=torn), SaveReceipt(bytes(16), b"receipt", None, b"ticket")
    assert disk.commit(receipt, 0, 10) == (torn is None)
    assert bool(disk.owed) == bool(disk.used) == kept
    assert disk.commit(receipt, 0, 10), "the power fails once"


def test_a_power_cut_with_nothing_to_commit_is_none() -> None:
    world = Fast(scenario(), 1)
    node = world.nodes[0]
    node.start()
    node.tear(keeps=True)
    node.mend()
    assert node.up
    assert node.disk.torn is None
