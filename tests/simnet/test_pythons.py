"""One scenario, seed and commit have one digest: on any declared Python, for any hash seed, for any
number of workers, and on a CPU that can do less."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay_simnet.grid import base
from assay_simnet.scenario import SHIPPED, source_of
from other_pythons import Python, PythonError, Version, declared, others, this
from simnet.scenario_texts import ran

SEED = "7"
SECONDS_MAX = 300
VERSIONS = [one for one in declared() if one != this().version]


@pytest.fixture(scope="module")
def scenarios() -> list[str]:
    """Every shipped scenario of level fast."""
    names = sorted(path.stem for path in SHIPPED.glob("*.toml"))
    return [name for name in names if base(source_of(name)).level == "fast"]


def checked(python: Python, names: list[str], workers: int, **environment: str) -> str:
    """What `simnet check` says of them at their small sizes: a digest for each."""
    command = ["check", *names, "--small", "--seeds", SEED, "--workers", str(workers)]
    return _said(python, command, environment)


def _said(python: Python, command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [python.path, "-m", "assay_simnet", *command],
        env={**python.environment(), **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert done.returncode == 0, f"Python {python.full}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def digests(scenarios: list[str]) -> str:
    """Of this Python, with one worker."""
    return checked(this(), scenarios, workers=1, PYTHONHASHSEED="1")


def test_every_scenario_has_one_digest_twice(scenarios: list[str], digests: str) -> None:
    assert digests.count("ok ") == len(scenarios) > 10
    assert checked(this(), scenarios, workers=2, PYTHONHASHSEED="2") == digests


@pytest.mark.parametrize("version", VERSIONS, ids=lambda one: f"{one[0]}.{one[1]}")
def test_other_pythons_have_the_same_digests(
    version: Version, scenarios: list[str], digests: str, tmp_path: Path
) -> None:
    """One of them with one worker, the next with two: that the number does not matter is asked of
    the Python that runs this."""
    python, which = other(version), VERSIONS.index(version)
    found = checked(python, scenarios, workers=1 + which % 2, PYTHONHASHSEED=str(3 + which))
    assert found == digests
    ours, theirs = (_summary(one, scenarios[0], tmp_path) for one in (this(), python))
    assert ours == theirs


def other(version: Version) -> Python:
    """The interpreter of that version; the test is skipped where it is not here."""
    python = _others()[version]
    if python is None:
        pytest.skip(f"no Python {version[0]}.{version[1]} on this machine")
    if not python.is_ready:
        pytest.skip(f"Python {python.full} has no environment; `make setup` makes it")
    return python


@cache
def _others() -> dict[Version, Python | None]:
    return others()


def _summary(python: Python, name: str, folder: Path) -> str:
    out = folder / python.full
    _said(python, ["run", name, "--small", "--seed", SEED, "--out", str(out)], {})
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["python"] == python.full
    return f"{manifest['trace_digest']} {(out / 'summary.json').read_text()}"


def test_a_lesser_cpu_has_the_same_digests(scenarios: list[str], digests: str) -> None:
    """numpy's and the C library's faster code for newer CPUs rounds otherwise in the last bit."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    slower = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(found),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F,-AVX2_Usable,-FMA_Usable",
    }
    assert checked(this(), scenarios, workers=1, **slower) == digests


def test_sums_of_floats_do_not_depend_on_the_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """sum() of floats rounds otherwise from 3.12 on; what reaches an event is math.fsum's."""
    summed: list[float] = []

    def strict(items: Iterable[Any], /, start: Any = 0) -> Any:
        total = sum_of_all(items, start)
        if isinstance(total, float) and not total.is_integer():  # whole ones are exact
            summed.append(total)
        return total

    sum_of_all = sum
    monkeypatch.setattr(builtins, "sum", strict)
    world = ran('[[adversary]]\nbehaviour = "quant_q2"\ncount = 2\n[coordinator]\n'
                "audit_bps_min = 2000\n")  # fmt: skip
    monkeypatch.undo()
    assert world.summary()["verification"]["audits"] > 5
    assert summed == []


# ---- how the other Pythons are found -----------------------------------------------------------


def test_the_python_that_runs_this_is_declared() -> None:
    assert this().version in declared()


def test_an_interpreter_is_found_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    major, minor = VERSIONS[0]
    fake = tmp_path / "interpreter"
    fake.write_text(f"#!/bin/sh\necho cpython {major} {minor} 99\n")
    fake.chmod(0o755)
    monkeypatch.setenv("ASSAY_PYTHONS", str(fake))
    found = others()[VERSIONS[0]]
    assert found is not None
    assert (found.path, found.full) == (fake, f"{major}.{minor}.99")


def test_what_is_no_interpreter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_PYTHONS", os.pathsep.join([sys.executable, str(tmp_path / "none")]))
    with pytest.raises(PythonError, match="none is no interpreter"):
        others()


def test_a_shim_that_leads_nowhere_is_no_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for major, minor in VERSIONS:
        shim = tmp_path / f"python{major}.{minor}"
        shim.write_text("#!/bin/sh\nexit 127\n")
        shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "no-pyenv"))
    monkeypatch.delenv("ASSAY_PYTHONS", raising=False)
    assert others() == dict.fromkeys(VERSIONS)
