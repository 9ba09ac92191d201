"""Event logs, where two runs part, and the trace for a browser."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from assay_simnet.cli import main
from assay_simnet.results import packed_rows
from simnet.scenario_texts import TINY


@pytest.fixture
def runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Path, Path]:
    """Two runs of one seed, and one of another."""
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    made = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = tmp_path / name
        command = ["run", str(file), "--seed", seed, "--out", str(out), "--events", "--trace"]
        assert main(command) == 0
        made.append(out)
    capsys.readouterr()
    return made[0], made[1], made[2]


def test_listening_changes_nothing_and_every_event_is_there(
    runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = tmp_path / "quiet"
    assert main(["run", str(tmp_path / "tiny.toml"), "--out", str(quiet)]) == 0
    digests = [
        json.loads((folder / "manifest.json").read_text())["trace_digest"]
        for folder in (quiet, runs[0])
    ]
    assert digests[0] == digests[1]
    assert not (quiet / "events.csv.gz").exists()
    assert not (quiet / "trace.json").exists()
    rows = list(packed_rows(runs[0] / "events.csv.gz"))
    assert len(rows) > 20
    assert {"Register", "Registered"} <= {row["message"] for row in rows}
    times = [int(row["at_us"]) for row in rows]
    assert times == sorted(times)


def test_runs_of_one_seed_do_not_part(
    runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, _ = runs
    assert (a / "events.csv.gz").read_bytes() == (b / "events.csv.gz").read_bytes()
    assert main(["diff", str(a), str(b)]) == 0
    assert capsys.readouterr().out.endswith(" events, all the same\n")


def test_the_first_event_that_differs_is_shown_with_what_came_before(
    runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, _, c = runs
    assert main(["diff", str(a), str(c)]) == 1
    assert capsys.readouterr().out.startswith("seed: A 1, B 2\nevent 1 is the first")
    lines = _text(a).splitlines(keepends=True)
    cells = lines[7].split(",")
    cells[0] = str(int(cells[0]) + 1)
    _rewrite(c, "".join([*lines[:7], ",".join(cells), *lines[8:]]))
    assert main(["diff", str(a), str(c)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[1] == "event 7 is the first that differs (line 8)"
    assert [line.split()[0] for line in told[2:]] == ["both"] * 5 + ["A", "B"]
    assert told[-1] != told[-2]


def test_one_run_may_end_before_the_other(
    runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, _ = runs
    _rewrite(b, "".join(_text(a).splitlines(keepends=True)[:10]))
    assert main(["diff", str(a), str(b)]) == 1
    told = capsys.readouterr().out
    assert "event 10 is the first" in told
    assert told.endswith("B     (no more events)\n")


def test_logs_that_are_missing_or_cut_short_are_exit_code_two(
    runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, c = runs
    (c / "events.csv.gz").unlink()
    assert main(["diff", str(a), str(c)]) == 2
    assert "simnet run --events writes it" in capsys.readouterr().err
    whole = (b / "events.csv.gz").read_bytes()
    (b / "events.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert main(["diff", str(a), str(b)]) == 2
    assert "cut short or damaged" in capsys.readouterr().err
    _rewrite(b, _text(a) + "1,2\n")
    assert main(["diff", str(a), str(b)]) == 2
    assert f"{_text(a).count(chr(10)) + 1}: 2 of 6 columns" in capsys.readouterr().err
    (b / "manifest.json").write_text("[]")
    assert main(["diff", str(a), str(b)]) == 2


def test_the_trace_has_every_job_from_its_question_to_its_end(
    runs: tuple[Path, Path, Path],
) -> None:
    events = json.loads((runs[0] / "trace.json").read_text())
    jobs = list(packed_rows(runs[0] / "jobs.csv.gz"))
    spans: dict[str, dict[str, int]] = {}
    for event in events:
        if event["ph"] in "be":
            spans.setdefault(event["id"], {})[event["ph"]] = event["ts"]
    assert all(one["b"] <= one["e"] for one in spans.values())
    told = [span for ident, span in spans.items() if ident.endswith(".job")]
    lasted = sorted(int(job["ended_us"]) - int(job["begun_us"]) for job in jobs)
    assert sorted(span["e"] - span["b"] for span in told) == lasted
    assert {"warm-up", "safety", "heal"} <= {event["name"] for event in events}
    assert any(event["name"] == "epoch_closed" for event in events)
    assert {event["tid"] for event in events if event["name"] == "thread_name"} == {1, 2, 3}


def _text(folder: Path) -> str:
    with gzip.open(folder / "events.csv.gz", "rt", newline="") as lines:
        return lines.read()


def _rewrite(folder: Path, text: str) -> None:
    with gzip.open(folder / "events.csv.gz", "wt", newline="") as lines:
        lines.write(text)
