"""What became of one test of a suite, and how each suite tells it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

WHY_CHARACTERS_MAX: Final = 200
STATUSES: Final = ("passed", "failed", "skipped")
# What differs from run to run, and would make two equal results look different.
_VOLATILE: Final = re.compile(
    r"0x[0-9a-f]+|call_[0-9a-f]{8,}|resp_[0-9a-f]{8,}|chatcmpl-\w+|(?<=127\.0\.0\.1:)\d+"
)


@dataclass(frozen=True)
class Outcome:
    """`why` is the suite's own word, cut; "" where it passed without a warning."""

    test: str
    status: str
    why: str = ""

    def __post_init__(self) -> None:
        assert self.status in STATUSES, self.status


def said(text: str) -> str:
    """A suite's words on one line, bounded, without what is new in every run."""
    return _VOLATILE.sub("…", " ".join(text.split()))[:WHY_CHARACTERS_MAX]


def of_json_lines(text: str) -> list[Outcome]:
    """What scripts with `checks.py` print; other lines are the client's own noise."""
    found = []
    for line in text.splitlines():
        if line.startswith('{"test"'):
            told = json.loads(line)
            found.append(Outcome(told["test"], told["status"], said(told["why"])))
    return found


def of_llm_comply(text: str) -> list[Outcome]:
    """Its --json; where it broke off before that, the end of what it said."""
    if "{" not in text:
        return [Outcome("the whole suite", "failed", said(text[-WHY_CHARACTERS_MAX:]))]
    told = json.loads(text[text.index("{") :])
    return [
        Outcome(
            one["id"], one["status"], said("; ".join(one.get("errors", one.get("warnings", []))))
        )
        for one in told["results"]
    ]


def of_junit(file: Path) -> list[Outcome]:
    """pytest's --junit-xml."""
    return [_of_case(case) for case in ElementTree.parse(file).iter("testcase")]


def of_schemathesis(file: Path, operations: tuple[str, ...], log: str) -> list[Outcome]:
    """Its JSON report, and what it printed: one outcome for each of `operations` ("POST /x")."""
    report = json.loads(file.read_text())
    assert report["complete"], f"schemathesis stopped early: {report['stop_reason']}"
    found = dict.fromkeys(operations, "")
    for failure in (*report["failures"], *_errors(report)):
        for name in failure["operations"]:
            told = f"{failure['title']}: {_detail(log, name, failure['title'])}; "
            place = name if name in found else _beside(name, operations)
            found[place] = found.get(place, "") + told
    return [
        Outcome(name, "failed" if why else "passed", said(why.removesuffix("; ")))
        for name, why in found.items()
    ]


def _beside(name: str, operations: tuple[str, ...]) -> str:
    """Where a finding about a method that the document does not have is told: the path's first."""
    path = name.partition(" ")[2]
    alike = (one for one in operations if one.partition(" ")[2] == path)
    return next(alike, "all operations")


def _detail(log: str, operation: str, title: str) -> str:
    """The line of its report that says what was wrong: under the operation, under the title."""
    section = log.partition(f" {operation} __")[2].partition("\n____")[0]
    lines = section.partition(f" {title}\n")[2].partition("\n[")[0].splitlines()
    told = [line.strip() for line in lines if line.strip()]
    named = [line for line in told if line.startswith("Invalid component: ")]
    return next(iter([*named, *told]), "").removeprefix("Invalid component: ")


def _errors(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for error in report["errors"]:
        where = error.get("operations") or [error.get("operation") or error.get("label") or ""]
        yield {"title": error.get("title", "error"), "count": 1, "operations": where}


def _of_case(case: ElementTree.Element) -> Outcome:
    name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
    for kind in ("failure", "error"):
        if (found := case.find(kind)) is not None:
            return Outcome(name, "failed", said(found.get("message") or ""))
    if (found := case.find("skipped")) is not None:
        return Outcome(name, "skipped", said(found.get("message") or ""))
    return Outcome(name, "passed")
