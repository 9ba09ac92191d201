"""A job that asks for a region shows its prompt to no node that is said to be elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay.core import JobMachine
from assay.events import AskTicket, Begin, Ended, Granted, JobLimits, OpenStream
from assay.job_options import check_regions
from sdk.client_world import CLIENT, COORDINATOR, STANDING, FakeCoordinator, make_job


@pytest.mark.parametrize(
    ("said", "opened"), [("eu-de", True), ("eu", True), ("na-us", False), (None, False)]
)
def test_the_prompt_stays_here_unless_the_node_is_there(said: str | None, opened: bool) -> None:
    machine = JobMachine(make_job(regions=("eu",)), CLIENT, COORDINATOR.public_key, JobLimits())
    (ask,) = machine.handle(1_000, Begin())
    assert isinstance(ask, AskTicket)
    assert ask.body.regions == ("eu",)
    coordinator = FakeCoordinator(standing=replace(STANDING, region=said))
    effects = machine.handle(1_001, Granted(1, coordinator.grant(ask.body)))
    assert any(isinstance(effect, OpenStream) for effect in effects) == opened
    ended = [effect.outcome for effect in effects if isinstance(effect, Ended)]
    assert [one.error.code for one in ended if one.error] == (
        [] if opened else ["unexpected_message"]
    )


@pytest.mark.parametrize("regions", [("EU",), ("eu-",), ("eu",) * 9])
def test_what_names_no_region_is_not_asked_for(regions: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="regions"):
        check_regions(regions)
    check_regions(("eu", "na-us-tx"))
