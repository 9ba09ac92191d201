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
from assay_simnet.epochs.regimes import INQUIRY, INVALID, Regime, Sequential
from assay_simnet.evidence import MADE_UP, calibration, recorded
from assay_simnet.seeds import Stream

LIVES: Final = 256  # of each adversary
AUDITS_MAX: Final = 2_000  # of a life; after so many it is taken never to be noticed
WORDS: Final = 512  # of one way to answer
NEVER: Final = 1 << 40
_HONEST: Final = "flash > plain"
_MILLI: Final = 1_000
_BOUND: Final = Bound(auditor=b"", class_id="", audit=b"", commitment=b"", statement=b"")


@dataclass(frozen=True)
class Lives:
    """Of one adversary. `audits`: of each life, until something befalls it; `failed`: jobs found
    wrong until then (none where an alarm came first); `found`: the share of its cheated jobs that
    two auditors who replay them whole find wrong; `seen`: the same of one audit as they are."""

    audits: Wholes
    failed: Wholes
    found: float
    seen: float


def lives(rules: Regime, condition: str, cheat: float, n_out: Wholes, stream: Stream) -> Lives:
    """`condition` is an answer's in evidence.py, `cheat` the share of answers that are so made;
    `n_out`: lengths of answers."""
    if condition == MADE_UP:
        bad = wholly = [Finding(_BOUND, b"", replayed=LEAF_TOKENS, hard=True)]
    else:
        bad = _words(condition, n_out, stream, parts=True)
        wholly = _words(condition, n_out, stream, parts=False)
    good = _words(_HONEST, n_out, stream, parts=True)
    lasted = [_life(rules, bad, good, cheat, stream) for _ in range(LIVES)]
    return Lives(
        np.array([audits for audits, _ in lasted], np.int64),
        np.array([failed for _, failed in lasted], np.int64),
        _wrong(wholly),
        _wrong(bad),
    )


def _life(
    rules: Regime, bad: list[Finding], good: list[Finding], cheat: float, stream: Stream
) -> tuple[int, int]:
    """Audits until something befalls it, and jobs found wrong until then."""
    detectors, test, failed = FRESH, Sequential(), 0
    for count in range(1, AUDITS_MAX):
        word = stream.pick(bad if stream.chance(cheat) else good)
        wanted = 1 + stream.chance(rules.policy.reaudit_bps / 10_000)
        outcome, backed = _outcome(rules.policy, word, wanted)
        failed += outcome == "failed"
        if rules.follows == INVALID:
            if test.over(outcome == "failed"):
                return count, failed
            continue
        if failed:
            return count, failed
        said = word.ratios if backed else capped(word.ratios, WORD_CAP)
        detectors = accumulate(detectors, said)
        if rules.follows == INQUIRY and combined(detectors) >= ALARM:
            return count, 0
    return NEVER, 0


def _outcome(policy: Policy, word: Finding, wanted: int) -> tuple[str, bool]:
    """By production's quorum, and whether several were asked."""
    words = [word]
    decision = decide(words, wanted, policy.replays_max, _alike)
    while decision is None and len(words) < policy.replays_max:
        words.append(word)
        decision = decide(words, wanted, policy.replays_max, _alike)
    return (decision or conclude(words, _alike)).outcome, len(words) > 1


def _wrong(words: list[Finding]) -> float:
    return sum(word.wrong for word in words) / len(words)


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
