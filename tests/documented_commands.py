"""What the pages tell people to type: fenced blocks, their command lines, and whether those parse.

A line is held to the program's own argparse parser. Where the page leaves something out (`...`) or
speaks of a command in passing (code within a sentence), its verbs and flags must exist.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import assay.cli
import assay.gateway.command
from assay_node.launcher import OWN_VERBS
from tidy_rules import ROOT

PROGRAMS: Final = ("assay", "node", "coordinator", "simnet")
OMITTED: Final = frozenset({"...", "…"})
_DRAWN: Final = re.compile(r"[│─┼►↗═]")  # a picture in letters, not something to type
_FENCE: Final = re.compile(r"^( *)```([\w{}-]*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_CODE: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_SPLIT: Final = re.compile(r" \|\|? | && |; ")
_ENVIRONMENT: Final = re.compile(r"^[A-Z_]+=")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page."""

    page: str
    language: str
    text: str


def pages() -> list[Path]:
    """All that people read."""
    docs = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", *docs, *sorted((ROOT / "protocol" / "spec").glob("*.md"))]


def blocks(text: str, page: str) -> list[Block]:
    return [Block(page, lang, body) for _, lang, body in _FENCE.findall(text)]


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each command of a block that is for a shell, or for none in particular."""
    if block.language not in ("sh", "bash", "") or _DRAWN.search(block.text):
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in _SPLIT.split(line.removeprefix("$ ")):
            if words := _words(part):
                yield words


def mentioned(text: str) -> Iterator[list[str]]:
    """The words of commands within sentences."""
    for code in _CODE.findall(_FENCE.sub("", text)):
        words = _words(code)
        if len(words) > 1 and words[0] in PROGRAMS:
            yield words


def fault(words: list[str], *, whole: bool) -> str:
    """Why the program would refuse the command, or "". Not `whole`: only verbs and flags count."""
    program, given = words[0], [word.strip("[]") for word in words[1:]]
    if program not in PROGRAMS:
        return ""
    if program == "node" and given and given[0] not in OWN_VERBS:
        return ""  # Node.js's
    if not whole or OMITTED & set(given):
        return _unknown(program, given)
    parser, given = _handed_over(program, given)
    given = ["1" if re.fullmatch("[A-Z]", word) else word for word in given]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser.parse_args(given)
    except SystemExit as stop:
        return said.getvalue().strip().rpartition("\n")[2] if stop.code else ""
    return ""


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a quote that ends on another line
        return []
    while words and _ENVIRONMENT.match(words[0]):
        del words[0]
    for end, word in enumerate(words):
        if word.startswith((">", "<", "&")) and word[1:2] in ("", ">"):
            words = words[:end]
            break
    if words:
        words[0] = words[0].removeprefix(".venv/bin/")
    return words


def _handed_over(program: str, given: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser that meets the words, as `assay` hands them on."""
    verb = given[0] if given else ""
    if program != "assay":
        return _parser(program), given
    if verb == "selfcheck":
        return _parser("node"), given
    if verb == "init" and given[1:2] in (["node"], ["coordinator"]):
        return _parser(given[1]), ["init", *given[2:]]
    if verb == "gateway" and given[1:2] == ["keys"]:
        return assay.gateway.command.keys_parser(), given[2:]
    if verb == "init" and given[1:2] == ["gateway"]:
        return _parser("gateway"), given[2:]
    if verb in assay.cli._HAND_OVERS:
        return _parser(verb), given[1:]
    return assay.cli.parser(), given


def _parser(program: str) -> argparse.ArgumentParser:
    """Of a program that `assay` hands over to, which may also stand alone."""
    module: Any = importlib.import_module(assay.cli._HAND_OVERS[program][0])
    parser: argparse.ArgumentParser = module.parser()
    return parser


def _unknown(program: str, given: list[str]) -> str:
    parser, rest = _handed_over(program, given)
    for word in rest:
        verbs = _verbs(parser)
        if word.startswith("-"):
            flag = word.partition("=")[0]
            if flag not in parser._option_string_actions:
                return f"no flag {flag}"
        elif verbs and word not in OMITTED and not re.search("[A-Z|]", word):
            if word not in verbs:
                return f"no verb {word!r} among {', '.join(verbs)}"
            parser = verbs[word]
    return ""


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}
