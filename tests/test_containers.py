"""The container files against the repository they build: no engine is at hand to run them.

A small reader of the instructions, not of all a builder knows: continuation lines, exec forms.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from documented_commands import PROGRAMS, fault
from tidy_rules import ROOT

FOLDER = ROOT / "containers"
FILES = sorted(FOLDER.glob("*.Containerfile"))
SERVICES = ("coordinator", "node", "gateway")
PINNED = re.compile(r"^[\w./-]+:\d+\.\d+\.\d+[\w.-]*$")
PORT = re.compile(r"(?:/tcp/|0\.0\.0\.0:|127\.0\.0\.1:)(\d+)")


def instructions(path: Path) -> list[tuple[str, str]]:
    """(KEYWORD, rest) of each, comments left out and continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(w, rest) for w, _, rest in (one.partition(" ") for one in joined.splitlines()) if w]


def stages(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Each stage with what it inherits from those it is made of."""
    made: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for word, rest in instructions(path):
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            current = made[name] = [*made.get(base, ()), (word, base)]
        else:
            current.append((word, rest))
    return made


def last(stage: list[tuple[str, str]], word: str) -> str:
    return next((rest for kind, rest in reversed(stage) if kind == word), "")


def exec_form(text: str) -> list[str]:
    words = json.loads(text)
    assert words
    assert all(isinstance(word, str) for word in words), text
    return list(words)


def tracked() -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    return files | {str(parent) for name in files for parent in Path(name).parents}


def test_there_are_files_for_cpu_and_cuda() -> None:
    assert [path.name for path in FILES] == ["cpu.Containerfile", "cuda.Containerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_bases_are_pinned_and_nothing_runs_as_root(path: Path) -> None:
    made = stages(path)
    assert len(made) >= 2, "what compiles is not shipped"
    for stage in made.values():
        bases = [rest for word, rest in stage if word == "FROM"]
        assert all(PINNED.match(base) or base in made for base in bases), bases
    for name in set(made) & {"base", *SERVICES}:
        assert re.fullmatch(r"[1-9]\d+", last(made[name], "USER")), name
        assert last(made[name], "VOLUME"), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_copied_exists_and_is_sent_to_the_builder(path: Path) -> None:
    made, known = stages(path), tracked()
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"]
    assert all(name in known for name in sent), sent
    copied = [rest.split() for word, rest in instructions(path) if word == "COPY"]
    assert copied
    for words in copied:
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in made
            continue
        for source in words[:-1]:
            assert source in known, f"{path.name} copies {source}"
            assert any(f"{s}/".startswith(f"{source}/") for s in sent), f"{source} is not sent"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_wheel_has_all_it_is_built_from(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = {w for kind, rest in instructions(path) if kind == "COPY" for w in rest.split()[:-1]}
    assert {package.partition("/")[0] for package in packages} <= copied
    runs = " ".join(rest for word, rest in instructions(path) if word == "RUN")
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", runs)
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])
    assert re.findall(r"^version|llama-cpp-python==", runs) == [], (
        "versions stand in pyproject.toml"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_parse_and_their_ports_are_told(path: Path) -> None:
    made = stages(path)
    for name in set(SERVICES) & set(made):
        assert exec_form(last(made[name], "ENTRYPOINT")) == ["tini", "--"]
        words = exec_form(last(made[name], "CMD"))
        assert fault(words, whole=True) == ""
        assert words[0] in PROGRAMS
        ports = set(PORT.findall(" ".join(words)))
        assert ports == set(last(made[name], "EXPOSE").split())
        health = last(made[name], "HEALTHCHECK")
        asked = exec_form(health[health.index("CMD ") + 4 :])
        compile(asked[-1], "healthcheck", "exec")
        assert set(PORT.findall(asked[-1])) <= ports


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "compose.yaml").read_text()))


def test_compose_runs_what_is_built() -> None:
    given = compose()
    assert tuple(given["services"]) == SERVICES
    networks = given["networks"]["assay"]["ipam"]["config"]
    prefix = networks[0]["subnet"].rpartition(".")[0]
    addresses = []
    for name, service in given["services"].items():
        build = service["build"]
        file = (FOLDER / build["context"] / build["dockerfile"]).resolve()
        assert build["target"] in stages(file)
        assert fault(service["command"], whole=True) == ""
        assert service["command"][0] in PROGRAMS
        addresses.append(service["networks"]["assay"]["ipv4_address"])
        assert addresses[-1].startswith(prefix)
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in given["volumes"] or source == "./models", f"{name}: {volume}"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert service["cap_drop"] == ["ALL"]
    assert len(set(addresses)) == len(SERVICES)


def test_compose_addresses_are_those_of_its_containers() -> None:
    services = compose()["services"]
    own = {name: one["networks"]["assay"]["ipv4_address"] for name, one in services.items()}
    said = " ".join(word for one in services.values() for word in one["command"])
    named = set(re.findall(r"172\.[\d.]+", said))
    assert named == {own["coordinator"], own["node"]}
    assert f"/ip4/{own['coordinator']}/tcp/4600/p2p/" in said
