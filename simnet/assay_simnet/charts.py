"""Charts as SVG text, for pages that fetch nothing: lines with bands, steps, and bars.

Same data, same bytes. Points beyond POINTS_MAX of a line are thinned evenly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Final

POINTS_MAX: Final = 300
SERIES_MAX: Final = 12
WIDTH, HEIGHT = 460, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 30, 44
_TICKS: Final = 5
_FAR: Final = 2.0  # times the largest value: a mark beyond would leave little of the line
_BAR_TEXT: Final = 14  # letters below a bar
# Okabe and Ito's, told apart by colour-blind eyes, too.
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axes:
    """What a chart is of."""

    title: str
    x: str
    y: str


@dataclass(frozen=True)
class Line:
    """`band`: (x, low, high) around it."""

    points: Points
    band: Sequence[tuple[float, float, float]] = ()
    steps: bool = False


@dataclass
class _Frame:
    """From data to the picture."""

    x: tuple[float, float]
    y: tuple[float, float]
    parts: list[str] = field(default_factory=list)

    def across(self, value: float) -> float:
        low, high = self.x
        return round(_LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT), 1)

    def down(self, value: float) -> float:
        low, high = self.y
        return round(HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1)

    def text(self, x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> None:
        body = escape(text)
        self.parts.append(f'<text x="{x}" y="{y}" text-anchor="{anchor}"{more}>{body}</text>')


def lines(axes: Axes, series: Mapping[str, Line], marks: Mapping[str, float] | None = None) -> str:
    """`marks`: places on the x axis worth a line of their own; far ones are told in words."""
    shown = {name: line for name, line in list(series.items())[:SERIES_MAX] if line.points}
    if not shown:
        return nothing(axes)
    xs = [x for line in shown.values() for x, _ in line.points]
    near = {name: at for name, at in (marks or {}).items() if at <= _FAR * max(xs)}
    far = [f"{name} at {brief(at)}" for name, at in (marks or {}).items() if name not in near]
    axes = replace(axes, x=", ".join([axes.x, *far]))
    xs += near.values()
    ys = [y for line in shown.values() for _, y in line.points]
    ys += [edge for line in shown.values() for _, low, high in line.band for edge in (low, high)]
    frame = _Frame(_span(min(xs), max(xs)), _span(min(0.0, *ys), max(ys)))
    for name, place in near.items():
        x = frame.across(place)
        frame.parts.append(f'<path class="mark" d="M{x} {_TOP}V{HEIGHT - _BOTTOM}"/>')
        right = x > WIDTH * 0.7
        frame.text(x + (-3 if right else 3), _TOP + 9, name, "end" if right else "start")
    for number, line in enumerate(shown.values()):
        _line(frame, line, _COLOURS[number % len(_COLOURS)], number)
    _ruler(frame, across=True)
    legend = list(shown) if len(shown) > 1 or "" not in shown else []
    left_out = len(series) - SERIES_MAX
    return _svg(axes, frame, legend + ([f"and {left_out} more"] if left_out > 0 else []))


def bars(axes: Axes, values: Mapping[str, float]) -> str:
    """A bar for each name, its value above it."""
    if not values:
        return nothing(axes)
    frame = _Frame(
        (0.0, float(len(values))), _span(min(0.0, *values.values()), max(values.values()))
    )
    base = frame.down(0.0)
    for number, (name, value) in enumerate(values.items()):
        left, right = frame.across(number + 0.15), frame.across(number + 0.85)
        top = frame.down(value)
        colour = _COLOURS[number % len(_COLOURS)]
        box = f'x="{left}" y="{min(top, base)}" width="{right - left:.1f}"'
        about = f"<title>{escape(name)}: {brief(value)}</title>"
        height = f'height="{abs(base - top):.1f}"'
        frame.parts.append(f'<rect {box} {height} fill="{colour}">{about}</rect>')
        middle = (left + right) / 2
        frame.text(middle, min(top, base) - 3, brief(value))
        short = name if len(name) <= _BAR_TEXT else name[: _BAR_TEXT - 1] + "…"
        frame.text(middle, HEIGHT - _BOTTOM + 14, short)
    return _svg(axes, frame, [])


def nothing(axes: Axes) -> str:
    """A chart of which there is no data says so."""
    frame = _Frame((0.0, 1.0), (0.0, 1.0))
    frame.text(WIDTH / 2, HEIGHT / 2, "nothing to show")
    return _svg(axes, frame, [])


def distribution(values: Sequence[float]) -> Line:
    """The share of values at or below each."""
    ordered = sorted(values)
    count = len(ordered)
    return Line(_thin([(v, (place + 1) / count) for place, v in enumerate(ordered)]), steps=True)


def lorenz(values: Sequence[float]) -> Line:
    """The share of the whole that the poorest have, by their share of all."""
    ordered = sorted(values)
    total, so_far = sum(ordered), 0.0
    points = [(0.0, 0.0)]
    for place, value in enumerate(ordered):
        so_far += value
        points.append(((place + 1) / len(ordered), so_far / total if total else 0.0))
    return Line(_thin(points) if total else [])


def brief(value: float) -> str:
    """A number in few letters."""
    size = abs(value)
    if size >= 1e6 or (size and size < 1e-3):
        return f"{value:.3g}"
    return f"{value:,.0f}" if size >= 1_000 else f"{value:.4g}"


# ---- inside ------------------------------------------------------------------------------------


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS_MAX of them, the last one among them."""
    step = -(-len(points) // POINTS_MAX)
    kept = points[::step] if step > 1 else points
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def _line(frame: _Frame, line: Line, colour: str, number: int) -> None:
    if line.band:
        over = [(x, high) for x, _, high in line.band]
        under = [(x, low) for x, low, _ in reversed(line.band)]
        places = " ".join(f"{frame.across(x)},{frame.down(y)}" for x, y in [*over, *under])
        frame.parts.append(f'<polygon points="{places}" fill="{colour}" opacity="0.15"/>')
    path = ""
    for x, y in _thin(list(line.points)):
        place = f"{frame.across(x)} {frame.down(y)}"
        if path and line.steps:
            path += f"H{frame.across(x)}V{frame.down(y)}"
        else:
            path += f"L{place}" if path else f"M{place}"
    dashes = ' stroke-dasharray="5 3"' if number >= len(_COLOURS) else ""
    frame.parts.append(f'<path class="line" stroke="{colour}"{dashes} d="{path}"/>')
    if not line.steps and len(line.points) <= 20:
        for x, y in line.points:
            about = f"<title>{brief(x)}: {brief(y)}</title>"
            place = f'cx="{frame.across(x)}" cy="{frame.down(y)}"'
            frame.parts.append(f'<circle {place} r="2.5" fill="{colour}">{about}</circle>')


def _span(low: float, high: float) -> tuple[float, float]:
    """Ends of an axis; some room where all values are one."""
    if high > low:
        return low, high
    room = abs(low) or 1.0
    return (0.0, room * 1.25) if low >= 0 else (low - room / 4, 0.0)


def _ruler(frame: _Frame, *, across: bool) -> None:
    for value in _ticks(*(frame.x if across else frame.y)):
        if across:
            frame.text(frame.across(value), HEIGHT - _BOTTOM + 14, brief(value))
        else:
            y = frame.down(value)
            frame.parts.append(f'<path class="grid" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>')
            frame.text(_LEFT - 5, y + 3, brief(value), "end")


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between both."""
    rough = (high - low) / _TICKS
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(n for n in (1, 2, 5, 10) if n * scale >= rough) * scale
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _svg(axes: Axes, frame: _Frame, legend: Sequence[str]) -> str:
    drawn, frame.parts = frame.parts, []
    _ruler(frame, across=False)  # its lines are behind what is drawn
    frame.parts += drawn
    base = f'<path class="axis" d="M{_LEFT} {_TOP}V{HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"/>'
    frame.parts.append(base)
    frame.text(WIDTH / 2, 16, axes.title, more=' class="title"')
    frame.text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 12, axes.x)
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    frame.text(14, middle, axes.y, more=f' transform="rotate(-90 14 {middle})"')
    height = HEIGHT + 15 * len(legend)
    for number, name in enumerate(legend):
        y = HEIGHT + 15 * number
        colour = _COLOURS[number % len(_COLOURS)]
        frame.parts.append(f'<rect x="{_LEFT}" y="{y}" width="12" height="4" fill="{colour}"/>')
        frame.text(_LEFT + 18, y + 6, name, "start")
    head = f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">'
    return f"{head}<title>{escape(axes.title)}</title>{''.join(frame.parts)}</svg>"
