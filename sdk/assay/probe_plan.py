"""Cuts what a prober does to the pattern of an ordinary account, so that no node tells them apart.

A prober's key plays one account of recent days, its persona: as many sessions, as far apart, of as
many jobs, with the same pauses, limits and samplers, and the same jobs going on with a talk. Only
the words are others: conversations of the private pool whose first prompts are nearly as long. What
is copied jointly stays as correlated as it was; pauses are stretched a little at random, so that
nobody recognizes the account itself.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from assay.probe_shapes import Session, Shapes, Turn

STRETCH: Final = 0.2  # a pause is up to exp(STRETCH) longer or shorter than its pattern


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a probe says, turn by turn; `tokens` counts the first prompt as it will be sent."""

    name: str  # its digest, by which it is known as used
    turns: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """One probe: say turn `turn` of `conversation`, `wait_ms` after the job before began."""

    conversation: Conversation
    turn: int
    wait_ms: int
    pattern: Turn


def personas(shapes: Shapes, share: float) -> int:
    """How many keys to play, so that `share` of all accounts are probes."""
    return max(1, round(share / (1 - share) * len(shapes.accounts)))


def choose_personas(
    shapes: Shapes, count: int, draw: random.Random
) -> tuple[tuple[tuple[int, Session], ...], ...]:
    """The sessions of `count` random accounts, each with the milliseconds until it begins.

    No account is played twice before all are.
    """
    chosen: list[tuple[Session, ...]] = []
    while len(chosen) < count:
        most = min(count - len(chosen), len(shapes.accounts))
        chosen += draw.sample(shapes.accounts, most)
    return tuple(_timetable(sessions, draw) for sessions in chosen)


def _timetable(sessions: Sequence[Session], draw: random.Random) -> tuple[tuple[int, Session], ...]:
    at, before, plan = 0, 0, []
    for session in sessions:
        at += _stretched(session.start_ms - before, draw)
        before = session.start_ms
        plan.append((at, session))
    return tuple(plan)


def plan_session(
    session: Session, pool: Sequence[Conversation], draw: random.Random
) -> tuple[PlannedJob, ...]:
    """The jobs of a session, of conversations in `pool`, each used at most once.

    It ends early where the pool has nothing left. A follow-up that its conversation has no turn for
    begins another, as people do.
    """
    left = list(pool)
    jobs: list[PlannedJob] = []
    talk: Conversation | None = None
    said = 0
    for number, turn in enumerate(session.turns):
        if talk is None or not turn.follows or said == len(talk.turns):
            if not left:
                break
            wanted = 1 + _followers(session.turns[number + 1 :])
            talk, said = _nearest(left, turn.shape.n_in, wanted), 0
            left.remove(talk)
        jobs.append(PlannedJob(talk, said, _stretched(turn.wait_ms, draw), turn))
        said += 1
    return tuple(jobs)


def _followers(turns: Sequence[Turn]) -> int:
    return next((i for i, turn in enumerate(turns) if not turn.follows), len(turns))


def _nearest(pool: Sequence[Conversation], tokens: int, turns: int) -> Conversation:
    """Of those with enough to say, or the most, the one whose first prompt is nearest in length."""
    return min(pool, key=lambda one: (max(0, turns - len(one.turns)), abs(one.tokens - tokens)))


def _stretched(wait_ms: int, draw: random.Random) -> int:
    return round(wait_ms * math.exp(draw.uniform(-STRETCH, STRETCH)))
