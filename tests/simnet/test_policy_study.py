"""The table that sets our rules beside others': its form, and one small case's figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay_simnet.audit_policies import SCHEMES
from assay_simnet.cli import main
from assay_simnet.policy_study import HEAD, Row, Told, markdown

CASE = """# Who is stopped?
schema = 1
name = "case"
duration = "60 s"
warm_up = "5 s"
[population]
nodes = 5
[workload]
rate = "1 / s"
clients = 3
[[adversary]]
behaviour = "lazy"
count = 2
"""


@pytest.fixture
def case(tmp_path: Path) -> str:
    path = tmp_path / "case.toml"
    path.write_text(CASE)
    return str(path)


def _told(**changes: object) -> Told:
    known: dict[str, object] = {
        **{"scenario": "case", "rules": "boinc", "cheated": 4, "paid": 1, "cheats": 2},
        **{"cheats_net": 30, "cheats_jobs": 10, "honest_pay": 300, "honest_jobs": 20},
        **{"waits_s": (10.0, None), "jobs": 40, "audits": 10, "compute": 0.25},
        "false_convictions": 0,
    }
    return Told(**{**known, **changes})  # type: ignore[arg-type]


def test_figures_add_up_over_the_seeds() -> None:
    row = Row("case", "boinc", [_told(), _told(cheated=2, paid=2, waits_s=(30.0, 20.0))])
    figures = row.figures()
    assert (figures["cheated"], figures["paid_share"]) == (6, 0.625)
    assert figures["paid_share_half"] == pytest.approx(12.706 * 0.375, abs=1e-3)
    assert (figures["cheat_pay"], figures["honest_pay"], figures["net_a_cheat"]) == (3, 15, 15)
    assert (figures["stopped"], figures["cheated_ever"], figures["stop_s"]) == (3, 4, 25.0)
    assert (figures["audits_a_job"], figures["compute_share"]) == (0.25, 0.25)


def test_where_half_were_never_stopped_the_median_is_never() -> None:
    assert Row("case", "boinc", [_told()]).figures()["stop_s"] is None
    nobody = Row("case", "gonka", [_told(cheated=0, paid=0, waits_s=(), cheats_jobs=0)]).figures()
    assert (nobody["paid_share"], nobody["cheat_pay"], nobody["stop_s"]) == (None, None, None)
    cells = markdown([Row("case", "boinc", [_told()]).figures(), nobody]).splitlines()
    assert cells[0] == "| " + " | ".join(HEAD) + " |"
    assert cells[2].startswith("| case | boinc | 4 | 25.0 ± 0.0 % | 3.0 | 15.0 | 1 of 2 | never |")
    assert cells[3].startswith("| case | gonka | 0 | – | – | 15.0 | 0 of 0 | – |")


def test_a_small_case_under_each_rule(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Made-up answers of new keys are all found; only BOINC lets the cheats go on."""
    assert main(["compare-policies", case, "--seeds", "0..1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["rules"] for row in rows] == list(SCHEMES)
    assert all(row["runs"] == 2 and row["scenario"] == "case" for row in rows)
    assert all(row["paid_share"] == 0 and row["cheat_pay"] == 0 for row in rows)
    ours, boinc, gonka = rows
    assert (ours["stopped"], boinc["stopped"], gonka["stopped"]) == (4, 0, 4)
    assert ours["cheated"] < gonka["cheated"] < boinc["cheated"]
    assert boinc["audits_a_job"] > ours["audits_a_job"]


def test_the_table_is_the_same_for_any_number_of_workers(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare-policies", case, "--seeds", "3"]) == 0
    alone = capsys.readouterr().out
    assert main(["compare-policies", case, "--seeds", "3", "--workers", "2"]) == 0
    assert capsys.readouterr().out == alone
    assert len(alone.splitlines()) == 2 + len(SCHEMES)


def test_bad_input_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words, why in (
        (["wash-tradin"], "did you mean 'wash-trading'"),
        (["--seeds", "x"], "FIRST..LAST wanted"),
        (["--workers", "0"], "from 1 to"),
    ):
        assert main(["compare-policies", *words]) == 2
        assert why in capsys.readouterr().err
