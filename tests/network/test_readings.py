"""Readings: taken when asked for, one look for all."""

from __future__ import annotations

import pytest

from assay_network.readings import Reading, Readings, exposition, new_registry

READINGS: tuple[Reading[dict[str, int]], ...] = (
    Reading("queue", "Waiting.", lambda seen: seen["queue"]),
    Reading("jobs", "Done, by outcome.", dict, label="outcome", rises=True),
)


def test_each_is_read_when_it_is_asked_for_off_one_look() -> None:
    looks: list[dict[str, int]] = []

    def look() -> dict[str, int]:
        looks.append({"queue": len(looks) + 3})
        return looks[-1]

    registry = new_registry()
    registry.register(Readings(READINGS, look))
    assert looks == [], "nothing is read before somebody asks"
    assert b"assay_queue 3.0\n" in exposition(registry)
    text = exposition(registry).decode()
    assert "# TYPE assay_queue gauge\nassay_queue 4.0\n" in text
    assert '# TYPE assay_jobs_total counter\nassay_jobs_total{outcome="queue"} 4.0\n' in text
    assert len(looks) == 2


def test_no_series_says_when_another_began() -> None:
    registry = new_registry()
    registry.register(Readings(READINGS, lambda: {"queue": 1}))
    assert b"_created" not in exposition(registry)


def test_a_name_that_is_there_twice_is_refused() -> None:
    registry = new_registry()
    registry.register(Readings(READINGS, lambda: {"queue": 1}))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Readings(READINGS[:1], lambda: {"queue": 1}))
