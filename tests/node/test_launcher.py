"""The `node` command, both ways: our verbs, and everything that is meant for Node.js."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from assay_node import launcher

INSTALLED = Path(sys.executable).parent / "node"
FAKE_NODE = '#!/bin/sh\necho "fake node: $# $@"\nexit 7\n'


def program(path: Path, content: str = FAKE_NODE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)
    return path


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A console script like the installed one."""
    return program(
        tmp_path / "venv/bin/node",
        f"#!{sys.executable} -S\nimport sys\nsys.path[:0] = {[p for p in sys.path if p]!r}\n"
        "from assay_node.launcher import main\nsys.exit(main())\n",
    )


def run(script: Path, *arguments: str, path: list[Path]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [script, *arguments], env=environment, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(
    "arguments", [(), ("--version",), ("-e", "1 + 1"), ("./start",), ("app.js", "start", "a b")]
)
def test_anything_else_goes_to_the_next_node_unchanged(
    ours: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    other = program(tmp_path / "other/node")
    done = run(ours, *arguments, path=[ours.parent, other.parent])
    assert done.stdout == f"fake node: {len(arguments)} {' '.join(arguments)}\n"
    assert done.returncode == 7
    assert done.stderr == ""


def test_without_another_node_both_facts_are_said(ours: Path) -> None:
    done = run(ours, "--version", path=[ours.parent])
    assert done.returncode == 127
    assert "'--version' is not a verb" in done.stderr
    assert "on PATH" in done.stderr
    assert done.stdout == ""


def test_we_are_never_handed_to_ourselves(ours: Path, tmp_path: Path) -> None:
    """Not by a link, not by a link to the directory, not by another environment's launcher."""
    (tmp_path / "links").mkdir()
    (tmp_path / "links/node").symlink_to(ours)
    (tmp_path / "bin").symlink_to(ours.parent)
    long = ours.read_text().replace("import sys\n", "import sys\n" + "# a long preamble\n" * 100)
    twin = program(tmp_path / "twin/node", long)
    (tmp_path / "folder/node").mkdir(parents=True)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/node").write_text("not executable")
    places = ["links", "bin", "twin", "folder", "plain", "nowhere"]
    path = [tmp_path / place for place in places]
    assert run(ours, "x.js", path=path).returncode == 127
    assert run(tmp_path / "links/node", "x.js", path=path).returncode == 127
    other = program(tmp_path / "other/node")
    assert run(twin, "x.js", path=[*path, other.parent]).returncode == 7


def test_a_verb_is_ours_even_if_a_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[list[str]] = []

    def cli_main(argv: list[str]) -> int:
        taken.append(argv)
        return 3

    cli = types.ModuleType("assay_node.cli")
    cli.main = cli_main  # type: ignore[attr-defined]  # a module made for this test
    monkeypatch.setitem(sys.modules, "assay_node.cli", cli)
    monkeypatch.chdir(tmp_path)
    for verb in sorted(launcher.OWN_VERBS):
        (tmp_path / verb).write_text("a script")
        monkeypatch.setattr(sys, "argv", ["/somewhere/node", verb, "--json"])
        assert launcher.main() == 3
        assert taken[-1] == [verb, "--json"]
    assert len(taken) == len(launcher.OWN_VERBS)


def test_the_decision_imports_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import assay_node.launcher\n"
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(tops - sys.stdlib_module_names), 'subprocess' in tops)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['assay_node'] False"


@pytest.mark.interop
@pytest.mark.skipif(not INSTALLED.exists(), reason="the console script is not installed")
def test_the_installed_script_is_transparent() -> None:
    outside = os.pathsep.join(
        place for place in os.environ["PATH"].split(os.pathsep) if Path(place) != INSTALLED.parent
    )
    system = shutil.which("node", path=outside)
    if system is None:
        pytest.skip("Node.js is not installed")
    path = [INSTALLED.parent, *map(Path, outside.split(os.pathsep))]
    for arguments in (("--version",), ("-p", "process.argv.length + ':' + 6 * 7")):
        expected = subprocess.run([system, *arguments], capture_output=True, text=True, check=True)
        assert run(INSTALLED, *arguments, path=path).stdout == expected.stdout
