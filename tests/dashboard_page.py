"""The tables of docs/dashboard.md, made from the API itself; run it to write them."""

from __future__ import annotations

import re
from typing import Final

from assay_coordinator.dashboard.routes import API, STATUS
from tidy_rules import ROOT

PAGE: Final = ROOT / "docs" / "dashboard.md"


def written(text: str) -> str:
    """The page with its tables as they should be."""
    paths = [f"| `{one.path}` | {_words(one.query)} | {one.text} |" for one in API]
    words = {word: meaning for one in API for word, meaning in one.query.items()}
    queries = [f"| `{word}` | {meaning} |" for word, meaning in sorted(words.items())]
    by_status: dict[int, list[str]] = {}
    for code, status in sorted(STATUS.items()):
        by_status.setdefault(status, []).append(f"`{code}`")
    statuses = [f"| {status} | {', '.join(codes)} |" for status, codes in sorted(by_status.items())]
    text = _put(text, "paths", "| path | may be asked with | tells |", paths)
    text = _put(text, "queries", "| word | means |", queries)
    return _put(text, "statuses", "| status | code |", statuses)


def _words(query: object) -> str:
    assert isinstance(query, dict)
    return ", ".join(f"`{word}`" for word in sorted(query))


def _put(text: str, name: str, head: str, rows: list[str]) -> str:
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    assert block.search(text), f"{PAGE}: no place for the {name}"
    table = "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows]) + "\n"
    return block.sub(lambda found: found[1] + table + found[2], text)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
