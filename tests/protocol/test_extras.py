"""A missing extra is named; a missing module of ours is a bug and stays one."""

from __future__ import annotations

import pytest

from assay_protocol.extras import EXIT_MISSING, report_missing


def test_the_extra_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    error = ModuleNotFoundError("no", name="trio.abc")
    assert report_missing("coordinator", "coordinator", error) == EXIT_MISSING
    assert "'trio': pip install 'assay-network[coordinator]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["assay_node.core", "assay.cli", None])
def test_our_own_modules_are_never_excused(name: str | None) -> None:
    with pytest.raises(ModuleNotFoundError):
        report_missing("node", "node", ModuleNotFoundError("no", name=name))
