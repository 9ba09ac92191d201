"""Where a chat template's work is counted (template_work.py): its loops, calls, filters, operators.

Only those filters, tests and methods are there that templates of published models use, or whose
work is as plain. Loops, comparisons, slices and `~` have no hook in Jinja, so filters with names
that no template can write are put around them before the template is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from string import Formatter
from types import BuiltinMethodType, MethodWrapperType
from typing import Any, Final, TypeVar, cast

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from assay.template_work import STRIPPED_MAX, TEXT_STEP, Work
from assay_protocol.errors import AssayError

WORK: Final = "work left"  # no name of a template's: it has a space
INDENT_MAX: Final = 16
_BODIES: Final = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)  # may be run often
_JINJAS: Final = ("_loop_vars", "_block_vars")
_Made = TypeVar("_Made", bound=nodes.Node)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Filters that look at a value, go through its items, through all the text in it, or order items.
_AT_ONCE: Final = _names("abs attr count d default first float int last length")
_BY_ITEM: Final = _names("items list map reject rejectattr reverse select selectattr")
_BY_TEXT: Final = _names("capitalize e escape lower safe string title trim upper")
_BY_ORDER: Final = _names("dictsort max min sort unique")
_FOUND: Final = _names("attr d default first last get")  # these make nothing
_TESTS: Final = _names(
    "boolean callable defined false float integer iterable mapping none number sameas sequence "
    "string true undefined"
)
_COMPARING: Final = _names("!= < <= == > >= eq equalto ge greaterthan gt in le lessthan lt ne")
_OF_TEXT: Final = _names(
    "capitalize casefold count endswith find format index isalnum isalpha isascii isdecimal "
    "isdigit islower isnumeric isspace istitle isupper join lower lstrip partition removeprefix "
    "removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines startswith strip "
    "swapcase title upper"
)
_METHODS: Final = (
    (str, _OF_TEXT),
    (dict, _names("copy get items keys values")),
    (list, _names("copy count index")),
    (tuple, _names("count index")),
)
_WIDE: Final = re.compile(r"[0-9]{4}|\*")  # of a format: a width that is large or computed
_PLAIN: Final = ImmutableSandboxedEnvironment()  # Jinja's own filters and tests


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox for one template; each rendering is given a `Work` under the name WORK."""

    intercepted_binops = frozenset({"+", "-", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_weighed, **options)
        del self.globals["lipsum"]
        self.filters = {name: _filter(name, _looked_at) for name in _AT_ONCE}
        self.filters |= {name: _filter(name, _gone_through) for name in _BY_ITEM}
        self.filters |= {name: _filter(name, _spelled) for name in _BY_TEXT}
        self.filters |= {name: _filter(name, _ordered) for name in _BY_ORDER}
        self.filters |= {
            "indent": _indent, "join": _join, "replace": _replace, "sum": _sum,
            " concat": _concat, " each": _each, " made": _made, " sought": _sought,
            " spend": _spend, " weighed": _weighed,
        }  # fmt: skip
        self.tests = {name: _PLAIN.tests[name] for name in _TESTS}
        self.tests |= {name: _comparison(name) for name in _COMPARING}

    def call(self, context: Context, called: Any, /, *args: Any, **more: Any) -> Any:
        work = context.parent[WORK]
        work.spend(1)
        if isinstance(called, Macro):
            return super().call(context, called, *args, **more)
        if isinstance(called, LoopContext) and args:
            return super().call(context, called, work.each(args[0]), *args[1:], **more)
        method = getattr(called, "__wrapped__", called)  # as the sandbox has `format`
        if isinstance(method, BuiltinMethodType | MethodWrapperType):
            args = _method(work, method, args, _given(more))
        else:
            work.spelled((*args, *_given(more)))
        found = super().call(context, called, *args, **more)
        return found if getattr(method, "__name__", "") in _FOUND else work.made(found)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        work = context.parent[WORK]
        work.spend(1)
        if operator == "*":
            work.repeated(left, right)
        elif operator == "**":
            work.power(left, right)
        elif operator == "%" and isinstance(left, str):
            fields = left.count("%") if not _WIDE.search(left) else None
            work.formatted(len(left), fields, right if isinstance(right, tuple) else (right,))
        return work.made(super().call_binop(context, operator, left, right))

    def _generate(self, source: nodes.Template, *args: Any, **more: Any) -> str:
        _meter(source, self)
        return super()._generate(source, *args, **more)


def _meter(source: nodes.Template, environment: MeteredEnvironment) -> None:
    """Put the filters with the secret names where there is no hook."""

    def at(made: _Made, node: nodes.Node) -> _Made:
        made.lineno, made.environment = node.lineno, environment
        return made

    def through(node: nodes.Expr, name: str) -> nodes.Filter:
        return at(nodes.Filter(node, f" {name}", [], [], None, None), node)

    kinds = (*_BODIES, nodes.Compare, nodes.Concat, nodes.Getitem)
    for node in list(source.find_all(kinds)):
        if isinstance(node, nodes.For):
            node.iter = through(cast(nodes.Expr, node.iter), "each")
        if isinstance(node, _BODIES):
            weight = nodes.Const(1 + sum(map(_written_in, node.body)) // TEXT_STEP)
            step = at(nodes.ExprStmt(through(at(weight, node), "spend")), node)
            node.body.insert(0, step)
        elif isinstance(node, nodes.Concat):
            node.nodes = [through(at(nodes.List(node.nodes), node), "concat")]
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            node.node = through(node.node, "made")
        elif isinstance(node, nodes.Compare):
            for operand in node.ops:
                if not isinstance(operand.expr, nodes.Const):
                    name = "sought" if operand.op in ("in", "notin") else "weighed"
                    operand.expr = through(operand.expr, name)


def _written_in(node: nodes.Node) -> int:
    """Characters that stand in it as they are written, but for bodies that count their own."""
    if isinstance(node, nodes.TemplateData):
        return len(node.data)
    if isinstance(node, _BODIES):
        return 0
    return sum(map(_written_in, node.iter_child_nodes()))


# ---- filters and tests ----


def _filter(name: str, prepare: Callable[..., Any]) -> Callable[..., Any]:
    @pass_context
    def metered(context: Context, value: Any, *args: Any, **more: Any) -> Any:
        work = context.parent[WORK]
        work.spend(1)
        value = prepare(work, value, args)
        if name == "trim" and args:
            _strippable(args[0])
        found = _PLAIN.call_filter(name, value, args, more, context=context)
        return found if name in _FOUND else work.made(found)

    return metered


def _looked_at(work: Work, value: Any, args: tuple[Any, ...]) -> Any:
    return value


def _gone_through(work: Work, value: Any, args: tuple[Any, ...]) -> Any:
    return work.each(value)


def _spelled(work: Work, value: Any, args: tuple[Any, ...]) -> Any:
    work.spelled((value, *args))
    return value


def _ordered(work: Work, value: Any, args: tuple[Any, ...]) -> Any:
    """Each is compared about as often as there are bits in their number."""
    value = value if isinstance(value, dict) else list(work.each(value))
    before = work.left
    work.spelled(value)
    work.spend((before - work.left) * len(value).bit_length())
    return value


def _comparison(name: str) -> Callable[..., Any]:
    @pass_context
    def metered(context: Context, value: Any, *args: Any) -> Any:
        context.parent[WORK].spelled((value, *args))
        return _PLAIN.call_test(name, value, args, context=context)

    return metered


@pass_context
def _replace(context: Context, value: Any, old: Any, new: Any, count: int | None = None) -> str:
    work = context.parent[WORK]
    for part in (value, old, new):
        work.spelled(part)
    text, before, after = str(value), str(old), str(new)
    work.replaced(text, before, after)
    return text.replace(before, after, -1 if count is None else count)


@pass_context
def _join(context: Context, value: Any, d: Any = "", attribute: Any = None) -> str:
    work = context.parent[WORK]
    work.spelled(d)
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    return str(d).join(map(str, work.joined(str(d), value)))


@pass_context
def _sum(context: Context, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    work = context.parent[WORK]
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    found = [start, *work.each(value)]
    if not all(isinstance(one, int | float) for one in found):
        raise AssayError("malformed", "a template adds up what is no number")
    return work.made(sum(found))


@pass_context
def _indent(
    context: Context, s: Any, width: int | str = 4, first: bool = False, blank: bool = False
) -> str:
    work = context.parent[WORK]
    work.spelled(s)
    text = str(s)
    wide = len(width) if isinstance(width, str) else width
    if wide > INDENT_MAX:
        raise AssayError("malformed", f"a template indents by at most {INDENT_MAX}")
    work.text((text.count("\n") + 1) * wide)
    made = _PLAIN.call_filter("indent", text, (width, first, blank), {}, context=context)
    return str(made)


@pass_context
def _concat(context: Context, parts: list[Any]) -> str:
    return "".join(map(str, context.parent[WORK].joined("", parts)))


@pass_context
def _each(context: Context, value: Any) -> Any:
    return context.parent[WORK].each(value)


@pass_context
def _made(context: Context, value: Any) -> Any:
    return context.parent[WORK].made(value)


@pass_context
def _spend(context: Context, steps: Any) -> str:
    context.parent[WORK].spend(max(0, steps))
    return ""


@pass_context
def _sought(context: Context, value: Any) -> Any:
    """What something is looked for in; a key of a mapping is found at once."""
    if not isinstance(value, dict):
        context.parent[WORK].spelled(value)
    return value


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    """The right side of a comparison; or what is written."""
    context.parent[WORK].spelled(value)
    return value


# ---- calls ----


def _given(more: dict[str, Any]) -> tuple[Any, ...]:
    """What the template gave by name; Jinja adds what it knows of the loop around."""
    return tuple(value for name, value in more.items() if name not in _JINJAS)


def _method(
    work: Work, method: Any, args: tuple[Any, ...], named: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The arguments it may be called with; `named` are more."""
    owner, name = method.__self__, method.__name__
    if not any(isinstance(owner, kind) and name in names for kind, names in _METHODS):
        raise SecurityError(f"{name} is not for chat templates")
    if not isinstance(owner, str):
        if name in ("count", "index"):
            work.spelled(owner)
        return args
    work.text(len(owner))
    if name == "join" and len(args) == 1:
        return (work.joined(owner, args[0]),)
    if name == "format":
        work.formatted(len(owner), _fields(owner), (*args, *named))
    else:
        work.spelled((*args, *named))
    if name == "replace" and len(args) >= 2:
        work.replaced(owner, args[0], args[1])
    elif name in ("split", "rsplit") and args and isinstance(args[0], str) and args[0]:
        work.spend(owner.count(args[0]))
    elif name in ("strip", "lstrip", "rstrip") and args:
        _strippable(args[0])
    return args


def _fields(layout: str) -> int | None:
    """How many fields `str.format` finds in it; None if one is of a width that is large or
    computed."""
    specs = [spec for _, name, spec, _ in Formatter().parse(layout) if name is not None]
    return None if any("{" in spec or _WIDE.search(spec) for spec in specs if spec) else len(specs)


def _strippable(characters: Any) -> None:
    if isinstance(characters, str) and len(characters) > STRIPPED_MAX:
        raise AssayError("malformed", f"a template strips at most {STRIPPED_MAX} characters")
