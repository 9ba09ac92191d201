"""What a chat template may use: the Jinja environment of the `transformers` library, sandboxed.

`trim_blocks` and `lstrip_blocks`, `break` and `continue`, `generation` blocks, `raise_exception`,
`tojson` without HTML escapes, and `strftime_now`. That one gives the day, in UTC, and midnight for
the hour: two renderings on one day are the same prompt. Nothing that is verified depends on it,
since a client signs for token ids and never for the template they came from. Work is counted
(template_metering.py).
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time
from typing import Final, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node, Scope
from jinja2.parser import Parser
from jinja2.runtime import Context

from assay.template_metering import INDENT_MAX, WORK, MeteredEnvironment

FORMAT_CHARACTERS_MAX: Final = 128
# Without the private planes: stand-ins for what users must not write (chat_template.py) are there,
# and escaped nobody would exchange them back.
_BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7f\U000f0000-\U0010ffff]+")
# Padding flags are the C library's; %s, %D and the like are not everywhere.
_FORMAT: Final = re.compile(r"(?:[^%]|%-?[aAbBdmyYjuwHIMSpeGVUW]|%[FTZzf%])*", re.DOTALL)


def template_environment() -> MeteredEnvironment:
    """A fresh environment; `strftime_now` (`DateWriter`) and a `Work` are given with each
    rendering."""
    environment = MeteredEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    return environment


def today_utc() -> date:
    """The day now, in UTC."""
    return datetime.now(UTC).date()


class DateWriter:
    """A template's `strftime_now` on one day."""

    def __init__(self, day: date) -> None:
        self._midnight = datetime.combine(day, time(tzinfo=UTC))

    def __call__(self, layout: str) -> str:
        """The day written as `layout` says; raises jinja2.TemplateError for one that cannot be."""
        if not isinstance(layout, str) or len(layout) > FORMAT_CHARACTERS_MAX:
            raise jinja2.TemplateError("strftime_now takes a short text")
        if not _FORMAT.fullmatch(layout):
            raise jinja2.TemplateError("strftime_now with a directive that is not known")
        return self._midnight.strftime(layout)


class _Generation(Extension):
    """`{% generation %}` marks, for training, what the assistant said: text like any other, and
    names that are set within end with it."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Parser) -> Node:
        begun = next(parser.stream).lineno
        inside = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return Scope(inside, lineno=begun)


@jinja2.pass_context
def _to_json(
    context: Context,
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if indent is not None and (not isinstance(indent, int) or indent > INDENT_MAX):
        raise jinja2.TemplateError(f"tojson indents by at most {INDENT_MAX}")
    context.parent[WORK].spelled(value, max(0, indent or 0))
    written = json.dumps(
        value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return _BEYOND_ASCII.sub(_escaped, written) if ensure_ascii else written


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
