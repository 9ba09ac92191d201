"""Nodes' lines in a whole network: thin ones, clogged ones, and those nobody can dial."""

from __future__ import annotations

import pytest

from assay_simnet.drivers.fast import Fast
from assay_simnet.drivers.fast_node import FastNode
from assay_simnet.drivers.job_streams import DIAL_US
from simnet.scenario_texts import SMALL, ran, scenario

WIDE = '[network]\nup = "20 Mbit/s"\ndown = "100 Mbit/s"\n'
THIN = '[network]\nup = "16 kbit/s"\ndown = "64 kbit/s"\n'
CLOG = '[[fault]]\nkind = "clog"\nat = "5 s"\nfor = "9 s"\nfraction = 0.7\n'
LONG = SMALL.replace("40 s", "90 s")


def _ttft_s(world: Fast) -> float:
    return float(world.summary()["latency"]["ttft_s"]["p50"])


def test_a_thin_line_is_felt_and_a_wide_one_hardly() -> None:
    free, wide, thin = (_ttft_s(ran(more)) for more in ("", WIDE, THIN))
    assert free <= wide <= free + 0.02
    assert thin > free + 0.1


def test_a_profile_s_own_line_goes_before_the_network_s() -> None:
    own = "[profile.rtx4090-24g]\nup_mbps = 20.0\ndown_mbps = 100.0\n"
    assert ran(THIN + own).history.digest == ran(WIDE).history.digest


def test_lines_that_stall_cost_time_and_no_answer() -> None:
    world = ran(CLOG)
    figures = world.summary()
    assert set(figures["jobs"]["by_finish"]) == {"length"}
    assert figures["latency"]["e2e_s"]["p99"] > 2.0
    assert ran(CLOG).history.digest == world.history.digest


def test_lines_clog_and_clear_in_orders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Fast(scenario(CLOG.replace("0.7", "1.0")), 3)
    clogged: list[tuple[int, int, int]] = []
    honest = FastNode.clog

    def noted(node: FastNode, until_us: int) -> None:
        clogged.append((node.number, world.now, until_us))
        honest(node, until_us)

    monkeypatch.setattr(FastNode, "clog", noted)
    world.run()
    begun = [number for number, _, _ in sorted(clogged, key=lambda one: one[1])]
    cleared = [number for number, _, _ in sorted(clogged, key=lambda one: one[2])]
    assert sorted(begun) == [node.number for node in world.nodes]
    assert begun != cleared
    assert all(until - at >= 3_000_000 - 2_000 for _, at, until in clogged)


def test_who_cannot_be_dialled_audits_and_answers_nobody() -> None:
    world = ran("[population.nat]\nopen = 0.5\ncone = 0.25\nsymmetric = 0.25\n", text=LONG)
    hidden = [node for node in world.nodes if not node.reachable]
    assert 0 < len(hidden) < len(world.nodes)
    assert all(node.meter.jobs == 0 for node in hidden)
    assert sum(node.meter.audits for node in hidden) > 0
    figures = world.summary()
    assert figures["honest"]["jobs"] > 0
    assert figures["latency"]["e2e_s"]["p95"] > DIAL_US / 1e6


def test_where_nobody_can_be_dialled_every_job_still_ends() -> None:
    world = ran("[population.nat]\nsymmetric = 1\n")
    assert set(world.summary()["jobs"]["by_finish"]) == {"failed"}


def test_nat_shifts_no_other_draw() -> None:
    one, other = Fast(scenario(), 5), Fast(scenario("[population.nat]\ncone = 1\n"), 5)
    assert [node.kind for node in one.nodes] == [node.kind for node in other.nodes]
    assert {node.reachable for node in one.nodes} == {True}
    assert {node.reachable for node in other.nodes} == {False}
