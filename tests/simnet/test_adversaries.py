"""The suite is whole: every adversary has its test and its line, every behaviour its adversary."""

from __future__ import annotations

import re

from adversary_page import PAGE
from assay_simnet.adversaries import ADVERSARIES, HEAD
from assay_simnet.behaviours import answers, auditors, draws, prompts, weights, words
from assay_simnet.behaviours.behaviour import Behaviour
from tidy_rules import ROOT

TESTS = ROOT / "tests" / "adversaries"


def test_every_adversary_has_a_test_of_its_name() -> None:
    assert {f"test_{name}" for name in ADVERSARIES} == {path.stem for path in TESTS.glob("test_*")}
    for name in ADVERSARIES:
        assert f'seen("{name}")' in (TESTS / f"test_{name}.py").read_text()


def test_the_page_has_one_line_for_each() -> None:
    page = PAGE.read_text()
    assert page.startswith(HEAD)
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(ADVERSARIES)


def test_every_behaviour_is_an_adversarys() -> None:
    modules = (answers, auditors, draws, prompts, weights, words)
    found = {
        thing.name: thing
        for module in modules
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, Behaviour) and thing is not Behaviour
    }
    assert len(found) > 30
    assert set(found) <= set(ADVERSARIES)
    assert all(found[name].does == ADVERSARIES[name].does for name in found)
    assert all(0.0 <= found[name].saves <= 1.0 for name in found)
