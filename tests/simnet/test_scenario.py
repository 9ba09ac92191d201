"""Scenarios are read strictly: what is wrong is said with file, line and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay_simnet.grid import base
from assay_simnet.population import speed
from assay_simnet.quantities import QuantityError, rate_per_s, share, size_bytes, time_us
from assay_simnet.scenario import SHIPPED, read, source_of
from assay_simnet.schema import ScenarioError, Source
from simnet.scenario_texts import SMALL, scenario


def test_values_have_units() -> None:
    assert time_us("250 ms") == 250_000
    assert time_us("1.5 h") == 5_400_000_000
    assert time_us(0) == 0
    assert size_bytes("4.92 GB") == 4_920_000_000
    assert rate_per_s("120 / min") == pytest.approx(2.0)
    assert rate_per_s("3/s") == pytest.approx(3.0)
    assert share("2 %") == pytest.approx(0.02)
    assert share(0.5) == 0.5


@pytest.mark.parametrize("bad", ["5", 5, "5 sec", "-1 s", "s", True, None, "1 s 2"])
def test_a_time_without_its_unit_is_none(bad: object) -> None:
    with pytest.raises(QuantityError):
        time_us(bad)


@pytest.mark.parametrize(
    ("more", "place", "why"),
    [
        ("[netwrk]\nloss = 0.1\n", "small.toml:", "did you mean 'network'?"),
        ("[network]\nlos = 0.1\n", "small.toml:12", "did you mean 'loss'?"),
        ("[network]\nloss = 1.1\n", "small.toml:12", "from 0 to 1"),
        ('[network]\njitter = "5"\n', "small.toml:12", "has no unit"),
        ("[coordinator]\naudit_bps_mn = 5\n", "small.toml:12", "did you mean 'audit_bps_min'?"),
        ("[coordinator]\nlease_us = -1\n", "small.toml:12", "whole number"),
        ('[[adversary]]\nbehaviour = "lazi"\n', "small.toml:12", "did you mean 'lazy'?"),
        ("[[adversary]]\ncount = 1\n", "small.toml:", "behaviour is missing"),
        ('[[adversary]]\nbehaviour = "lazy"\n', "small.toml:11", "how many?"),
        ("[coordinator]\nfee_bps = 10001\n", "small.toml:12", "from 0 to 10,000"),
        ('[[adversary]]\nbehaviour = "lazy"\ncount = 7\n', "small.toml:", "more adversaries"),
        ('[[fault]]\nkind = "freeze"\nat = "1 h"\n', "small.toml:13", "longer than the safety"),
        ('[[fault]]\nkind = "freez"\nat = "1 s"\n', "small.toml:12", "did you mean 'freeze'?"),
        ('[[fault]]\nkind = "partition"\nat = "1 s"\n', "small.toml:12", "needs regions"),
        ('[[fault]]\nkind = "clog"\nat = "1 s"\n', "small.toml:12", "a clog needs for"),
        (
            '[[fault]]\nkind = "clog"\nat = "1 s"\nfor = "31 s"\n',
            "small.toml:14",
            "a clog needs for, at most 30 s",
        ),
        ('[network]\nup = "20 MB"\n', "small.toml:12", "unknown unit 'MB'"),
        ("[network]\ndown = 20\n", "small.toml:12", "a bandwidth is a text with a unit"),
        ("[population.nat]\nopne = 1\n", "small.toml:11", "did you mean 'open'?"),
        ("[population.nat]\nopen = 0\n", "small.toml:11", "all weights are zero"),
        ("[profile.rtx4090-24g]\nup_mbps = 0\n", "small.toml:12", "a number from 0.001"),
        ("[chain]\nconfirmation = 3\n", "small.toml:12", "did you mean 'confirmations'?"),
        ("[chain]\nblock = 0\n", "small.toml:12", "more than 0"),
        ("[chain]\nconfirmations = 1001\n", "small.toml:12", "whole number from 0 to 1,000"),
        (
            '[[fault]]\nkind = "chain_reorg"\nat = "1 s"\ndepth = 2\n',
            "small.toml:14",
            "deeper than chain.confirmations (0)",
        ),
        (
            '[[fault]]\nkind = "chain_reorg"\nat = "1 s"\ndepth = 0\n',
            "small.toml:14",
            "whole number from 1",
        ),
        ("[model]\ncontext = 100\n", "small.toml:", "more than the model's context"),
        ('[model]\nsize = "40 GB"\n', "small.toml:", "does not fit rtx4090-24g"),
        ("[profile.rtx409]\nslots = 2\n", "small.toml:", "did you mean"),
        ('[checks]\nof = ["L1", "Z9"]\n', "small.toml:12", "unknown invariant"),
        ('[churn]\nmodel = "trace"\n', "small.toml:12", "which file?"),
        ('[churn]\nmodel = "pareto"\n', "small.toml:", "infinite"),
    ],
)
def test_bad_scenarios_say_where_and_why(more: str, place: str, why: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(more)
    assert str(caught.value).startswith(place)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("more", "line", "why"),
    [
        ('[[fault]]\nkind = "torn_disk"\nat = "1 s"\n', 13, "has no fault 'torn_disk'"),
        ('[network]\ndown = "1 Mbit/s"\n', 13, "no lines"),
        ("[profile.rtx4090-24g]\nup_mbps = 3\n", 12, "no lines"),
        ("[population.nat]\nopen = 1\ncone = 1\n", 12, "no NATs"),
    ],
)
def test_what_a_level_would_pass_over_in_silence_is_refused(more: str, line: int, why: str) -> None:
    text = SMALL.replace("schema = 1\n", 'schema = 1\nlevel = "live"\n')
    with pytest.raises(ScenarioError, match=f"small.toml:{line}: level live .*{why}"):
        scenario(more, text)


@pytest.mark.parametrize("text", ["schema = 2\n", "name = 3\nschema = 1\n", "schema = [\n", ""])
def test_what_is_no_scenario_is_refused(text: str) -> None:
    with pytest.raises(ScenarioError):
        scenario(text=text)


def test_times_of_the_policy_may_have_units() -> None:
    policy = scenario('[coordinator]\nlease = "30 s"\nheartbeat_us = 7000000\n').policy
    assert (policy.lease_us, policy.heartbeat_us) == (30_000_000, 7_000_000)


def test_a_profile_may_be_measured_anew() -> None:
    found = scenario("[profile.rtx4090-24g]\nslots = 3\ndecode_tps = 99.5\n")
    assert found.profiles["rtx4090-24g"].slots == 3
    assert found.profiles["rtx4090-24g"].decode_tps == 99.5


def test_the_digest_is_of_all_but_the_seed_and_the_question() -> None:
    one = scenario()
    assert one.digest == scenario(text="# Why?\n" + "seed = 9\n" + SMALL[15:]).digest
    assert one.digest != scenario('[network]\njitter = "3 ms"\n').digest


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_scenarios_ask_a_question(path: Path) -> None:
    found = base(source_of(path.stem))
    assert found.name == path.stem
    assert found.question.endswith("?")


def test_an_unknown_name_has_a_near_one() -> None:
    with pytest.raises(ScenarioError, match="did you mean 'baseline'"):
        source_of("basline")


REAL = """schema = 1
name = "real"
level = "real"
[population]
nodes = 2
[workload]
clients = 2
"""


def test_what_processes_can_do_is_read_at_level_real() -> None:
    more = (
        '[[fault]]\nkind = "freeze"\nat = "1 s"\n[[adversary]]\nbehaviour = "quant_q2"\ncount = 1\n'
    )
    text = REAL.replace("[population]", "[model]\ncontext = 2048\n[population]")
    assert read(Source("real.toml", text + more)).level == "real"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[[fault]]\nkind = "partition"\nat = "1 s"\nregions = ["eu"]', "11: .*partition cannot"),
        ('[[adversary]]\nbehaviour = "lazy"\ncount = 1', "11: .*lazy has no process"),
        ('[[adversary]]\nbehaviour = "quant_q2"\ncount = 1\nafter = 3', "10: .*from its first job"),
        ('[churn]\nmodel = "weibull"', "11: .*nobody comes or goes"),
        ("[network]\nloss = 0.1", "11: .*loopback loses nothing"),
        ("[coordinator]\nlinks = 64", "11: .*links is no key"),
    ],
)
def test_what_processes_cannot_do_is_refused_with_its_line(more: str, said: str) -> None:
    text = REAL.replace("[population]", "[model]\ncontext = 2048\n[population]")
    with pytest.raises(ScenarioError, match=rf"real.toml:{said}"):
        read(Source("real.toml", text + more))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("nodes = 2", "nodes = 17", "5: .*at most 16"),
        ("nodes = 2", "nodes = 2\nqueue = 9", "6: .*queue is 8"),
        ("nodes = 2", "nodes = 2\nregions = { na = 1, eu = 1 }", "6: .*one region"),
        ("clients = 2", "clients = 65", "7: .*at most 64 clients"),
        ('level = "real"', 'tick = "3 ms"', "3: tick: .* whole number of it"),
        ("clients = 2", "clients = 2", "real.toml: .*2,048 tokens of context"),
    ],
)
def test_bounds_of_level_real_are_told(old: str, new: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        read(Source("real.toml", REAL.replace(old, new)))


def test_a_machine_that_slows_down_under_load_is_described() -> None:
    more = "[profile.rtx3070-8g]\ndecode_shares = [0.8, 0.5]\nrequest_ms = 2.5\n"
    profile = scenario(more).profiles["rtx3070-8g"]
    pace = speed(profile, profile.parameters, round(profile.size_gb * 1e9))
    one = pace.draw_us(10, 1)
    assert one == pytest.approx(1e7 / profile.decode_tps)
    assert [pace.draw_us(10, n) / one for n in (2, 3, 6)] == pytest.approx([1.25, 2.0, 4.0])
    assert pace.first_us(3) == 2_500
    assert pace.read_us(10, 2) == pytest.approx(2e7 / profile.prefill_tps)


@pytest.mark.parametrize("shares", ["[0.5, 0.8]", "[0.0]", "[1.5]", "0.5"])
def test_shares_that_grow_or_are_none_are_refused(shares: str) -> None:
    with pytest.raises(ScenarioError, match=r"small.toml:.*decode_shares"):
        scenario(f"[profile.rtx3070-8g]\ndecode_shares = {shares}\n")
