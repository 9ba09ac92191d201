"""Every block of the pages that claims to be typed or run is one that the code would take."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import sys
import tomllib

import pytest

from documented_commands import PROGRAMS, Block, blocks, commands, fault, mentioned, pages
from tidy_rules import PACKAGES, ROOT

TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in pages()}
BLOCKS = [block for page, text in TEXTS.items() for block in blocks(text, page)]
TYPED = [(block, words) for block in BLOCKS for words in commands(block)]
_EXTRAS = re.compile(r"(?:assay-network|\.)\[([\w,]+)\]")


def test_the_pages_have_blocks_of_each_kind() -> None:
    languages = {block.language for block in BLOCKS}
    assert {"sh", "python", "toml"} <= languages
    assert sum(words[0] in PROGRAMS for _, words in TYPED) > 60, "the rules hold of nothing"


def test_command_lines_in_blocks_parse() -> None:
    faults = [
        f"{block.page}: {' '.join(words)}: {why}"
        for block, words in TYPED
        if words[0] in PROGRAMS and (why := fault(words, whole=True))
    ]
    assert faults == []


def test_commands_within_sentences_have_their_verbs_and_flags() -> None:
    faults = [
        f"{page}: {' '.join(words)}: {why}"
        for page, text in TEXTS.items()
        if not page.startswith("protocol/spec")  # domains of hashes look like commands there
        for words in mentioned(text)
        if (why := fault(words, whole=False))
    ]
    assert faults == []


def test_what_is_installed_made_and_run_in_blocks_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    faults = []
    for block, words in TYPED:
        extras = {e for word in words for found in _EXTRAS.findall(word) for e in found.split(",")}
        if missing := extras - set(project["optional-dependencies"]):
            faults.append(f"{block.page}: no extra {missing}")
        if words[0] == "make" and (missing := {w for w in words[1:] if w[0] != "-"} - {*targets}):
            faults.append(f"{block.page}: no target {missing}")
        if words[0] in ("python", "python3", "pytest", "bash"):
            named = [word for word in words[1:] if re.match(r"(bench|tests|scripts|docs)/", word)]
            faults += [f"{block.page}: no file {n}" for n in named if not (ROOT / n).exists()]
    assert faults == []


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "python"], ids=lambda b: b.page
)
def test_python_blocks_compile_and_import_what_exists(block: Block) -> None:
    tree = ast.parse(block.text, block.page)
    for item in ast.walk(tree):
        if isinstance(item, ast.ImportFrom):
            assert item.module
            if _checkable(item.module):
                module = importlib.import_module(item.module)
                assert [a.name for a in item.names if not hasattr(module, a.name)] == []
        elif isinstance(item, ast.Import):
            for alias in item.names:
                assert not _checkable(alias.name) or importlib.import_module(alias.name)


def _checkable(module: str) -> bool:
    """Ours must be there; what others wrote only where it is installed."""
    top = module.partition(".")[0]
    known = top in PACKAGES or top in sys.stdlib_module_names
    return known or importlib.util.find_spec(top) is not None


def test_blocks_of_data_can_be_read() -> None:
    read = {"toml": tomllib.loads, "json": json.loads}
    seen = 0
    for block in BLOCKS:
        if block.language in read:
            read[block.language](block.text)
            seen += 1
    assert seen > 0


@pytest.mark.parametrize(
    "line",
    [
        "assay chat --modell x",
        "assay gateway keys add",
        "assay init coordinator --fauset 3",
        "node start --coordinater x",
        "node models bake a.gguf",
        "coordinator audit",
        "coordinator start --http nowhere",
        "simnet run",
        "cat x | simnet up --nodes 99",
        ".venv/bin/simnet up --port 8000",
    ],
)
def test_a_line_that_the_program_refuses_is_found(line: str) -> None:
    found = [fault(words, whole=True) for words in commands(Block("x", "sh", line))]
    assert any(found), line


@pytest.mark.parametrize("text", ["`node models bake`", "`assay chat --modell`", "`simnet runn x`"])
def test_a_sentence_that_names_what_is_not_there_is_found(text: str) -> None:
    assert [fault(words, whole=False) for words in mentioned(text)] != [""]


@pytest.mark.parametrize(
    "line",
    [
        "node start ... --follow http://203.0.113.7:8545",
        "ASSAY_KEY=x assay chat 'Why?' > answer.txt   # a comment --with flags",
        "coordinator audit --epoch N --challenge --key k",
        "node script.js --anything",
        "echo assay nonsense",
    ],
)
def test_lines_that_hold_are_let_through(line: str) -> None:
    found = [(words, fault(words, whole=True)) for words in commands(Block("x", "sh", line))]
    assert [why for words, why in found if words[0] in PROGRAMS and why] == []
