"""docs/pictures/*.svg from the state tables that the cores obey; `make pictures` writes them.

Each state is a vertical line, each move of the table an arrow between two of them, in the table's
order, with the table's words. Nothing is placed by hand, so a picture cannot tell of a move that
the code does not make. tests/test_pictures.py says when one is out of date.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from assay import core as client
from assay_coordinator.core import audits, jobs, standing

PICTURES: Final = Path(__file__).resolve().parents[1] / "docs" / "pictures"
LANE: Final = 170  # pixels between two states' lines
ROW: Final = 34  # between two moves
HEAD: Final = 78  # above the first move
EDGE: Final = 24
LOOP: Final = 26  # how far a move from a state to itself goes out
BOX: Final = (124, 30)
LETTER: Final = 6.1  # mean width of a letter at 12 px, for the ends of long words
STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#1c2733}.t{font-size:14px;font-weight:600}"
    ".s{font-weight:600;text-anchor:middle}.b{fill:#e8f0fa;stroke:#3b6ea5}"
    ".l{stroke:#c3ccd6;stroke-dasharray:3 4}.a{stroke:#3b6ea5;stroke-width:1.5;fill:none}"
    ".w{paint-order:stroke;stroke:#fff;stroke-width:4px;text-anchor:middle}"
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A table, and what it is of."""

    name: str
    title: str
    moves: Mapping[tuple[str, str], str]


def pictures() -> list[Picture]:
    """One for each table."""
    phases = {(a.name.lower(), b.name.lower()): why for (a, b), why in client.MOVES.items()}
    return [
        Picture("job", "A job in the coordinator's books", jobs.MOVES),
        Picture("standing", "A node's standing", standing.MOVES),
        Picture("audit", "One replay of an audit: who is waited for", audits.STAGES),
        Picture("client", "A job as its client sees it", phases),
    ]


def draw(picture: Picture) -> str:
    """The SVG, readable on light and dark pages alike: it has a ground of its own."""
    states = _states(picture.moves)
    lanes = {state: EDGE + BOX[0] // 2 + LANE * i for i, state in enumerate(states)}
    width = 2 * EDGE + BOX[0] + LANE * (len(states) - 1)
    height = HEAD + ROW * len(picture.moves) + EDGE
    told = "; ".join(f"{a} to {b}: {why}" for (a, b), why in picture.moves.items())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-labelledby="title desc">',
        f'<title id="title">{escape(picture.title)}</title>',
        f'<desc id="desc">{escape(told)}</desc>',
        f"<style>{STYLE}</style>",
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#3b6ea5"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>',
        f'<text class="t" x="{EDGE}" y="24">{escape(picture.title)}</text>',
    ]
    for state, x in lanes.items():
        parts += _lane(state, x, height)
    for row, ((source, target), why) in enumerate(picture.moves.items()):
        parts += _move(lanes[source], lanes[target], HEAD + ROW * row + 22, why, width)
    return "\n".join([*parts, "</svg>", ""])


def _states(moves: Mapping[tuple[str, str], str]) -> list[str]:
    """In the table's order, those that nothing leads out of at the end."""
    left = {source for source, _ in moves}
    met = dict.fromkeys(state for pair in moves for state in pair)
    return sorted(met, key=lambda state: state not in left)


def _lane(state: str, x: int, height: int) -> list[str]:
    return [
        f'<line class="l" x1="{x}" y1="66" x2="{x}" y2="{height - 12}"/>',
        f'<rect class="b" x="{x - BOX[0] // 2}" y="36" width="{BOX[0]}" height="{BOX[1]}" rx="6"/>',
        f'<text class="s" x="{x}" y="55">{escape(state.replace("_", " "))}</text>',
    ]


def _move(source: int, target: int, y: int, why: str, width: int) -> list[str]:
    """An arrow, and its words above the middle of it, moved in where they would leave the page."""
    path, middle = f"M{source} {y}H{target}", (source + target) / 2
    if source == target:
        path, middle = f"M{source} {y - 7}h{LOOP}v9H{source + 2}", source + LOOP
    half = len(why) * LETTER / 2 + 6
    middle = min(max(middle, half), width - half)
    words = f'<text class="w" x="{middle:.0f}" y="{y - 6 - 4 * (source == target)}">'
    return [
        f'<path class="a" marker-end="url(#end)" d="{path}"/>',
        f"{words}{escape(why)}</text>",
    ]


def main() -> None:
    """Write them all."""
    PICTURES.mkdir(exist_ok=True)
    for picture in pictures():
        (PICTURES / f"{picture.name}.svg").write_text(draw(picture))


if __name__ == "__main__":
    main()
