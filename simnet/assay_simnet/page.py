"""The frame of a report: one HTML file without scripts, and a policy that forbids any request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1460px;padding:0 1em;color:#222}
h1{font-size:1.5em;margin-bottom:0}h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #ccc}
.charts{display:flex;flex-wrap:wrap;gap:8px}table{border-collapse:collapse}
td,th{padding:2px 10px;border-bottom:1px solid #eee;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}.wrong{color:#b00020;font-weight:600}
svg{background:#fff;border:1px solid #eee}svg text{font:11px system-ui,sans-serif;fill:#333}
svg .title{font-size:13px;font-weight:600}.line{fill:none;stroke-width:1.8}
.grid{stroke:#eee}.axis{stroke:#999;fill:none}.mark{stroke:#b00020;stroke-dasharray:3 3}
"""


def page(title: str, question: str, parts: Iterable[str]) -> str:
    """The whole file. `parts` are HTML."""
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>"
        f"<h1>{escape(title)}</h1>\n<p>{escape(question)}</p>\n"
    )
    return head + "\n".join(parts) + "\n</body></html>\n"


def section(title: str, *parts: str) -> str:
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(parts)


def charts(drawn: Iterable[str]) -> str:
    return '<div class="charts">' + "\n".join(drawn) + "</div>"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Numbers stand to the right."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return f"<table><tr>{head}</tr>\n{body}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="n">{value}</td>'
    if value is None or value == {}:
        return "<td>–</td>"
    return f"<td>{escape(str(value))}</td>"
