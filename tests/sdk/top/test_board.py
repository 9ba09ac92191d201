"""What is shown of nodes and the network: of those that are well, gone, older, or that lie."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.top import lines
from assay.top.core.board import SORTS, Board, Picture, sorted_nodes
from assay.top.core.network_view import NetworkLook
from assay.top.core.node_view import Look
from sdk.top.top_cases import KEY, OTHER, SECOND, WALL, look, network_look, status

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
NAMES = (*status(), "faults", "nodes", "rates", "epoch", "items", "activity", "models")
LIES = st.dictionaries(st.sampled_from(NAMES), JSON) | JSON


def test_a_node_is_shown_with_its_rates() -> None:
    board = Board(["here"])
    (first,) = board.handle(WALL, [look(0, 100, prompt=10, firsts=(10, 0))]).nodes
    assert (first.tokens_out_per_second, first.ttft_p50) == (None, None)
    assert (first.state, first.standing, first.model) == ("serving", "active", "smollm2")
    (seen,) = board.handle(WALL, [look(2, 140, prompt=20, firsts=(11, 1))]).nodes
    assert (seen.tokens_out_per_second, seen.tokens_in_per_second) == (20, 5)
    assert (seen.jobs_per_minute, seen.over_seconds) == (60, 2)
    assert (seen.ttft_p50, seen.ttft_p95) == (0.1, pytest.approx(0.46)), (
        "of the two, not of the ten before"
    )
    assert seen.tpot_p50 is None
    assert seen.history == (20,)
    line = lines.node_line(seen)
    for part in (
        "abababab serving/active",
        "slots 3/4 queued 1",
        "tok/s 5.0 in 20.0 out",
        "ttft 100ms/460ms",
        "credit 0.0182 earned 0.0044 escrow",
        "cpu 73%, ram 5.0/16.0 GiB, gpu 88% 71C vram 3.0/24.0 GiB",
        "last error timeout",
    ):
        assert part in line
    assert lines.limits(seen) == "hours 22:00-07:00, max_celsius 80"


def test_a_node_that_is_gone_says_why_and_nothing_else() -> None:
    board = Board(["here"])
    board.handle(WALL, [look(0, 100)])
    (gone,) = board.handle(WALL, [Look(2 * SECOND, fault="unreachable")]).nodes
    assert lines.node_line(gone) == "here gone (unreachable)"
    assert (gone.slots, gone.history) == (None, ())
    (back,) = board.handle(WALL, [look(4, 180)]).nodes
    assert back.tokens_out_per_second == 20, "over all four seconds"


def test_a_file_is_a_node_only_while_it_is_written() -> None:
    board = Board(["/data"])

    def seen(second: int, tokens: int, age: int = 1) -> Any:
        told = status(tokens=tokens, at=WALL + second * SECOND)
        at_wall = WALL + (second + age) * SECOND
        return board.handle(at_wall, [Look(0, told, from_file=True)]).nodes[0]

    assert seen(0, 100).tokens_out_per_second is None
    seen(0, 100)  # the same file again
    assert seen(5, 200).tokens_out_per_second == 20, "by the node's clock"
    assert seen(5, 200).history == (20,)
    assert (seen(5, 200, age=31).state, seen(5, 200, age=31).fault) == ("gone", "stale")
    (unknown,) = board.handle(WALL, [Look(0, {"phase": "serving"}, from_file=True)]).nodes
    assert unknown.fault == "stale"


def test_an_older_node_that_serves_no_status_is_shown_by_its_metrics() -> None:
    board = Board(["old"])
    board.handle(WALL, [replace(look(0, 100), status=None)])
    (seen,) = board.handle(WALL, [replace(look(1, 150), status=None)]).nodes
    assert (seen.state, seen.tokens_out_per_second, seen.slots) == ("serving", 50, None)
    (none,) = board.handle(WALL, [Look(2 * SECOND, None, "")]).nodes
    assert none.state == "unknown"


def test_a_pause_says_why() -> None:
    paused = Look(0, status(phase="paused", paused="hot"), reasons=("hot", "no_session"))
    (seen,) = Board(["here"]).handle(WALL, [paused]).nodes
    assert lines.state(seen) == "paused/active (hot, no_session)"


def test_a_coordinator_adds_what_it_knows_and_the_nodes_nobody_named() -> None:
    board = Board(["here"], "c")
    board.handle(WALL, [look(0, 100)], network_look(0, jobs=40))
    picture = board.handle(WALL, [look(2, 100)], network_look(2, jobs=41))
    own, other = picture.nodes
    assert (own.node, own.source, own.evidence_nats, own.jobs_done) == (KEY, "here", 1.5, 10)
    assert (other.node, other.source, other.standing) == (OTHER, "coordinator", "inquiry")
    assert other.earned == 90_000_000_000_000_000_000, "more than a double holds"
    assert picture.network is not None
    assert lines.network_line(picture.network) == (
        "network ready | nodes 1 active, 1 probation, 1 convicted | slots 3/8 queued 1 | "
        "jobs 41, 30.0 a minute | tok/s 80.5 ttft 120ms | audits 12, 2 open, 1 against | epoch 4"
    )
    assert lines.audit_line(picture.network.latest_audits[0]) == (
        "failed    node cdcdcdcd  job 99999999"
    )
    gone = board.handle(WALL, [look(4, 100)], NetworkLook(4 * SECOND, fault="timeout"))
    assert lines.plain_lines(gone)[0] == "network gone (timeout)"
    assert len(gone.nodes) == 1


def test_rows_are_sorted_by_what_needs_a_look() -> None:
    rows = Board(["here"], "c").handle(WALL, [look(0, 100)], network_look(0)).nodes
    assert [row.node for row in sorted_nodes(rows, "state")] == [OTHER, KEY]
    assert [row.node for row in sorted_nodes(rows, "jobs")] == [KEY, OTHER]
    assert [row.node for row in sorted_nodes(rows, "earned")] == [OTHER, KEY]
    assert all(len(sorted_nodes(rows, by)) == 2 for by in SORTS)


@given(LIES, LIES, LIES, st.text(), st.booleans())
def test_whatever_is_sent_is_shown_in_plain_text(
    one: object, two: object, three: object, text: str, from_file: bool
) -> None:
    board = Board(["here"], "c")
    for at in (0, SECOND):
        picture = board.handle(
            WALL,
            [Look(at, one, text, from_file=from_file)],
            NetworkLook(at, two, {"items": [one, two]}, {"items": [three]}),
        )
    json.dumps(picture.told(), allow_nan=False)
    shown = lines.plain_lines(picture)
    assert len(shown) == 1 + len(picture.nodes)
    assert all(line.isprintable() for line in shown)
    assert picture.network is not None
    assert all(map(str.isprintable, map(lines.audit_line, picture.network.latest_audits)))
    assert all(sorted_nodes(picture.nodes, by) for by in SORTS)


def test_a_terminal_is_not_steered() -> None:
    wicked = status(name="\x1b]0;pwned\x07", phase="ser\nving", device="x" * 10_000)
    (seen,) = Board(["here"]).handle(WALL, [Look(0, wicked)]).nodes
    assert seen.model == " ]0;pwned "
    assert seen.state == "ser ving"
    assert len(seen.device) == 200


def test_bars_are_as_tall_as_their_share() -> None:
    assert lines.spark((0, 1, 4, 8), 6) == "   ▂▅█"
    assert lines.spark((), 3) == "   "
    assert lines.spark((5.0,), 0) == ""
    assert lines.spark((0.0, 0.0), 2) == "  "


def test_a_picture_is_told_with_every_field() -> None:
    told = Picture(WALL, Board(["here"]).handle(WALL, [look(0, 1)]).nodes).told()
    assert told["network"] is None
    assert told["nodes"][0]["gpus"][0]["celsius"] == 71
