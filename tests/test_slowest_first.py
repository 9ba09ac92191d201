"""The order in which files are begun."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from slowest_first import FILES, TESTS, in_order


@dataclass(frozen=True)
class Named:
    """All that is looked at of a test."""

    path: Path
    number: int


def test_every_file_named_is_there_and_named_once() -> None:
    assert [name for name in FILES if not (TESTS / name).is_file()] == []
    assert len(set(FILES)) == len(FILES)


def test_long_files_are_begun_first_and_a_file_keeps_its_order() -> None:
    given = [
        Named(TESTS / name, number) for name in ("a.py", FILES[1], FILES[0]) for number in (2, 1)
    ]
    found = in_order(cast(list[pytest.Item], given))
    assert found == [*given[4:], *given[2:4], *given[:2]]
