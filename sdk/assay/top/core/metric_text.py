"""Prometheus text as far as `assay top` needs it: samples by name, and histograms of them.

Only our own metrics are kept (`assay_...`). A line that is none is passed over; whatever the text
is, nothing is raised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf, isfinite
from typing import Final

from assay.top.core.histograms import Histogram

LINES_MAX: Final = 20_000
_SAMPLE: Final = re.compile(r"assay_(\w+)(\{[^{}\n]*\})?[ \t]+(\S+)")
_BOUND: Final = re.compile(r'\{le="([^"]+)"\}')

Samples = Mapping[str, float]  # by name without the prefix, with its labels as they are written


def samples(text: str) -> dict[str, float]:
    """Every finite sample that is not negative; of one that comes twice, the last."""
    found: dict[str, float] = {}
    for line in text.split("\n", LINES_MAX)[:LINES_MAX]:
        match = _SAMPLE.match(line)
        value = None if match is None else _float(match[3])
        if match is not None and value is not None and 0 <= value < inf:
            found[match[1] + (match[2] or "")] = value
    return found


def histogram(read: Samples, name: str) -> Histogram | None:
    """The histogram of that name; None if there is none, or it is not one."""
    buckets = []
    for key, value in read.items():
        if key.startswith(f"{name}_bucket"):
            match = _BOUND.fullmatch(key[len(name) + len("_bucket") :])
            bound = None if match is None else _float(match[1])
            if bound is not None:
                buckets.append((bound, value))
    return Histogram.of(buckets)


def _float(text: str) -> float | None:
    """Of a number; None for NaN too."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) or value == inf else None
