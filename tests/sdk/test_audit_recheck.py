"""`assay audit recheck`: exit codes, words and JSON, over a chain file that a real poster wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay import cli
from assay_contracts.local.chain import LocalChain
from assay_contracts.local.genesis import Genesis, address_of, poster_key
from assay_coordinator.core.links import Links
from assay_protocol.codec import encode
from assay_protocol.errors import RemoteError
from assay_protocol.lottery import AnchorNote, RoundNote, is_drawn, round_seed, round_tree
from assay_protocol.messages import DrawEntry, RoundDraws

KEY = poster_key(bytes(range(32)))
LINKS = Links(b"\x05" * 32, 16)


def entries_of(number: int) -> list[DrawEntry]:
    return [
        DrawEntry(
            ticket=bytes([number, i]) * 8,
            receipt=bytes([number, i]) * 16,
            node=bytes([i % 2]) * 32,
            numerator=1,
            denominator=1,
            asked="sample",
            outcome="passed",
        )
        for i in range(4)
    ] + [
        DrawEntry(
            ticket=bytes([number, 99]) * 8,
            receipt=bytes([number, 99]) * 16,
            node=bytes(32),
            numerator=0,
            denominator=1,
            asked="none",
            outcome="undrawn",
        )
    ]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, RoundDraws]]:
    """A chain file with two rounds, and what is published of them."""
    folder = tmp_path_factory.mktemp("chain")
    rounds = {}
    with LocalChain.open(folder / "chain.db", genesis=Genesis(address_of(KEY))) as chain:
        poster = address_of(KEY)
        anchored = chain.send(KEY, poster, AnchorNote(1, 16, 0, LINKS.anchor(1)).encode())
        for number in (1, 2):
            entries = entries_of(number)
            note = RoundNote(number, round_tree(entries).root, len(entries), 20, 500)
            posted = chain.send(KEY, poster, note.encode())
            rounds[number] = RoundDraws(
                number=number,
                chain=1,
                link=LINKS.of_round(number),
                anchored=anchored.transaction_hash,
                posted=posted.transaction_hash,
                block=posted.block,
                block_hash=posted.block_hash,
                closed_at=1,
                drawn_at=2,
                entries=tuple(entries),
            )
    return folder / "chain.db", rounds


def serve(rounds: dict[int, RoundDraws], monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connect(options: Any) -> Iterator[Any]:
        def round_draws(number: int) -> bytes:
            if number not in rounds:
                raise RemoteError("unknown_round")
            return encode(rounds[number])

        yield SimpleNamespace(round_draws=round_draws)

    monkeypatch.setattr("assay.chat_command.connect", connect)


def test_rounds_that_hold_exit_0(
    published: tuple[Path, dict[int, RoundDraws]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chain, rounds = published
    serve(rounds, monkeypatch)
    where = ["--chain", str(chain), "--poster", address_of(KEY).hex()]
    assert cli.main(["audit", "recheck", "--rounds", "1..2", *where]) == 0
    shown = capsys.readouterr().out
    assert "round 2 holds: 4 of 5 drawn, 1 waived by their clients" in shown
    assert "the draws hold" in shown
    assert cli.main(["audit", "recheck", "--rounds", "1..", *where]) == 0
    assert capsys.readouterr().out.count("holds:") == 2
    assert cli.main(["audit", "recheck", "2", *where, "--verbose"]) == 0
    assert "ok       links: 2 links from the anchor" in capsys.readouterr().out
    assert cli.main(["audit", "recheck", "1", *where, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["rounds"][0]["drawn"]) == (True, 4)


def test_a_friend_that_is_let_off_is_exit_1(
    published: tuple[Path, dict[int, RoundDraws]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chain, rounds = published
    one = rounds[1]
    seed = round_seed(one.link, one.block_hash)
    friend = next(e for e in one.entries if is_drawn(seed, e.receipt, e.numerator, e.denominator))
    let_off = tuple(replace(e, outcome="undrawn") if e == friend else e for e in one.entries)
    serve({**rounds, 1: replace(one, entries=let_off)}, monkeypatch)
    assert cli.main(["audit", "recheck", "--rounds", "1..2", "--chain", str(chain)]) == 1
    shown = capsys.readouterr().out
    assert "round 1 DOES NOT HOLD" in shown
    assert f"receipt {friend.receipt.hex()[:16]}" in shown
    assert "round 2 holds" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["0"],
        ["--rounds", "2..1"],
        ["--rounds", "x..y"],
        ["--rounds", "0..2"],
        ["1", "--poster", "7"],
    ],
)
def test_what_cannot_be_asked_is_one_line(
    published: tuple[Path, dict[int, RoundDraws]],
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(published[1], monkeypatch)
    assert cli.main(["audit", "recheck", *arguments, "--chain", str(published[0])]) == 1
    assert "config_invalid" in capsys.readouterr().err


@pytest.mark.parametrize("rounds", ["3..", "1..3"])
def test_a_round_that_is_asked_for_by_number_must_be_there(
    published: tuple[Path, dict[int, RoundDraws]],
    rounds: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(published[1], monkeypatch)
    asked = ["audit", "recheck", "--rounds", rounds, "--chain", str(published[0])]
    assert cli.main(asked) == 1
    assert "unknown_round" in capsys.readouterr().err
