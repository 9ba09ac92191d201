"""`assay cost`: sums, prices beside one another, and files that are none."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from assay.cli import main
from assay.gateway.api_keys import add_key
from assay.gateway.spending import Spending
from assay.gateway.usage import DAY_SECONDS, Usage, Used, read_usage
from assay.records import write_records
from assay.routing.core.costs import Cost, added_up, beside
from assay.routing.core.plans import Terms
from sdk.routing.kept_records import made_record

TODAY = int(time.time()) // DAY_SECONDS
ROUTES = """
credit_price = 2000000
[upstream.closed]
url = "https://api.example.com/v1"
currency = "EUR"
price_in = 1000
price_out = 4000
"""
USED = Used(TODAY, "alice", "", "toy", 2, 3_000, 1_000, 5_000_000, 0)


async def kept(folder: Path, *more: Used) -> Path:
    usage = Usage(folder / "gateway.sqlite")
    for one in (USED, *more):
        usage.add(one)
    await usage.flush()
    return folder


async def test_a_gateways_costs_beside_an_upstreams(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = Used(TODAY, "bob", "closed", "m-1", 1, 1_000, 500, 0, 3_000)
    old = replace(USED, day=TODAY - 9, requests=5)
    data = await kept(tmp_path, far, replace(USED, caller="bob"), old)
    (tmp_path / "routes.toml").write_text(ROUTES)
    words = ["cost", "--data", str(data), "--routes", str(tmp_path / "routes.toml")]
    assert main([*words, "--days", "2", "--json"]) == 0
    closed, toy = json.loads(capsys.readouterr().out)["lines"]
    assert (toy["answers"], toy["tokens_in"], toy["credit"]) == (4, 6_000, 10_000_000)
    assert toy["per_1000"] == 10_000_000 * 1_000 // 8_000
    assert toy["money"] == 20_000_000
    assert toy["elsewhere"] == {"closed": 6 * 1_000 + 2 * 4_000}
    assert (closed["upstream"], closed["price"], closed["elsewhere"]) == ("closed", 3_000, {})
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "15 credits" in shown, "all days"
    assert "0.003 EUR" in shown


async def test_keys_are_told_apart_for_the_owner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = Used(TODAY, "bob", "closed", "m-1", 1, 1_000, 500, 0, 3_000)
    data = await kept(tmp_path, far, replace(USED, caller="bob"))
    await Spending(data / "gateway.sqlite").add("bob", 3_000, "closed")
    keys = tmp_path / "keys"
    add_key(keys, "bob", upstream_budgets={"closed": 10_000})
    add_key(keys, "alice")
    (tmp_path / "routes.toml").write_text(ROUTES + "key_budget = 7\n")
    words = ["cost", "--owner", "--data", str(data), "--routes", str(tmp_path / "routes.toml")]
    assert main([*words, "--keys", str(keys), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    lines = [(one["caller"], one["upstream"], one["answers"]) for one in told["lines"]]
    assert lines == [("bob", "closed", 1), ("alice", "", 2), ("bob", "", 2)]
    assert told["budgets"] == [
        {"caller": "alice", "upstream": "closed", "spent": 0, "budget": 7, "left": 7},
        {"caller": "bob", "upstream": "closed", "spent": 3_000, "budget": 10_000, "left": 7_000},
    ]
    assert main(words) == 0, "without the keys' file only what was spent is known"
    shown = capsys.readouterr().out
    assert "key    answered by" in shown
    assert shown.splitlines()[-1].split() == ["bob", "closed", "0.003", "EUR", "0.000007", "EUR",
                                              "0", "EUR"]  # fmt: skip
    assert main(["cost", "--data", str(data), "--keys", str(keys)]) == 2
    assert "needs --owner" in capsys.readouterr().err


async def test_a_gateway_of_before_kept_no_keys_spending(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await kept(tmp_path)
    assert main(["cost", "--owner", "--data", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["budgets"] == []


async def test_receipts_that_were_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "receipts"
    record = made_record(n_in=11, n_out=5, price_in=1_000, price_out=2_000)
    file.write_bytes(write_records([record, record]))
    assert main(["cost", "--receipts", str(file), "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["lines"]
    assert (line["answers"], line["tokens_in"], line["tokens_out"]) == (2, 22, 10)
    assert line["credit"] == 2 * (11 + 10)
    assert line["model"] == ("03" * 32)[:16]
    assert line["money"] is None


@pytest.mark.parametrize(
    "words", [["--data", "{}/none"], ["--receipts", "{}/none"], ["--receipts", "{}/empty"],
              ["--routes", "{}/empty2", "--data", "{}"], ["--days", "0"]]
)  # fmt: skip
async def test_what_is_not_there_is_said(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    await kept(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "empty2").write_text("x = 1")
    given = [word.format(tmp_path) for word in words]
    try:
        code = main(["cost", *given])
    except SystemExit as error:  # argparse
        code = error.code
    assert code == 2
    assert capsys.readouterr().err.strip()


async def test_what_is_new_is_written_soon_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.gateway.usage.FLUSH_SECONDS", 0.02)
    path = tmp_path / "gateway.sqlite"
    usage = Usage(path)
    async with trio.open_nursery() as tasks:
        tasks.start_soon(usage.run)
        usage.add(USED)
        with trio.fail_after(20):
            while not read_usage(path):
                await trio.sleep(0.02)
        tasks.cancel_scope.cancel()
        usage.add(USED)
        await usage.flush()
    assert read_usage(path)[0].requests == 4


async def test_what_the_disk_does_not_take_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sqlite"
    usage = Usage(path)
    usage.add(USED)
    path.rename(tmp_path / "away")
    path.mkdir()
    await usage.flush()
    path.rmdir()
    (tmp_path / "away").rename(path)
    await usage.flush()
    assert read_usage(path) == (USED,)


async def test_totals_are_added_to_what_is_written(tmp_path: Path) -> None:
    for _ in range(2):
        await kept(tmp_path)
    (used,) = read_usage(tmp_path / "gateway.sqlite")
    assert used == replace(USED, requests=4, tokens_in=6_000, tokens_out=2_000, credit=10_000_000)
    far = replace(USED, upstream="closed", credit=0, price=70)
    await kept(tmp_path, far)
    assert Usage(tmp_path / "gateway.sqlite").prices["closed"] == 70


COSTS = st.lists(
    st.builds(
        Cost,
        model=st.sampled_from("ab"),
        upstream=st.sampled_from(("", "u")),
        answers=st.integers(0, 9),
        tokens_in=st.integers(0, 1 << 40),
        tokens_out=st.integers(0, 1 << 40),
        credit=st.integers(0, 1 << 50),
        price=st.integers(0, 1 << 50),
    )
)


@given(COSTS)
def test_nothing_is_lost_in_adding_up(costs: list[Cost]) -> None:
    sums = added_up(costs)
    for name in ("answers", "tokens_in", "tokens_out", "credit", "price"):
        assert sum(getattr(c, name) for c in sums) == sum(getattr(c, name) for c in costs)
    assert len({(c.upstream, c.model) for c in sums}) == len(sums)
    for one in sums:
        line = beside(one, {"v": Terms(price_in=1_000)}, 0)
        assert line.elsewhere == {"v": one.tokens_in}
