"""The wheel holds all that the programs read, and they run from it alone.

It is built from the checkout, installed without its dependencies into a new environment, and those
are lent from the one these tests run in; our own packages come from the wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tidy_rules import PACKAGES, ROOT

pytestmark = pytest.mark.slow
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
# What each program does first with the files it brought: scenarios, migrations, artefacts, traces.
READS = """
import sys
from pathlib import Path
import assay, assay_contracts, assay_coordinator, assay_simnet
from assay_contracts.artefact import load
from assay_coordinator.adapters.store import Store
from assay_simnet.scenario import SHIPPED
home = Path(sys.argv[1])
for package in (assay, assay_contracts, assay_coordinator, assay_simnet):
    assert Path(package.__file__).is_relative_to(home), package.__file__
assert load("CreditLedger").abi
Store(f"sqlite:///{home / 'books.db'}").close()
assert len(list(SHIPPED.glob("*.toml"))) > 10
print("read")
"""


def run(words: list[str], **more: object) -> str:
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **more,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)])
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The folder of an environment that has the wheel."""
    home = wheel.parent / "home"
    venv.create(home, with_pip=False)
    python = str(home / "bin" / "python")
    run([*PIP, "--python", python, "install", "--no-deps", "--no-index", str(wheel)])
    (site,) = home.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(
        sysconfig.get_path("purelib") + "\n"
    )  # its own .pth are not read
    return home


def test_it_holds_every_file_of_every_package_and_no_other(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    wanted = {
        name.removeprefix(f"{folder}/")
        for package, folder in PACKAGES.items()
        for name in tracked
        if name.startswith(f"{folder}/{package}/")
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert wanted - held == set()
    assert held - wanted == set()
    kinds = {Path(name).suffix for name in held}
    assert {".py", ".json", ".toml", ".csv", ".mako", ".typed"} <= kinds


def test_the_programs_run_from_it(installed: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    helped = {name: ["--help"] for name in project["scripts"]} | {"node": ["start", "--help"]}
    for program, words in helped.items():
        said = run([str(installed / "bin" / program), *words], env=_clean())
        assert said.startswith("usage: "), program
    assert "lazy-ring" in run([str(installed / "bin" / "simnet"), "list"], env=_clean())


def test_the_packages_find_what_they_brought(installed: Path) -> None:
    python = str(installed / "bin" / "python")
    assert run([python, "-c", READS, str(installed)], env=_clean(), cwd=installed) == "read\n"


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
