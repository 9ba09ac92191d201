"""How long a cheat lasts: audits until an inquiry, by production's evidence over recorded audits.

What auditors find of an answer is drawn from the recordings the fast driver uses (evidence.py) and
weighed by production's channels; words become findings, findings outcomes by production's quorum,
and detectors add up as production's do. A life is followed until a job fails or the alarm comes.
Several auditors of one answer are taken to see the same recorded job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from assay_coordinator.core.evidence import (
    ALARM,
    FRESH,
    WORD_CAP,
    accumulate,
    capped,
    combined,
    whole,
)
from assay_coordinator.core.findings import HARD_MARGIN, Bound, Finding
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.quorum import conclude, decide
from assay_coordinator.core.sketch_evidence import sketch_ratios
from assay_coordinator.core.token_evidence import token_ratios
from assay_protocol.limits import LEAF_TOKENS
from assay_simnet.epochs.asks import MODEL
from assay_simnet.epochs.chances import Wholes
from assay_simnet.evidence import MADE_UP, calibration, recorded
from assay_simnet.seeds import Stream

LIVES: Final = 256  # of each adversary
AUDITS_MAX: Final = 2_000  # of a life; after so many it is taken never to be noticed
WORDS: Final = 512  # of one way to answer
_MILLI: Final = 1_000
_BOUND: Final = Bound(auditor=b"", class_id="", audit=b"", commitment=b"", statement=b"")


@dataclass(frozen=True)
class Lives:
    """Of one adversary. `audits`: of each life, until the inquiry; `failed`: whether it began with
    a job found wrong, not with an alarm; `found`: the share of its cheated jobs that two auditors
    who replay them whole find wrong."""

    audits: Wholes
    failed: Wholes
    found: float


def lives(policy: Policy, condition: str, cheat: float, n_out: Wholes, stream: Stream) -> Lives:
    """`condition` is an answer's in evidence.py, `cheat` the share of answers that are so made;
    `n_out`: lengths of answers."""
    if condition == MADE_UP:  # each audit of one is a failed job
        lasts = [
            1 + int(np.log(1 - stream.uniform()) / np.log1p(-cheat)) if cheat < 1 else 1
            for _ in range(LIVES)
        ]
        return Lives(np.array(lasts), np.ones(LIVES, np.int64), 1.0)
    bad = _words(condition, n_out, stream, parts=True)
    good = _words("flash > plain", n_out, stream, parts=True)
    wholly = _words(condition, n_out, stream, parts=False)
    audits, failed = [], []
    for _ in range(LIVES):
        lasted, how = _life(policy, bad, good, cheat, stream)
        audits.append(lasted)
        failed.append(how)
    found = sum(word.wrong for word in wholly) / len(wholly)
    return Lives(np.array(audits, np.int64), np.array(failed, np.int64), found)


def _life(
    policy: Policy, bad: list[Finding], good: list[Finding], cheat: float, stream: Stream
) -> tuple[int, int]:
    """Audits until the inquiry, and whether a failed job began it."""
    detectors = FRESH
    for count in range(1, AUDITS_MAX):
        word = stream.pick(bad if stream.chance(cheat) else good)
        wanted = 1 + stream.chance(policy.reaudit_bps / 10_000)
        words = [word]
        decision = decide(words, wanted, policy.replays_max, _alike)
        while decision is None and len(words) < policy.replays_max:
            words.append(word)
            decision = decide(words, wanted, policy.replays_max, _alike)
        outcome = (decision or conclude(words, _alike)).outcome
        if outcome == "failed":
            return count, 1
        said = word.ratios if len(words) > 1 else capped(word.ratios, WORD_CAP)
        detectors = accumulate(detectors, said)
        if combined(detectors) >= ALARM:
            return count, 0
    return AUDITS_MAX * 1_000, 0


def _words(condition: str, n_out: Wholes, stream: Stream, *, parts: bool) -> list[Finding]:
    return [
        _word(condition, int(n_out[stream.below(len(n_out))]), stream, parts=parts)
        for _ in range(WORDS)
    ]


def _word(condition: str, n_out: int, stream: Stream, *, parts: bool) -> Finding:
    """One auditor's; of half of the audits a prefix of whole leaves (coverage.py)."""
    tokens = n_out
    leaves = (n_out - 1) // LEAF_TOKENS
    if parts and leaves >= 1 and stream.chance(0.5):
        tokens = LEAF_TOKENS * (1 + stream.below(leaves))
    found = recorded()[condition].row(stream.word().to_bytes(8, "big"), tokens)
    noise = calibration(MODEL).noise(MODEL, "", "")
    wrong = np.flatnonzero(found.wrong).tolist()
    ratios = (
        *token_ratios(noise, found.gaps.tobytes(), wrong),
        *sketch_ratios(noise, tuple(found.distances.tolist())),
    )
    hard = bool(wrong) and found.behind * _MILLI > HARD_MARGIN
    return Finding(_BOUND, b"", replayed=tokens, ratios=whole(ratios), hard=hard)


def _alike(one: Finding, other: Finding) -> bool:
    return True
