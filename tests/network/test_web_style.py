"""Colours of style.css: text on its ground has the contrast WCAG AA asks for, light and dark."""

from __future__ import annotations

import re

import pytest

from assay_network.web_pages import web_files

CONTRAST_MIN = 4.5
STYLE = web_files()["style.css"].content.decode()
SCHEMES = re.findall(r":root \{([^}]*--ground[^}]*)\}", STYLE)
PAIRS = [
    *((ink, ground) for ink in ("text", "muted") for ground in ("ground", "surface", "sunken")),
    *(
        (ink, ground)
        for ink in ("accent", "good", "warn", "bad")
        for ground in ("ground", "surface")
    ),
    *((ink, f"{ink}-soft") for ink in ("accent", "good", "warn", "bad")),
    ("text", "accent-soft"),
    ("surface", "accent"),  # of the main button
]


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_the_standard_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("ink", "ground"), PAIRS)
def test_text_can_be_read(scheme: int, ink: str, ground: str) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", SCHEMES[scheme]))
    assert contrast(colours[ink], colours[ground]) >= CONTRAST_MIN
