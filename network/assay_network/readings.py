"""Metrics that are read off a process when somebody asks, and all of them as Prometheus text.

What can be seen at any time (a queue's length, a tally since the start) is read when it is asked
for and costs nothing before; only what is gone a moment later (a latency, a commit) is counted as
it happens, with prometheus_client's own counters and histograms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX: Final = "assay"

_Subject = TypeVar("_Subject")


@dataclass(frozen=True, slots=True)
class Reading(Generic[_Subject]):
    """One metric, read off a subject. `read` gives its value, or with a `label` one for each value
    of it: those are words of ours, few and known, never what a peer wrote.

    `rises`: it only grows while the process runs, and has the suffix _total.
    """

    name: str  # without prefix and suffix
    text: str
    read: Callable[[_Subject], float | Mapping[str, float]]
    label: str = ""
    rises: bool = False

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        """The metric without a value."""
        kind = CounterMetricFamily if self.rises else GaugeMetricFamily
        labels = [self.label] if self.label else []
        return kind(f"{PREFIX}_{self.name}", self.text, labels=labels)

    def of(self, subject: _Subject) -> Metric:
        """The metric as `subject` has it now."""
        family, found = self.family(), self.read(subject)
        if isinstance(found, Mapping):
            for word, value in found.items():
                family.add_metric([word], value)
        else:
            family.add_metric([], found)
        return family


class Readings(Collector, Generic[_Subject]):
    """Several readings of one subject, which `look` fetches once for all of them."""

    def __init__(self, readings: Sequence[Reading[_Subject]], look: Callable[[], _Subject]) -> None:
        self._readings, self._look = readings, look

    def describe(self) -> Iterator[Metric]:
        """What there is, without looking at anything."""
        for reading in self._readings:
            yield reading.family()

    def collect(self) -> Iterator[Metric]:
        """What is seen now."""
        subject = self._look()
        for reading in self._readings:
            yield reading.of(subject)


def new_registry() -> CollectorRegistry:
    """One process's metrics. They come without a series that says when each began."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return CollectorRegistry()


def exposition(registry: CollectorRegistry) -> bytes:
    """All metrics as Prometheus text."""
    return generate_latest(registry)
