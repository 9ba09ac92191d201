"""The fast driver: one seed is one history, and whatever breaks, what was begun ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from assay_coordinator.core.events import Log
from assay_simnet.drivers.fast import Fast
from assay_simnet.grid import base
from assay_simnet.record import JobLine
from assay_simnet.scenario import source_of
from assay_simnet.summary import summary
from simnet.scenario_texts import SMALL, ran, scenario
from tidy_rules import ROOT

_DIGEST = """
import sys
sys.path.insert(0, {tests!r})
from simnet.scenario_texts import ran
world = ran({more!r})
print(world.history.digest, world.history.events, world.now)
"""
ROUGH = """
[[adversary]]
behaviour = "lazy"
count = 1
[[fault]]
kind = "node_crash"
at = "10 s"
for = "5 s"
fraction = 0.5
[[fault]]
kind = "coordinator_crash"
at = "20 s"
for = "3 s"
"""


def _digest_of_a_process(hash_seed: str) -> str:
    code = _DIGEST.format(tests=str(ROOT / "tests"), more=ROUGH)
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_same_scenario_and_seed_is_the_same_history_on_any_hash_seed() -> None:
    first = _digest_of_a_process("0")
    assert first == _digest_of_a_process("1")
    world = ran(ROUGH)
    assert first.split() == [world.history.digest, str(world.history.events), str(world.now)]
    assert ran(ROUGH, seed=2).history.digest != world.history.digest


@pytest.mark.parametrize(
    "more", ["", ROUGH, '[[fault]]\nkind = "bit_flip"\nat = "8 s"\nfraction = 0.5\n']
)
def test_what_is_known_again_is_what_its_bytes_say(more: str) -> None:
    """Two machines share no objects: decoding all bytes gives the same history."""
    shared, apart = ran(more), ran(more + "[checks]\nbytes = true\n")
    assert shared.scenario.checks.bytes < apart.scenario.checks.bytes
    assert shared.history.digest == apart.history.digest


def test_jobs_are_answered_booked_and_audited() -> None:
    world = ran()
    figures = summary(world)
    assert figures["jobs"]["begun"] == figures["jobs"]["ended"] > 20
    assert set(figures["jobs"]["by_finish"]) == {"length"}
    assert figures["verification"]["audits"] > 0
    assert figures["honest"]["earned"] > 0
    assert figures["phase"] == "audit"
    assert 0 < figures["latency"]["ttft_s"]["p50"] < figures["latency"]["e2e_s"]["p50"] < 5


def test_real_signatures_do_as_the_cheap_ones_do() -> None:
    cheap, real = (
        ran(),
        ran(text=SMALL.replace("[population]", 'signatures = "ed25519"\n[population]')),
    )
    jobs = [(world.record.over, world.record.tokens) for world in (cheap, real)]
    assert jobs[0] == jobs[1]
    assert real.record.logs["verdict"] > 0


def test_one_more_fault_shifts_no_arrival() -> None:
    calm, stormy = ran(), ran('[[fault]]\nkind = "delay"\nat = "1 s"\nfor = "5 s"\n')
    begun = [sorted(line.begun_us for line in world.record.honest) for world in (calm, stormy)]
    assert begun[0] == begun[1]
    assert calm.history.digest != stormy.history.digest


@pytest.mark.parametrize(
    "fault",
    [
        'kind = "coordinator_crash"\nfor = "5 s"\n',
        'kind = "node_crash"\nfor = "5 s"\nfraction = 0.6\n',
        'kind = "freeze"\nfor = "10 s"\nfraction = 0.6\n',
        'kind = "clock_drift"\nfor = "20 s"\nppm = 1000\n',
        'kind = "clock_jump"\nby = "20 s"\nfraction = 0.5\n',
        'kind = "partition"\nfor = "10 s"\nregions = ["eu"]\n',
        'kind = "partition"\nfor = "10 s"\nregions = ["eu"]\none_way = true\n',
        'kind = "loss"\nfor = "10 s"\nfraction = 0.05\n',
        'kind = "duplicate"\nfor = "20 s"\nfraction = 0.5\n',
        'kind = "reorder"\nfor = "20 s"\nfraction = 0.5\n',
        'kind = "delay"\nfor = "10 s"\nby = "2 s"\n',
        'kind = "chain_outage"\nfor = "20 s"\n',
        'kind = "engine_crash"\nevery = "3 s"\n',
        'kind = "bit_flip"\nfraction = 0.5\n',
        'kind = "slow_disk"\nfor = "10 s"\nby = "4 s"\n',
        'kind = "disk_full"\nfor = "10 s"\nfraction = 0.5\n',
    ],
    ids=lambda fault: fault.split('"')[1],
)
def test_through_every_fault_what_was_begun_ends(fault: str) -> None:
    text = SMALL.replace("nodes = 6", "nodes = 6\nregions = { na = 1, eu = 1 }")
    world = ran(f'[[fault]]\nat = "8 s"\n{fault}', text=text)
    assert world.faults.happened >= 1
    assert world.record.begun == world.record.over > 20
    calm = ran(text=text)
    assert world.history.digest != calm.history.digest, "the fault did nothing"


def test_a_crashed_coordinator_goes_on_from_its_tables() -> None:
    world = Fast(scenario('[[fault]]\nkind = "coordinator_crash"\nat = "8 s"\nfor = "2 s"\n'), 1)
    before = world.coordinator.core
    world.run()
    assert world.coordinator.core is not before
    assert world.coordinator.starts == 3  # empty, with what it remembers, after the crash


def test_nodes_that_come_and_go_lose_no_receipt() -> None:
    churn = '[churn]\nmodel = "exponential"\nsession_mean = "15 s"\naway_mean = "5 s"\n'
    world = ran(churn)
    assert world.record.logs["registered"] > 12
    assert sum(node.owes for node in world.nodes) == 0


@pytest.mark.parametrize("behaviour", ["lazy", "equivocator", "quant_q2"])
def test_cheats_are_stopped_and_honest_nodes_are_not(behaviour: str) -> None:
    more = f'[[adversary]]\nbehaviour = "{behaviour}"\ncount = 1\nverified = 30\n'
    text = SMALL.replace('"40 s"', '"4 min"')
    world = ran(more, text=text)
    figures = summary(world)
    assert figures["adversaries"][behaviour]["stopped"] == 1
    assert set(figures["honest"]["states"]) == {"active"}


def test_free_riders_get_no_more_than_a_window_unpaid() -> None:
    more = 'answer_tokens = 250\n[[adversary]]\nbehaviour = "free_rider"\ncount = 2\n'
    world = ran(more)
    riders = [client for client in world.clients if client.behaviour]
    assert len(riders) == 2
    assert world.record.begun == world.record.over


def test_tables_are_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        world = Fast(scenario(), 3, folder)
        world.run()
        world.record.jobs.close()
    one, two = ((tmp_path / name / "jobs.csv.gz") for name in ("one", "two"))
    if one.exists():  # Parquet writers name themselves in their files
        assert one.read_bytes() == two.read_bytes()


def test_nobody_asks_once_the_workload_is_over() -> None:
    """Seed 913 of `baseline --small`: a session's next question, asked after a pause that outlasted
    the workload, came when the network was taken for quiet; its ticket was open in the end."""
    world = Fast(base(source_of("baseline"), small=True), 913)
    asked: list[int] = []

    class Lines:
        def ended(self, line: JobLine) -> None:
            asked.append(line.begun_us)

        def logged(self, now: int, log: Log) -> None:
            """Of no interest."""

    world.record.listeners.append(Lines())
    world.run()
    assert max(asked) < world.arrivals_end
