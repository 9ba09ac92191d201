"""Two runs side by side: what counts as equal, what as near, and what cannot be compared."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_simnet.cli import main
from assay_simnet.compare import compare, read_run
from assay_simnet.compare_report import as_json, as_markdown
from assay_simnet.schema import ScenarioError
from simnet.scenario_texts import TINY

JOBS = (
    *("begun_us", "client", "behaviour", "n_in", "n_out", "tokens", "first_us", "ended_us"),
    *("attempts", "finish", "code", "nodes"),
)
Job = tuple[int, int, int, int]  # client, tokens, time to the first one and of each further one


def a_run(
    folder: Path,
    jobs: Sequence[Job] = ((4, 10, 100, 10), (4, 20, 110, 12), (5, 30, 120, 11)),
    *,
    level: str = "fast",
    seed: int = 1,
    accounts: Sequence[tuple[str, int, str, int]] = (
        *(("client", 4, "charged", 30), ("client", 5, "charged", 30)),
        *(("node", 1, "compute", 54), ("network", 0, "treasury", 6)),
    ),
    **parameters: Any,
) -> Path:
    """A made-up run's folder. Times in milliseconds."""
    folder.mkdir(parents=True)
    known = {"name": "made up", "level": level, "workload": {"rate": 1.0}, **parameters}
    manifest = {"status": "done", "seed": seed, "parameters": known}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    rows = []
    for place, (client, tokens, ttft, tpot) in enumerate(jobs):
        first = 1_000 * (1_000 * place + ttft)
        ended = first + 1_000 * tpot * (tokens - 1)
        row = (1_000_000 * place, client, "", 7, tokens, tokens, first, ended, 1, "length", "", 1)
        rows.append(row)
    _table(folder, "jobs", JOBS, rows)
    _table(folder, "accounts", ("who", "number", "what", "amount"), accounts)
    _table(folder, "epochs", ("epoch", "closed_us", "root"), [(1, 5, "ab"), (2, 9, "cd")])
    return folder


def _table(folder: Path, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with gzip.open(folder / f"{name}.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def test_a_run_agrees_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = a_run(tmp_path / "a"), a_run(tmp_path / "b", level="live", tick=5)
    assert main(["compare", str(a), str(b)]) == 0
    told = capsys.readouterr().out
    assert "fast against live" in told
    assert "Ledger exact" in told
    assert "3 jobs matched, 3 of them answered by the same nodes" in told


def test_latencies_outside_the_tolerance_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slower = [(4, 10, 112, 10), (4, 20, 124, 12), (5, 30, 134, 11)]
    a, b = a_run(tmp_path / "a", slower), a_run(tmp_path / "b")
    assert main(["compare", str(a), str(b), "--tolerance", "15%"]) == 0
    assert main(["compare", str(a), str(b), "--json"]) == 1
    lines = capsys.readouterr().out.splitlines()
    told = json.loads(lines[-1])
    assert (told["within"], told["ledger_exact"]) == (False, True)
    assert told["latency"]["ttft_p50"] == {"a_s": 0.124, "b_s": 0.11, "off": 0.1273, "judged": True}
    assert told["latency"]["tpot_p50"]["off"] == 0.0


def test_the_first_line_that_differs_is_named(tmp_path: Path) -> None:
    other = [(4, 10, 100, 10), (4, 21, 110, 12), (5, 30, 120, 11), (5, 1, 1, 1)]
    seen = compare(a_run(tmp_path / "a", other), a_run(tmp_path / "b"), 0.1)
    assert not seen.exact
    assert seen.differs == (
        "job 2 of client 4: 7 tokens asked, 21 answered, length"
        " | 7 tokens asked, 20 answered, length",
        "job 2 of client 5: only in the first run",
    )
    assert "Ledger differs in 2 lines; the first:\n- job 2 of client 4" in as_markdown(seen)


def test_who_earned_it_may_differ_and_the_sums_may_not(tmp_path: Path) -> None:
    moved = [("client", 4, "charged", 30), ("client", 5, "charged", 30), ("node", 1, "compute", 4)]
    moved += [("node", 2, "compute", 50), ("network", 0, "treasury", 6)]
    seen = compare(a_run(tmp_path / "a", accounts=moved), a_run(tmp_path / "b"), 0.1)
    assert seen.exact
    assert seen.by_node == ((1, "compute", 4, 54), (2, "compute", 50, 0))
    lost = [row if row[1] != 2 else (*row[:3], 49) for row in moved]
    seen = compare(a_run(tmp_path / "c", accounts=lost), tmp_path / "b", 0.1)
    assert seen.differs == ("compute in all: 53 | 54",)
    charged = [("client", 4, "charged", 29), ("client", 5, "charged", 31), *moved[2:]]
    seen = compare(a_run(tmp_path / "d", accounts=charged), tmp_path / "b", 0.1)
    assert seen.differs == ("client 4 charged: 29 | 30", "client 5 charged: 31 | 30")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 2}, "seeds differ: 2 in .*a, 1 in .*b"),
        ({"workload": {"rate": 2.0}}, "scenarios differ: workload.rate is 2.0 in .*, 1.0 in"),
        ({"network": {"latency": "2000"}}, "scenarios differ: network.latency"),
    ],
)
def test_other_scenarios_are_not_compared(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    a = a_run(tmp_path / "a", **change)
    with pytest.raises(ScenarioError, match=said):
        compare(a, a_run(tmp_path / "b"), 0.1)


def test_what_a_real_machine_is_like_may_differ_but_its_slots_may_not(tmp_path: Path) -> None:
    fast = {"network": {"latency": "2000"}, "profiles": {"cpu": {"slots": 4, "decode_tps": 9.0}}}
    real = {"network": {"latency": "1000"}, "profiles": {"cpu": {"slots": 4, "decode_tps": 8.0}}}
    a, b = a_run(tmp_path / "a", **fast), a_run(tmp_path / "b", level="real", **real)
    assert compare(a, b, 0.1).exact
    real["profiles"]["cpu"]["slots"] = 2  # type: ignore[index]
    with pytest.raises(ScenarioError, match=r"profiles.cpu.slots is 4 in .*, 2 in"):
        compare(a, a_run(tmp_path / "c", level="real", **real), 0.1)


def test_a_folder_that_is_no_whole_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    b = a_run(tmp_path / "b")
    assert main(["compare", str(tmp_path), str(b)]) == 2
    assert "manifest.json" in capsys.readouterr().err
    a = a_run(tmp_path / "a")
    manifest = a / "manifest.json"
    manifest.write_text(manifest.read_text().replace("done", "interrupted"))
    assert main(["compare", str(a), str(b)]) == 2
    assert "a run that was interrupted; one that is done is wanted" in capsys.readouterr().err
    c = a_run(tmp_path / "c")
    (c / "accounts.csv.gz").unlink()
    assert main(["compare", str(c), str(b)]) == 2
    assert "accounts.csv.gz: not there" in capsys.readouterr().err
    d = a_run(tmp_path / "d")
    packed = (d / "jobs.csv.gz").read_bytes()
    (d / "jobs.csv.gz").write_bytes(packed[:-9])
    assert main(["compare", str(d), str(b)]) == 2
    assert "cut short or damaged" in capsys.readouterr().err
    assert main(["compare", str(b), str(b), "--tolerance", "tenth"]) == 2
    assert "--tolerance: 'tenth'" in capsys.readouterr().err


def test_two_ticks_of_one_scenario_keep_the_same_books(tmp_path: Path) -> None:
    for tick in ("1 ms", "4 ms"):
        text = TINY.replace('name = "tiny"', f'name = "tiny"\ntick = "{tick}"')
        file = tmp_path / f"{tick[0]}.toml"
        file.write_text(text)
        assert main(["run", str(file), "--out", str(tmp_path / tick[0])]) == 0
    seen = compare(tmp_path / "1", tmp_path / "4", 0.5)
    assert not any("job" in line or "charged" in line for line in seen.differs)
    run = read_run(tmp_path / "1")
    manifest = json.loads((tmp_path / "1" / "summary.json").read_text())
    assert as_json(seen)["latency"]["ttft_p50"]["a_s"] == manifest["latency"]["ttft_s"]["p50"]
    sums = run.sums()
    assert sums["charged"] > 0
    undecided = sums.get("escrow", 0)
    credited = sums.get("compute", 0) + sums.get("auditor", 0)
    assert sums["charged"] == credited + undecided + sums["treasury"]  # nothing is lost


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), min_size=1))
def test_scaled_latencies_are_off_by_the_scale(
    tmp_path_factory: pytest.TempPathFactory, jobs: list[tuple[int, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("scaled")
    given = [(client, 2, 100 * ttft, 100 * tpot) for client, ttft, tpot in jobs]
    b = a_run(folder / "b", given)
    a = a_run(folder / "a", [(one[0], 2, one[2] * 2, one[3] * 2) for one in given])
    seen = compare(a, b, 1.0)
    assert {round(figure.off, 9) for figure in seen.figures} == {1.0}
    assert set(seen.paired.values()) == {2.0}
    assert seen.within
    assert not replace(seen, tolerance=0.99).within
