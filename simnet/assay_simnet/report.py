"""report.html: a run or a sweep on one page that fetches nothing and runs nothing.

Every figure of summary.json is in its table; the charts are drawn from the run's own tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from assay_simnet.economy_report import economy_page
from assay_simnet.results import at, read_json
from assay_simnet.run_report import run_page
from assay_simnet.schema import ScenarioError
from assay_simnet.sweep_report import sweep_page

NAME: Final = "report.html"


def write_report(folder: Path, out: Path | None = None) -> Path:
    """The page of what is in the folder. Raises ScenarioError; overwrites nothing but itself."""
    if (folder / "sweep.json").is_file():
        page = sweep_page(folder, read_json(folder / "sweep.json"))
    elif (folder / "manifest.json").is_file():
        manifest = read_json(folder / "manifest.json")
        economy = at(manifest, "parameters.level") == "epochs"
        page = (economy_page if economy else run_page)(folder, manifest)
    else:
        raise ScenarioError(f"{folder}: neither a run (manifest.json) nor a sweep (sweep.json)")
    path = out or folder / NAME
    try:
        if path.exists() and path.read_bytes() != page.encode():
            raise ScenarioError(f"{path} is there already; nothing is overwritten")
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ScenarioError(f"{path}: {error}") from error
    return path
