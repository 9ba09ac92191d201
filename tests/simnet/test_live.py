"""The live driver: production's runtimes in virtual time; one seed is one history."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.coordinator_link import CoordinatorLink
from assay_coordinator.core.events import Effect, Save
from assay_coordinator.core.ledger import Ledger
from assay_coordinator.runtime import Runtime
from assay_network.kept_stream import Session
from assay_protocol.messages import ReceiptBooked
from assay_simnet.cli import main
from assay_simnet.drivers.fast import Fast
from assay_simnet.drivers.live import Live
from assay_simnet.exercised import tally_of
from assay_simnet.grid import base
from assay_simnet.invariants import Violated
from assay_simnet.record import JobLine
from assay_simnet.scenario import NOT_LIVE, source_of
from assay_simnet.schema import ScenarioError
from assay_simnet.summary import summary
from simnet.scenario_texts import SMALL, scenario
from tidy_rules import ROOT

RIDERS = ("free_rider", "hoarder")
Patch = Callable[[pytest.MonkeyPatch], None]
LIVE = SMALL.replace("schema = 1", 'schema = 1\nlevel = "live"')
CRASH = '[[fault]]\nkind = "coordinator_crash"\nat = "10 s"\nfor = "5 s"\n'
ROUGH = f"""
[churn]
model = "exponential"
session_mean = "20 s"
away_mean = "5 s"
[[adversary]]
behaviour = "lazy"
count = 1
[[fault]]
kind = "node_crash"
at = "20 s"
for = "5 s"
fraction = 0.5
{CRASH}"""
_DIGEST = """
import sys
sys.path.insert(0, {tests!r})
from simnet.test_live import ROUGH, ran
world = ran(ROUGH)
print(world.history.digest, world.history.events, world.now)
"""


def ran(more: str = "", seed: int = 1, text: str = LIVE) -> Live:
    """The world of a run that broke nothing."""
    world = Live(scenario(more, text), seed)
    world.run()
    return world


class Lines:
    """Every job's line, as it ends."""

    def __init__(self, world: Live) -> None:
        self.all: list[JobLine] = []
        world.record.listeners.append(self)

    def ended(self, line: JobLine) -> None:
        self.all.append(line)

    def logged(self, now: int, log: object) -> None: ...


def test_the_same_scenario_and_seed_is_the_same_history_on_any_hash_seed() -> None:
    world = ran(ROUGH)
    here = f"{world.history.digest} {world.history.events} {world.now}\n"
    code = _DIGEST.format(tests=str(ROOT / "tests"))
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == here
    assert ran(ROUGH, seed=2).history.digest != world.history.digest


def test_a_sweep_s_rows_are_the_same_bytes_for_one_and_two_workers(tmp_path: Path) -> None:
    text = LIVE.replace('"40 s"', '"10 s"') + "[sweep]\nreplicates = 3\n"
    (tmp_path / "small.toml").write_text(text)
    for workers in ("1", "2"):
        out = str(tmp_path / workers)
        command = ["sweep", str(tmp_path / "small.toml"), "--workers", workers, "--out", out]
        assert main(command) == 0
    rows = [sorted((tmp_path / workers).glob("sweep.*")) for workers in ("1", "2")]
    assert rows[0]
    for one, two in zip(*rows, strict=True):
        assert one.name == two.name
        assert one.read_bytes() == two.read_bytes()


def test_in_calm_weather_jobs_and_money_are_those_of_fast() -> None:
    live, fast = ran(), Fast(scenario(text=SMALL), 1)
    fast.run()
    assert [node.key for node in live.nodes] == [node.key for node in fast.nodes]
    assert live.record.begun == live.record.finished["length"] == fast.record.begun
    assert live.record.tokens == fast.record.tokens
    (kept, held), (as_kept, as_held) = (
        _purses(world.coordinator.core.ledger) for world in (live, fast)
    )
    assert kept == as_kept, "every client was charged the same"
    assert held == as_held > 0, "what those paid; who has it by now, timing decides"


def _purses(ledger: Ledger) -> tuple[dict[tuple[str, bytes], int], int]:
    """What clients and the mint have, and what all others have together."""
    amounts = {(p.kind, p.owner): amount for p, amount in ledger.balances.items() if amount}
    paid = ("earned", "escrow", "treasury")
    kept = {purse: amount for purse, amount in amounts.items() if purse[0] not in paid}
    return kept, sum(amount for purse, amount in amounts.items() if purse[0] in paid)


def test_real_signatures_do_as_the_cheap_ones_do() -> None:
    real = LIVE.replace("schema = 1", 'schema = 1\nsignatures = "ed25519"')
    world, cheap = ran(text=real), ran()
    assert world.record.begun == world.record.finished["length"]
    assert world.record.tokens == cheap.record.tokens
    assert ran(text=real).history.digest == world.history.digest


def test_a_cheat_is_convicted_and_no_honest_node_is() -> None:
    text = LIVE.replace('"40 s"', '"3 min"')
    world = ran('[[adversary]]\nbehaviour = "lazy"\ncount = 1\nverified = 30\n', text=text)
    figures = summary(world)
    assert figures["adversaries"]["lazy"]["states"] == {"convicted": 1}
    assert figures["false_convictions"] == 0
    assert set(figures["honest"]["states"]) == {"active"}


def test_an_answer_whose_node_dies_goes_on_elsewhere_where_it_was() -> None:
    text = LIVE.replace("clients = 4", 'clients = 4\nlengths = "fixed"\nanswer_tokens = 256')
    crash = 'kind = "node_crash"\nfor = "2 s"\nfraction = 0.5\nevery = "8 s"\n'
    world = Live(scenario(f'[[fault]]\nat = "4 s"\n{crash}', text), 1)
    lines = Lines(world)
    world.run()  # P1 holds every answer to what one node alone would have drawn
    resumed = [line for line in lines.all if len(line.nodes) > 1]
    assert resumed
    assert all(line.finish == "length" and line.tokens == 256 for line in resumed)


def test_a_partition_is_noticed_by_pings_and_heals() -> None:
    text = LIVE.replace("nodes = 6", "nodes = 6\nregions = { na = 1, eu = 1 }")
    text = text.replace('"40 s"', '"3 min"')
    more = '[[fault]]\nkind = "partition"\nat = "20 s"\nfor = "90 s"\nregions = ["eu"]\n'
    world = ran(more, text=text)
    assert world.record.begun == world.record.over > 100
    assert world.record.logs["registered"] > len(world.nodes), "those cut off came back"
    assert any(node.region == "eu" and node.meter.jobs for node in world.nodes)


@pytest.mark.parametrize(
    "fault",
    [
        'kind = "freeze"\nfor = "5 s"\nfraction = 0.5\n',
        'kind = "clock_jump"\nby = "20 s"\nfraction = 0.5\n',
        'kind = "clock_drift"\nfor = "10 s"\nppm = 1000\n',
        'kind = "partition"\nfor = "10 s"\nregions = ["eu"]\none_way = true\n',
        'kind = "loss"\nfor = "10 s"\nfraction = 0.2\n',
        'kind = "delay"\nfor = "10 s"\nby = "2 s"\n',
        'kind = "chain_outage"\nfor = "10 s"\n',
        'kind = "engine_crash"\nevery = "3 s"\n',
        'kind = "bit_flip"\nfraction = 0.5\n',
        'kind = "disk_full"\nfor = "10 s"\nfraction = 0.5\n',
        'kind = "coordinator_crash"\nfor = "2 s"\nevery = "9 s"\n',
    ],
    ids=lambda fault: fault.split('"')[1],
)
def test_through_every_fault_what_was_begun_ends(fault: str) -> None:
    text = LIVE.replace("nodes = 6", "nodes = 6\nregions = { na = 1, eu = 1 }")
    text = text.replace('"40 s"', '"20 s"')
    world = ran(f'[[fault]]\nat = "8 s"\n{fault}', text=text)
    assert world.faults.happened >= 1
    assert world.record.begun == world.record.over > 10


def test_free_riders_and_hoarders_end_too() -> None:
    riders = [f'[[adversary]]\nbehaviour = "{name}"\ncount = 1\n' for name in RIDERS]
    text = LIVE.replace('"40 s"', '"15 s"')
    world = ran('[coordinator]\nreceipt_grace = "1 min"\n' + "".join(riders), text=text)
    assert sum(bool(client.behaviour) for client in world.clients) == 2
    assert world.record.begun == world.record.over


def test_the_shipped_scenario_at_its_small_size_goes_through_what_it_asks() -> None:
    world = Live(base(source_of("live-baseline"), small=True), 0)
    world.run()
    figures = tally_of(world.summary())
    assert min(figures.jobs, figures.audits, figures.cheated, figures.faults, figures.epochs) >= 1


def test_a_replay_tells_a_node_s_messages_and_stops_where_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.toml").write_text(LIVE)
    command = ["replay", str(tmp_path / "small.toml"), "--seed", "1"]
    assert main([*command, "--until", "14 s", "--node", "2"]) == 0
    told = capsys.readouterr().out
    assert "at 14.000 s:" in told
    assert "#2 -> coordinator" in told


@pytest.mark.parametrize("kind", NOT_LIVE)
def test_a_fault_it_does_not_have_is_refused_with_its_line(kind: str) -> None:
    more = f'[[fault]]\nat = "8 s"\nfor = "5 s"\nkind = "{kind}"\n'
    line = (LIVE + more).splitlines().index(f'kind = "{kind}"') + 1
    with pytest.raises(ScenarioError, match=rf"small\.toml:{line}: level live has no fault"):
        scenario(more, LIVE)


def test_a_tick_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"small\.toml:\d+: tick: level live has none"):
        scenario(text=LIVE.replace("schema = 1", 'schema = 1\ntick = "5 ms"'))


# ---- bugs of the runtimes, which no other level runs ----


def _replies_before_it_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Group commit the wrong way round: what a peer was told may never have been written."""
    carry_out = Runtime._carry_out

    async def hasty(self: Runtime, batch: list[Effect]) -> None:
        self._release([one for one in batch if not isinstance(one, Save)])
        await carry_out(self, [one for one in batch if isinstance(one, Save)])

    monkeypatch.setattr(Runtime, "_carry_out", hasty)


def _misses_a_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task that hands receipts in sleeps on: it was told before it looked away."""

    def quiet(self: CoordinatorLink, body: Any) -> None:
        self._outbox.append(body)

    monkeypatch.setattr(CoordinatorLink, "hand_in", quiet)


def _never_sees_a_session_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a session to close waits for ever, and never makes a new one."""
    end = Session.end

    def half(self: Session, reason: Any) -> None:
        closed, self.closed = self.closed, type(self.closed)()
        end(self, reason)
        self.closed = closed

    monkeypatch.setattr(Session, "end", half)


def _forgets_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is given to nobody: its session was taken off the list too early."""
    answer = Runtime._answer

    def lossy(self: Runtime, request: int, message: object) -> None:
        if isinstance(message, ReceiptBooked):
            self._requests.pop(request)
        else:
            answer(self, request, message)

    monkeypatch.setattr(Runtime, "_answer", lossy)


@pytest.mark.parametrize(
    ("plant", "idents"),
    [
        (_replies_before_it_commits, {"L3", "D1"}),
        (_misses_a_wake_up, {"P1"}),
        (_never_sees_a_session_end, {"P1", "D1"}),
        (_forgets_a_request, {"P1", "D1"}),
    ],
)
def test_a_bug_planted_in_a_runtime_is_found(
    plant: Patch, idents: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    text = LIVE.replace("schema = 1", 'schema = 1\nheal = "5 min"')
    with pytest.raises(Violated) as caught:
        ran(CRASH, text=text)
    assert caught.value.ident in idents
    with pytest.raises(Violated, match=str(caught.value)[:60]):
        ran(CRASH, text=text)
