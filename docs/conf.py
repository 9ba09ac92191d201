"""Sphinx: the pages of docs/ and protocol/spec/ as a site, by `make docs`.

The source folder is the repository's root, so that every link of a page leads where it leads on a
code host, too; only the pages named below are read, and none of them had to move.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / part) for part in ("protocol", "network", "contracts", "node", "sdk")]

project = "Assay"
copyright = "the authors of Assay"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "protocol/spec/*.md", "README.md"]
exclude_patterns = [
    *("bench", "build", "contracts", "coordinator", "network", "node", "sdk", "simnet", "tests"),
    *(".*", "var", "runs", "scripts", "protocol/assay_protocol", "**/__pycache__"),
]
source_suffix = {".md": "markdown"}
nitpicky = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = "Assay"
html_copy_source = False
html_show_sourcelink = False

autodoc_default_options = {"members": True, "undoc-members": False, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

# Fences of the pages that are no program: what a terminal shows, and pictures in letters.
highlight_language = "text"
suppress_warnings = ["misc.highlighting_failure", "myst.header"]


def plain_docstring(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Our docstrings are prose in plain words, no reStructuredText: keep every sign as it is, code
    between backticks as code, and what is indented as it stands."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc("\n".join(lines)))
    lines[:] = [line for paragraph in paragraphs for line in _as_rest(paragraph)]


def _as_rest(paragraph: str) -> list[str]:
    rows = paragraph.split("\n")
    if any(row.startswith(("  ", "- ")) for row in rows):
        return ["::", "", *(f"    {row}" for row in rows), ""]
    pieces = re.split(r"(`[^`]+`)", " ".join(rows))
    quoted = [f"``{p[1:-1]}``" if p[:1] == p[-1:] == "`" and p[1:] else _plain(p) for p in pieces]
    return ["".join(quoted), ""]


def _plain(text: str) -> str:
    return re.sub(r"([\\*_|`])", r"\\\1", text)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", plain_docstring)
