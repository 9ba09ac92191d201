"""What audits find, drawn from recordings of a real model: SmolLM2-135M, Q8_0 (bench/verify).

No model runs here. Tokens are numbers fixed by a job's seed; an honest auditor of an honest answer
finds what one recorded auditor found of one recorded answer: which draws flipped, how near each was
to a tie, how far each leaf's sketches were apart. A cheat's answer is found as a recorded answer of
that cheat was. The sketches are made so that their distances are the recorded ones; everything
after that (commitments, leaves, evidence over a life, verdicts) is production's.

    recorded   honest pairs of three classes (144 jobs each), 16 cheats (24 jobs each), 96 tokens
    not        `made_up` and `bit_flip`: what nobody computed, or a broken machine did, disagrees

`python -m assay_simnet.evidence SOURCE` copies what is used out of bench/verify's table.
"""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from assay_coordinator.core.calibration import BUILT_IN, Table
from assay_coordinator.core.fitting import Trace, noise_of
from assay_node.engine.interface import Chunk, Finish, Generate, Replay, Replayed
from assay_protocol.limits import LEAF_TOKENS, SKETCH_BYTES
from assay_protocol.messages import Calibration
from assay_protocol.sketches import DIMENSIONS, gap_of

RECORDED: Final = Path(__file__).with_name("recorded") / "smollm2-135m-q8_0.npz"
CLASSES: Final = ("flash", "plain", "float")
MADE_UP: Final = "made_up"
BIT_FLIP: Final = "bit_flip"
VOCABULARY: Final = 49_152  # SmolLM2's
HONEST: Final = ""
_FAR: Final = math.inf  # distance of leaves that nobody computed: those of another text
_BEHIND: Final = 9.0  # logits by which such tokens lose
_ROW: Final = np.dtype([("steps", "i1", (DIMENSIONS,)), ("step", "<f2")])
_STEPS: Final = np.int8(
    90
)  # of each dimension, one way or the other: as fine as a byte is, with room
_GOLDEN: Final = 0.6180339887  # fractions of its multiples are spread evenly: rounding without bias
_GAPS: Final = tuple(gap_of(code) for code in range(256))

_LENGTH: Final = math.sqrt(DIMENSIONS * int(_STEPS) ** 2)  # of every undisturbed sketch
_ANSWERS_KNOWN: Final = (
    8_192  # an answer's tokens are wanted where it is made and where it is checked
)
_LENGTHS_KNOWN: Final = 1_024

Reals = NDArray[np.float64]
Steps = NDArray[np.int8]  # [tokens, dimensions]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One pair of classes, or one cheat: arrays by job. `behind`: the largest margin, logits."""

    gaps: NDArray[np.uint8]  # [jobs, tokens], codes
    wrong: NDArray[np.bool_]  # [jobs, tokens]
    distances: Reals  # [jobs, leaves]
    behind: Reals  # [jobs]

    def row(self, seed: bytes, tokens: int) -> Found:
        """What was found of the recorded jobs that this job's seed picks, as many as needed."""
        jobs, width = self.gaps.shape
        count = -(-tokens // width)
        words = hashlib.shake_128(b"row" + seed).digest(4 * count)
        if count == 1:
            row = int.from_bytes(words, "little") % jobs
            leaves = -(-tokens // LEAF_TOKENS)
            parts = self.gaps[row, :tokens], self.wrong[row, :tokens], self.distances[row, :leaves]
            return Found(*parts, float(self.behind[row]))
        rows = (np.frombuffer(words, "<u4") % jobs).astype(np.int64)
        return Found(
            self.gaps[rows].reshape(-1)[:tokens],
            self.wrong[rows].reshape(-1)[:tokens],
            self.distances[rows].reshape(-1)[: -(-tokens // LEAF_TOKENS)],
            float(self.behind[rows].max()),
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Of one answer, token by token; distances by leaf."""

    gaps: NDArray[np.uint8]
    wrong: NDArray[np.bool_]
    distances: Reals
    behind: float


@cache
def recorded() -> dict[str, Recorded]:
    """All entries of the table by name."""
    table = {}
    with np.load(RECORDED) as loaded:
        for name in sorted({key.split("|")[0] for key in loaded.files}):
            gaps = loaded[f"{name}|gaps"]
            table[name] = Recorded(
                gaps,
                np.unpackbits(loaded[f"{name}|wrong"], axis=1, count=gaps.shape[1]).astype(bool),
                loaded[f"{name}|distances"].astype(np.float64),
                loaded[f"{name}|behind"].astype(np.float64),
            )
    return table


@cache
def calibration(model: bytes) -> Table:
    """The table of honest noise, fitted by production's code from the recorded honest pairs."""
    traces = [
        Trace(
            model=model,
            executor="",
            auditor="",
            gaps=one.gaps[job].tobytes(),
            mismatches=tuple(np.flatnonzero(one.wrong[job]).tolist()),
            distances=tuple(one.distances[job].tolist()),
        )
        for name, one in recorded().items()
        if " > " in name
        for job in range(len(one.gaps))
    ]
    fitted = noise_of((model, "", ""), traces)
    unseen = BUILT_IN.calibration.pairs
    return Table(Calibration(version=1, fitted_at=0, pairs=(fitted, *unseen)))


class Answers:
    """What the simulation knows and no node does: which answers were not computed as promised."""

    def __init__(self) -> None:
        self._how: dict[tuple[bytes, int], str] = {}

    def put(self, seed: bytes, start: int, condition: str) -> None:
        self._how[seed, start] = condition

    def how(self, seed: bytes, start: int) -> str:
        """HONEST, or the name of a recorded cheat, MADE_UP or BIT_FLIP."""
        return self._how.get((seed, start), HONEST)


class Engine:
    """One node's engine of one class of arithmetic."""

    def __init__(self, answers: Answers, kind: str) -> None:
        self._answers, self.kind = answers, kind
        self._place = 4 + CLASSES.index(kind)  # the dimension its own noise is in

    def answer(self, request: Generate, condition: str = HONEST) -> Chunk:
        """The whole answer, to be sent in pieces; it ends by its length."""
        seed, count = request.seed, request.max_tokens
        if condition != HONEST:
            self._answers.put(seed, request.start, condition)
        tokens = answer_tokens(seed, request.start, count)
        shown = _executors(seed, request.start, count, condition)
        return _chunk(tokens, shown, "length")

    def replay(self, request: Replay) -> Replayed:
        """What it finds, honestly, of an answer however that was made."""
        seed, count = request.seed, len(request.output)
        condition = self._answers.how(seed, request.start)
        found = _found(seed, request.start, count, condition, self.kind)
        signs = _signs(seed, request.start, count)
        share = found.distances if condition == HONEST else _usual(len(found.distances))
        noise = _spread(share, count, without=_own_noise(count))
        wrong = found.wrong.nonzero()[0]
        drawn = list(request.output)
        margins = [0.0] * count
        for place, at in enumerate(wrong.tolist()):
            drawn[at] = drawn[at] + 1
            margins[at] = found.behind if place == 0 else min(0.1, found.behind)
        return Replayed(
            drawn=tuple(drawn),
            logits=_logits(request.output),
            margins=tuple(margins),
            gaps=tuple(map(_GAPS.__getitem__, found.gaps.tolist())),
            sketches=_bytes(_shifted(signs, {self._place: noise})),
        )


def agreeing(request: Replay, condition: str) -> Replayed:
    """An accomplice's word: all is as the executor says, down to its sketches."""
    count = len(request.output)
    shown = _executors(request.seed, request.start, count, condition)
    return _said(request, _bytes(shown), [0.0] * count)


def unread(request: Replay, whose: bytes) -> Replayed:
    """A lazy auditor's word: nothing is wrong; its sketches are of nothing. Two of one `whose` made
    the same up, and agree with each other and with nobody else."""
    count = len(request.output)
    other = hashlib.sha256(b"unread" + whose + request.seed).digest()
    return _said(request, _bytes(_signs(other, request.start, count) * _STEPS), [0.0] * count)


def grudging(request: Replay, honest: Replayed) -> Replayed:
    """A griefer's word: every second token is wrong, by far; the sketches are right."""
    margins = [1.5 if at % 2 == 0 else 0.0 for at in range(len(request.output))]
    return _said(request, honest.sketches, margins)


def _said(request: Replay, sketches: bytes, margins: list[float]) -> Replayed:
    drawn = [t + (m > 0) for t, m in zip(request.output, margins, strict=True)]
    return Replayed(
        drawn=tuple(drawn),
        logits=_logits(request.output),
        margins=tuple(margins),
        gaps=(0.5,) * len(drawn),
        sketches=sketches,
    )


def piece(answer: Chunk, start: int, count: int) -> Chunk:
    """Tokens `start` to `start + count` of an answer."""
    end = start + count
    last = end >= len(answer.tokens)
    finish: Finish | None = answer.finish if last else None
    return Chunk(
        tokens=answer.tokens[start:end],
        logits=answer.logits[4 * start : 4 * end],
        finish=finish,
        sketches=answer.sketches[SKETCH_BYTES * start : SKETCH_BYTES * end],
    )


# ---- numbers -----------------------------------------------------------------------------------


def _found(seed: bytes, start: int, count: int, condition: str, kind: str) -> Found:
    key = seed + start.to_bytes(4, "little")
    if condition in (MADE_UP, BIT_FLIP):
        return _broken(key, count, condition)
    if condition != HONEST:
        return recorded()[condition].row(key, count)
    others = [name for name in CLASSES if name != kind]
    entry = f"{others[key[0] & 1]} > {kind}"
    return recorded()[entry].row(key, count)


def _broken(key: bytes, count: int, condition: str) -> Found:
    """Everything is wrong, or, of a bit that flipped on the way, all from there on."""
    usual = recorded()["flash > plain"].row(key, count)
    first = int.from_bytes(key[1:3], "little") % count if condition == BIT_FLIP else 0
    wrong = usual.wrong.copy()
    wrong[first:] = True
    distances = usual.distances.copy()
    distances[first // LEAF_TOKENS :] = _FAR
    return Found(usual.gaps, wrong, distances, _BEHIND)


@lru_cache(maxsize=_ANSWERS_KNOWN)
def answer_tokens(seed: bytes, start: int, count: int) -> tuple[int, ...]:
    """The model's tokens at output positions: the same whoever goes on with an answer."""
    words = hashlib.shake_128(b"tokens" + seed).digest(2 * (start + count))
    drawn = np.frombuffer(words, "<u2")[start:].astype(np.int64) % (VOCABULARY - 2)
    return tuple((drawn + 1).tolist())


def _signs(seed: bytes, start: int, count: int) -> Steps:
    """[count, 8] of 1 and -1: the undisturbed sketches, which are _STEPS times that."""
    words = hashlib.shake_128(b"sketch" + seed).digest(start + count)
    bits = np.unpackbits(np.frombuffer(words, "u1")[start:]).view(np.int8)
    return (2 * bits - 1).reshape(count, DIMENSIONS)


def _executors(seed: bytes, start: int, count: int, condition: str) -> Steps:
    """What an executor shows: its arithmetic's noise, and how far its cheat is off."""
    signs = _signs(seed, start, count)
    own = _own_noise(count)
    shifts = {0: own}
    if condition in (MADE_UP, BIT_FLIP):
        found = _found(seed, start, count, condition, CLASSES[0])
        far = np.repeat(found.distances == _FAR, LEAF_TOKENS)[:count]
        other = _signs(hashlib.sha256(b"made up" + seed).digest(), start, count)
        return np.where(far[:, None], other * _STEPS, _shifted(signs, shifts))
    if condition != HONEST:
        found = _found(seed, start, count, condition, CLASSES[0])
        auditors = _spread(_usual(len(found.distances)), count, without=own)
        both = np.sqrt(own.astype(np.float64) ** 2 + auditors.astype(np.float64) ** 2)
        shifts[1] = _spread(found.distances, count, without=both)
    return _shifted(signs, shifts)


@lru_cache(maxsize=_LENGTHS_KNOWN)
def _own_noise(count: int) -> NDArray[Any]:
    """Half of the variance that two honest engines differ by is the executor's."""
    return _rounded(np.full(count, _usual_distance() * _LENGTH / np.sqrt(2.0)))


def _spread(shares: Reals, count: int, without: NDArray[Any]) -> NDArray[Any]:
    """Steps to add in a dimension of its own, so that with `without` the distance is the share."""
    wanted = np.repeat(shares, LEAF_TOKENS)[:count] * _LENGTH
    return _rounded(np.sqrt(np.maximum(0.0, wanted**2 - without.astype(np.float64) ** 2)))


def _rounded(steps: Reals) -> NDArray[Any]:
    whole: NDArray[Any] = np.floor(steps + _dither(len(steps)))
    return whole.astype(np.int64)


@lru_cache(maxsize=_LENGTHS_KNOWN)
def _dither(count: int) -> NDArray[Any]:
    dither: NDArray[Any] = (0.5 + np.arange(count) * _GOLDEN) % 1.0  # alone, it is the nearest
    return dither


def _shifted(signs: Steps, shifts: dict[int, NDArray[Any]]) -> Steps:
    """Each dimension's shift towards the middle, and beyond as far as a signed byte holds it."""
    moved = signs * _STEPS
    for place, steps in shifts.items():
        moved[:, place] = signs[:, place] * np.maximum(_STEPS - steps, -127).astype(np.int8)
    return moved


@cache
def _usual_distance() -> float:
    honest = [one.distances.mean() for name, one in recorded().items() if " > " in name]
    return float(np.mean(honest))


def _usual(leaves: int) -> Reals:
    return np.full(leaves, _usual_distance())


def _bytes(steps: Steps) -> bytes:
    rows = np.empty(len(steps), _ROW)
    rows["steps"], rows["step"] = steps, 0.0625
    return rows.tobytes()


def _logits(tokens: tuple[int, ...]) -> bytes:
    return np.array(tokens, "<f4").tobytes()


def _chunk(tokens: tuple[int, ...], shown: Steps, finish: Finish) -> Chunk:
    return Chunk(tokens=tokens, logits=_logits(tokens), finish=finish, sketches=_bytes(shown))


def copy_recorded(source: Path) -> None:
    """What is used of bench/verify's table."""
    honest = {f"{a} > {b}" for a in CLASSES for b in CLASSES}
    with np.load(source) as loaded:
        kept = {
            key: loaded[key]
            for key in loaded.files
            if " > " not in key or key.split("|")[0] in honest
        }
    RECORDED.parent.mkdir(exist_ok=True)
    with RECORDED.open("wb") as file:
        np.savez_compressed(file, **kept)


if __name__ == "__main__":
    copy_recorded(Path(sys.argv[1]))
