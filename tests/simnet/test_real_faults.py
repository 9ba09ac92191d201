"""Faults of real processes: when and whom they hit, and that each is over in the end."""

from __future__ import annotations

from collections.abc import Sequence
from signal import Signals

import trio
from trio.testing import MockClock

from assay_simnet.drivers.real_faults import Faults
from assay_simnet.scenario import Scenario, read
from assay_simnet.schema import Source
from assay_simnet.seeds import Streams

TEXT = """schema = 1
name = "broken"
level = "real"
duration = "20 s"
[model]
context = 512
[population]
nodes = 4
[workload]
clients = 2
prompt_most = 128
"""


class Noted:
    """Processes that only remember what was done to them, and when."""

    def __init__(self) -> None:
        self.done: list[tuple[float, str, str]] = []
        self.names: Sequence[str] = [f"node-{number}" for number in range(1, 5)]

    async def crash(self, name: str) -> None:
        self._note("crash", name)

    async def start(self, name: str) -> None:
        self._note("start", name)

    def signal(self, name: str, number: Signals) -> None:
        self._note(number.name, name)

    def note(self, what: str) -> None:
        self._note(what, "")

    def _note(self, what: str, name: str) -> None:
        self.done.append((round(trio.current_time(), 3), what, name))


def _carried_out(more: str, seed: int = 1) -> tuple[list[tuple[float, str, str]], Faults]:
    scenario: Scenario = read(Source("broken.toml", TEXT + more))
    processes = Noted()
    faults = Faults(scenario, Streams(seed), processes)

    async def all_of_it() -> None:
        with trio.move_on_at(20):
            await faults.carry_out(0.0)
        await faults.over()

    trio.run(all_of_it, clock=MockClock(autojump_threshold=0))
    return processes.done, faults


def test_the_coordinator_comes_back_after_its_time() -> None:
    done, faults = _carried_out('[[fault]]\nkind = "coordinator_crash"\nat = "2 s"\nfor = "3 s"\n')
    assert done == [
        (2.0, "coordinator_crash", ""),
        (2.0, "crash", "coordinator"),
        (5.0, "start", "coordinator"),
    ]
    assert faults.happened == 1


def test_a_fault_without_a_time_lasts_until_the_heal_phase_and_every_means_again() -> None:
    done, _ = _carried_out('[[fault]]\nkind = "freeze"\nat = "2 s"\n')
    assert [what for _, what, _ in done] == ["freeze", *["SIGSTOP"] * 4, *["SIGCONT"] * 4]
    assert done[-1][0] == 2.0  # nothing else happens: the heal phase is next
    again = '[[fault]]\nkind = "node_crash"\nat = "1 s"\nfor = "1 s"\nevery = "8 s"\n'
    done, faults = _carried_out(again + "fraction = 0.5\n", seed=3)
    assert [at for at, what, _ in done if what == "node_crash"] == [1.0, 9.0, 17.0]
    assert faults.happened == 3
    crashed = [(at, name) for at, what, name in done if what == "crash"]
    started = [(at - 1.0, name) for at, what, name in done if what == "start"]
    assert crashed == started
    assert 0 < len(crashed) < 12  # a share of the nodes, drawn each time
    assert done == _carried_out(again + "fraction = 0.5\n", seed=3)[0]
