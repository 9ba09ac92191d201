"""What docs/adversaries.md says of an adversary, held to what its trial shows."""

from __future__ import annotations

from assay_simnet.adversaries import ADVERSARIES
from assay_simnet.trials import Result
from tidy_rules import ROOT

PAGE = ROOT / "docs" / "adversaries.md"


def seen(name: str) -> Result:
    """Run the trial; the committed page must have its very line."""
    adversary = ADVERSARIES[name]
    result = adversary.run()
    assert adversary.line(result) in PAGE.read_text().splitlines(), "run `make adversaries`"
    return result
