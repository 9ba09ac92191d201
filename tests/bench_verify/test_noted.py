"""The recorded table: as it was written, small, and honest in what it says of honest nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calibrating import noise
from noted import RECORDED, Noted, read_table, write_table

BYTES_MAX = 300_000


def _noted(jobs: int) -> Noted:
    draw = np.random.default_rng(jobs)
    return Noted(
        gaps=draw.integers(0, 256, (jobs, 96), np.uint8),
        wrong=draw.random((jobs, 96)) < 0.1,
        distances=draw.normal(0.13, 0.01, (jobs, 6)),
        behind=draw.random(jobs),
    )


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    table = {"a > b": _noted(5), "cheat": _noted(3)}
    write_table(path, table)
    found = read_table(path)
    assert sorted(found) == ["a > b", "cheat"]
    for name, one in table.items():
        assert (found[name].gaps == one.gaps).all()
        assert (found[name].wrong == one.wrong).all()
        assert np.allclose(found[name].distances, one.distances, rtol=1e-3)
        assert np.allclose(found[name].behind, one.behind, atol=1e-3)


def test_the_recorded_table_is_small_and_has_several_pairs() -> None:
    assert RECORDED.stat().st_size < BYTES_MAX
    table = read_table()
    pairs = [name for name in table if " > " in name]
    assert len(pairs) >= 4
    assert len(table) > len(pairs), "no cheats are in it"


def test_recorded_honest_answers_speak_for_their_nodes() -> None:
    table = read_table()
    honest = table["flash > plain"]
    fitted = noise(honest)
    total = sum(sum(honest.ratios(fitted, job)) for job in range(honest.jobs))
    assert total < 0
    assert not any(honest.hard(job) for job in range(honest.jobs))
