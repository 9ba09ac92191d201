"""What audits find at level "fast" is what was recorded, and production judges it as it did."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from assay_node.engine.interface import Chunk, Generate, Replay, Replayed
from assay_protocol.sketches import leaf_distances
from assay_simnet import evidence
from assay_simnet.cheats import BEHAVIOURS
from assay_simnet.drivers.job_asks import SAMPLER

JOBS, TOKENS = 60, 96


def _seed(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4, "big")).digest()


def _audited(number: int, condition: str, tokens: int = TOKENS) -> tuple[Chunk, Replayed]:
    answers, seed = evidence.Answers(), _seed(number)
    request = Generate((1,), 0, tokens, SAMPLER, seed)
    chunk = evidence.Engine(answers, "flash").answer(request, condition)
    found = evidence.Engine(answers, "plain").replay(Replay((1,), chunk.tokens, 0, SAMPLER, seed))
    return chunk, found


def _drift(condition: str) -> tuple[float, float]:
    """Mean distance and share of flips over some jobs."""
    drifts, flips = [], []
    for number in range(JOBS):
        chunk, found = _audited(number, condition)
        drifts.append(np.mean(leaf_distances(chunk.sketches, found.sketches)))
        flips.append(sum(a != b for a, b in zip(chunk.tokens, found.drawn, strict=True)) / TOKENS)
    return float(np.mean(drifts)), float(np.mean(flips))


@pytest.mark.parametrize("name", ["flash > plain", "Q2_K", "KV cache q4_0", "prefill forger"])
def test_distances_and_flips_are_the_recorded_ones(name: str) -> None:
    one = evidence.recorded()[name]
    drift, flips = _drift("" if ">" in name else name)
    assert drift == pytest.approx(one.distances.mean(), rel=0.08)
    assert flips == pytest.approx(one.wrong.mean(), rel=0.15)


def test_two_auditors_of_a_cheat_agree_with_each_other() -> None:
    answers, seed = evidence.Answers(), _seed(3)
    chunk = evidence.Engine(answers, "flash").answer(
        Generate((1,), 0, TOKENS, SAMPLER, seed), "Q2_K"
    )
    request = Replay((1,), chunk.tokens, 0, SAMPLER, seed)
    one, other = (evidence.Engine(answers, kind).replay(request) for kind in ("plain", "float"))
    assert np.mean(leaf_distances(one.sketches, other.sketches)) < 0.05
    assert np.mean(leaf_distances(chunk.sketches, one.sketches)) > 0.2


def test_an_answer_goes_on_elsewhere_with_the_same_tokens() -> None:
    engine, seed = evidence.Engine(evidence.Answers(), "flash"), _seed(4)
    whole = engine.answer(Generate((1,), 0, 40, SAMPLER, seed))
    rest = engine.answer(Generate((1,), 15, 25, SAMPLER, seed))
    assert whole.tokens[15:] == rest.tokens


def test_pieces_make_the_whole() -> None:
    chunk, _ = _audited(5, "", 50)
    pieces = [evidence.piece(chunk, at, 32) for at in (0, 32)]
    assert sum((piece.tokens for piece in pieces), ()) == chunk.tokens
    assert b"".join(piece.sketches for piece in pieces) == chunk.sketches
    assert [piece.finish for piece in pieces] == [None, "length"]


def test_every_condition_of_a_behaviour_is_known() -> None:
    made = {evidence.MADE_UP, evidence.BIT_FLIP, evidence.HONEST}
    known = {cheat.condition for cheat in BEHAVIOURS.values()}
    assert known <= made | set(evidence.recorded())
    assert all(0.0 <= cheat.saves <= 1.0 for cheat in BEHAVIOURS.values())


def test_lazy_auditors_agree_only_with_those_who_share_what_they_made_up() -> None:
    chunk, _ = _audited(6, "")
    request = Replay((1,), chunk.tokens, 0, SAMPLER, _seed(6))
    alone, other, shared, same = (evidence.unread(request, who) for who in (b"a", b"b", b"r", b"r"))
    assert np.mean(leaf_distances(alone.sketches, other.sketches)) > 1.0
    assert shared.sketches == same.sketches
    assert np.mean(leaf_distances(chunk.sketches, shared.sketches)) > 1.0
    assert all(one.drawn == chunk.tokens for one in (alone, other, shared))
