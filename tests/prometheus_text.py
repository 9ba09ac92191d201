"""Reads Prometheus text as a scraper does."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families


def samples(text: bytes) -> dict[str, float]:
    """Every sample by its name, with its labels as they are written: `assay_jobs_total{...}`."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for name, labels, value, *_ in family.samples:
            words = ",".join(f'{key}="{word}"' for key, word in labels.items())
            found[f"{name}{{{words}}}" if words else name] = value
    return found


def label_names(text: bytes) -> set[str]:
    """Every label that any sample has."""
    return set(re.findall(r'[{,](\w+)="', text.decode()))
