"""Reports: every figure is on the page, the page asks for nothing, and nothing is overwritten."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_simnet.charts import POINTS_MAX, Axes, Line, bars, distribution, lines, lorenz
from assay_simnet.cli import main
from assay_simnet.results import flat
from assay_simnet.sweep_report import Mean, numbers
from simnet.scenario_texts import SMALL, SWEPT

CHEATS = '[[adversary]]\nbehaviour = "lazy"\ncount = 2\nverified = 400\n'
ASKED = (
    *("TTFT", "TPOT", "E2E", "Goodput", "Utilisation", "Undetected fraud", "Time to detect"),
    *("false convictions", "Profit", "Gini", "Cost of verification", "Treasury"),
)


class _Page(HTMLParser):
    """What a page's tables say, and whether its elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "meta":
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of SVG."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def _read(path: Path) -> _Page:
    text = path.read_text()
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert "default-src 'none'" in text
    for asks in ("://", "src=", "href=", "url(", "@import", "<script", "<link", "nan", "inf,"):
        assert asks not in text, asks
    return page


@pytest.fixture
def run(tmp_path: Path) -> Path:
    file, out = tmp_path / "small.toml", tmp_path / "out"
    file.write_text(SMALL.replace("Does it run?", "Is <this> & that shown?") + CHEATS)
    assert main(["run", str(file), "--out", str(out)]) == 0
    return out


def test_a_runs_page_has_every_figure_and_every_plot(run: Path) -> None:
    assert main(["plot", str(run)]) == 0
    page = _read(run / "report.html")
    shown = {row[0]: row[1] for row in page.rows if len(row) == 2}
    figures = dict(flat(json.loads((run / "summary.json").read_text())))
    assert len(figures) > 40
    for path, value in figures.items():
        assert shown[path] == ("–" if value in (None, {}) else str(value)), path
    assert "Is <this> & that shown?" in page.text
    assert [name for name in ASKED if name not in page.text] == []
    assert page.text.count("nothing to show") == 0
    assert json.loads((run / "manifest.json").read_text())["trace_digest"] in page.text


def test_a_report_is_written_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run)]) == 0
    first = (run / "report.html").read_bytes()
    assert main(["plot", str(run)]) == 0  # the same bytes
    assert (run / "report.html").read_bytes() == first
    (run / "report.html").write_text("my notes")
    assert main(["plot", str(run)]) == 2
    assert (run / "report.html").read_text() == "my notes"
    assert "nothing is overwritten" in capsys.readouterr().err
    assert main(["plot", str(run), "--out", str(run / "other.html")]) == 0
    assert (run / "other.html").read_bytes() == first


def test_a_run_without_jobs_or_cheats_has_a_page(tmp_path: Path) -> None:
    file, out = tmp_path / "small.toml", tmp_path / "out"
    file.write_text(SMALL.replace('"1 / s"', '"1 / d"'))
    assert main(["run", str(file), "--out", str(out)]) == 0
    assert json.loads((out / "summary.json").read_text())["jobs"]["begun"] == 0
    assert main(["plot", str(out)]) == 0
    assert "nothing to show" in _read(out / "report.html").text


@pytest.mark.parametrize("name", ["summary.json", "manifest.json", "jobs.csv.gz", "nodes.csv.gz"])
def test_a_run_that_is_not_whole_is_exit_code_two(
    run: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / name
    path.write_bytes(path.read_bytes()[:-20])
    assert main(["plot", str(run)]) == 2
    assert str(path) in capsys.readouterr().err
    path.unlink()
    assert main(["plot", str(run)]) == 2
    assert not (run / "report.html").exists()


def test_a_sweeps_page_has_its_metrics_over_each_key(tmp_path: Path) -> None:
    file, out = tmp_path / "swept.toml", tmp_path / "out"
    file.write_text(SWEPT.replace("replicates = 10", "replicates = 2"))
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    assert main(["plot", str(out)]) == 0
    page = _read(out / "report.html")
    assert ["runs", "12 of 12"] in page.rows
    assert "Over adversary.0.cheat" in page.text
    assert "Over population.nodes" in page.text
    points = [row[:2] for row in page.rows if len(row) > 5][1:]
    assert points == [[cheat, nodes] for cheat in ("0.2", "1.0") for nodes in ("3", "4", "5")]
    assert len(re.findall("<svg", (out / "report.html").read_text())) > 20
    with (out / "sweep.csv").open("ab") as rows:
        rows.write(b"12,0.2,")  # under way
    assert main(["plot", str(out)]) == 0
    with (out / "sweep.csv").open("ab") as rows:
        rows.write(b"\n")
    assert main(["plot", str(out), "--out", str(tmp_path / "other.html")]) == 2
    assert not (tmp_path / "other.html").exists()


def test_a_folder_of_neither_is_exit_code_two(tmp_path: Path) -> None:
    assert main(["plot", str(tmp_path)]) == 2
    (tmp_path / "sweep.json").write_text("{}")
    assert main(["plot", str(tmp_path)]) == 2


# ---- charts ------------------------------------------------------------------------------------

_SHAPE = re.compile(r"-?\d+(?:\.\d+)?")


@given(st.lists(st.floats(0, 1e12), max_size=30), st.booleans())
def test_charts_are_well_formed_whatever_the_values(values: list[float], steps: bool) -> None:
    axes = Axes("<title> & more", "x", "y")
    points = [(float(x), y) for x, y in enumerate(values)]
    band = [(x, y / 2, y * 2) for x, y in points]
    for svg in (
        lines(axes, {"": Line(points, band, steps), "a": Line([])}, {"SLO": 3.0}),
        lines(axes, {"": distribution(values)}),
        lines(axes, {"a": lorenz(values), "b": Line(points)}),
        bars(axes, {str(x): y for x, y in points}),
    ):
        page = _Page()
        page.feed(svg)
        assert page.open == []
        assert "nan" not in svg
        paths = re.findall(r' d="([^"]*)"', svg)
        assert all(-1 <= float(n) <= 500 for path in paths for n in _SHAPE.findall(path))


def test_a_long_line_is_thinned_and_ends_where_it_ended() -> None:
    line = distribution([float(value) for value in range(100_000)])
    assert len(line.points) <= POINTS_MAX + 1
    assert line.points[-1] == (99_999.0, 1.0)


def test_the_poorest_half_of_equals_has_half() -> None:
    assert (0.5, 0.5) in lorenz([3.0] * 4).points
    assert lorenz([0.0, 0.0]).points == []


def test_a_mean_and_its_interval() -> None:
    mean = Mean()
    for value in (2.0, 4.0, 6.0):
        mean.add(value)
    assert mean.mean == 4.0
    assert abs(mean.half - 4.303 * 2.0 / 3**0.5) < 1e-9
    one = Mean()
    one.add(1.0)
    assert (one.half, str(one), str(Mean())) == (0.0, "1", "–")


def test_values_stand_where_their_quantities_do() -> None:
    assert numbers(["10", "2"]) == {"2": 2.0, "10": 10.0}
    assert numbers(["1 h", "30 s"]) == {"30 s": 30.0, "1 h": 3600.0}
    assert numbers(["2 %", "10 %"]) == {"2 %": 0.02, "10 %": 0.1}
    assert numbers(["none", "weibull"]) is None
