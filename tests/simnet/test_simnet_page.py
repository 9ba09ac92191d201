"""docs/simnet.md says what the code reads."""

from __future__ import annotations

from assay_simnet.reference import reference
from assay_simnet.scenario import INVARIANTS, read
from assay_simnet.schema import Source
from tidy_rules import ROOT

PAGE = (ROOT / "docs" / "simnet.md").read_text()


def test_the_reference_is_the_codes() -> None:
    assert reference() in PAGE, "python -m assay_simnet.reference"


def test_every_checked_invariant_is_explained() -> None:
    rows = PAGE.split("| id | how it is seen from outside |")[1].split("## ")[0]
    named = [ident for row in rows.splitlines() for ident in row.split("|")[1:2]]
    listed = {ident.strip() for cell in named for ident in cell.split(",")}
    assert set(INVARIANTS) <= listed


def test_the_example_can_be_read() -> None:
    text = PAGE.split("```toml\n")[1].split("```")[0]
    found = read(Source("page", text))
    assert found.question.endswith("?")
    assert found.adversaries[0].behaviour == "prompt_drop"
