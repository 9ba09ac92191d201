"""Links within the pages lead to files and headings that are there; every page is on the site."""

from __future__ import annotations

import re
from pathlib import Path

from documented_commands import pages
from tidy_rules import ROOT

_LINK = re.compile(r"\]\(([^)\s]*)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_FENCED = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
_TREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What a heading is called in a link: its words in lower case, joined by hyphens."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCED.sub("", text)):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        count = next(n for n in range(100) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{count}" if count else slug)
    return found


def dead(page: Path, text: str) -> list[str]:
    """Links of one page to no file or no heading."""
    found = []
    for link in _LINK.findall(_FENCED.sub("", text)):
        place, _, anchor = link.partition("#")
        target = page if not place else (page.parent / place).resolve()
        if "://" in link:
            continue
        there = target.exists()
        if not there or (anchor and anchor not in anchors(target.read_text())):
            found.append(f"{page.relative_to(ROOT)}: {link}")
    return found


def test_no_link_within_the_pages_is_dead() -> None:
    assert [link for page in pages() for link in dead(page, page.read_text())] == []


def test_every_page_is_on_the_site() -> None:
    """A page that no tree names would be built, and found by nobody."""
    named: set[Path] = set()
    for page in pages():
        for tree in _TREE.findall(page.read_text()):
            for entry in re.findall(r"^[\w./*-]+$", tree, re.MULTILINE):
                named |= set(page.parent.glob(f"{entry}.md")) if "*" in entry else set()
                named.add((page.parent / f"{entry}.md").resolve())
    on_site = {path.resolve() for path in named}
    assert {page.resolve() for page in pages()} - on_site == {ROOT / "docs" / "index.md"}


def test_dead_links_are_found() -> None:
    text = "[a](nowhere.md) [b](glossary.md#no) [c](glossary.md#glossary) [d](#here)\n# Here\n"
    found = dead(ROOT / "docs" / "architecture.md", text)
    assert found[:2] == [
        f"docs/architecture.md: {link}" for link in ("nowhere.md", "glossary.md#no")
    ]


def test_headings_are_called_as_on_the_site() -> None:
    assert anchors("# One two\n```\n# no\n```\n## `a b`: c\n# One two\n") == {
        "one-two",
        "a-b-c",
        "one-two-1",
    }
