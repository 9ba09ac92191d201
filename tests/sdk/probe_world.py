"""An invented population of clients, what a node sees of each job, and a classifier to try it on.

People differ: in how long they write, in settings, in how often they come. Probes are cut by
probe_plan to a pattern taken from other weeks of the same population, with other words.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.probe_plan import Conversation, choose_personas, plan_session
from assay.probe_shapes import JobShape, Session, Shapes

MINUTE, HOUR, WEEK = 60_000, 3_600_000, 7 * 86_400_000
_NAMES = count()


@dataclass(frozen=True, slots=True)
class Seen:
    """One job as its node sees it; `words` are statistics of the prompt's newest text."""

    at_ms: int
    n_in: int
    max_tokens: int
    sampling: dict[str, Any]
    follows: bool
    words: tuple[float, float]


def words(draw: random.Random, tokens: int) -> tuple[float, float]:
    """Mean rank and share of distinct tokens of a text: from one law for all texts."""
    ranks = [min(49_000, int(draw.paretovariate(0.7))) for _ in range(min(tokens, 120))]
    return sum(map(math.log, ranks)) / len(ranks), len(set(ranks)) / len(ranks)


def first_prompt(draw: random.Random) -> int:
    return max(4, round(draw.lognormvariate(4.6, 0.9)))


def later_prompt(draw: random.Random) -> int:
    return max(3, round(draw.lognormvariate(3.2, 0.8)))


def answer(draw: random.Random, max_tokens: int) -> int:
    return min(max_tokens, max(1, round(draw.lognormvariate(4.9, 0.8))))


def client(draw: random.Random) -> list[tuple[Seen, int]]:
    """A week of one client's jobs, with the tokens of each answer."""
    sampling = draw.choice(
        [
            {"temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.05},
            {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0},
            {"temperature": 1.0, "top_p": 0.9, "top_k": 0, "min_p": 0.0, "frequency_penalty": 0.3},
        ]
    )
    limit = draw.choice([128, 256, 512, 512, 1024])
    at = draw.uniform(0, 2 * 86_400_000)
    rare = draw.lognormvariate(0, 0.7) * 12 * HOUR
    jobs: list[tuple[Seen, int]] = []
    while at < WEEK:
        n_in, n_out, turns = 0, 0, 1 + min(12, int(draw.expovariate(0.5)))
        for turn in range(turns):
            new = later_prompt(draw) if turn else first_prompt(draw)
            n_in += n_out + new
            n_out = answer(draw, limit)
            seen = Seen(round(at), n_in, limit, sampling, turn > 0, words(draw, new))
            jobs.append((seen, n_out))
            at += 4_000 + 40 * n_out + draw.expovariate(1 / (2 * MINUTE))
        at += 31 * MINUTE + draw.expovariate(1 / rare)
    return jobs


def shapes_of(clients: Sequence[list[tuple[Seen, int]]]) -> list[JobShape]:
    """What a coordinator exports of them."""
    return [
        JobShape(number, seen.at_ms, seen.n_in, n_out, seen.max_tokens, seen.sampling)
        for number, jobs in enumerate(clients)
        for seen, n_out in jobs
    ]


def probes_of(draw: random.Random, shapes: Shapes, count: int) -> list[list[Seen]]:
    """What nodes see under each of the prober's keys."""
    return [_played(draw, sessions) for sessions in choose_personas(shapes, count, draw)]


def _played(
    draw: random.Random, sessions: Sequence[tuple[int, Session]], size: int = 256
) -> list[Seen]:
    """One persona; its conversations come from a pool of their own."""
    seen: list[Seen] = []
    for start, session in sessions:
        pool = [
            Conversation(str(next(_NAMES)), ("",) * draw.randint(1, 12), first_prompt(draw))
            for _ in range(size)
        ]
        at, n_in, n_out = start, 0, 0
        for job in plan_session(session, pool, draw):
            at += job.wait_ms
            new = later_prompt(draw) if job.turn else job.conversation.tokens
            n_in = n_in + n_out + new if job.turn else new
            shape = job.pattern.shape
            n_out = answer(draw, shape.max_tokens)
            said = words(draw, new)
            sampling = dict(shape.sampling)
            seen.append(Seen(at, n_in, shape.max_tokens, sampling, job.turn > 0, said))
    return seen


def careless(draw: random.Random) -> list[Seen]:
    """A prober that asks one kind of question, on the minute."""
    sampling = {"temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.05}
    return [
        Seen(i * MINUTE, 40 + draw.randint(0, 4), 64, sampling, False, words(draw, 40))
        for i in range(40)
    ]


def features(jobs: Sequence[Seen]) -> NDArray[np.float64]:
    """float64[len(jobs), 13]: what a node could weigh, of jobs under one key in order of time."""
    rows = []
    before: Seen | None = None
    for number, job in enumerate(jobs):
        wait = job.at_ms - before.at_ms if before else 0
        grown = job.n_in - before.n_in if before and job.follows else 0
        rows.append(
            [
                math.log(job.n_in),
                math.log(job.max_tokens),
                job.sampling["temperature"],
                job.sampling["top_p"],
                job.sampling["top_k"] / 40,
                job.sampling.get("frequency_penalty") or 0.0,
                math.log1p(wait),
                float(before is None),
                math.log1p(number),
                float(job.follows),
                math.log1p(max(0, grown)),
                *job.words,
            ]
        )
        before = job
    return np.array(rows, dtype=np.float64)


def told_apart(ordinary: Sequence[Sequence[Seen]], probes: Sequence[Sequence[Seen]]) -> float:
    """The area under the curve of a logistic regression, trained on half of the keys, on the rest.

    Squares and products of the features are given to it, too.
    """
    train_x, train_y = _matrix(ordinary[::2], probes[::2])
    test_x, test_y = _matrix(ordinary[1::2], probes[1::2])
    mean, spread = train_x.mean(axis=0), train_x.std(axis=0) + 1e-9
    weights = _fit((train_x - mean) / spread, train_y)
    scores = ((test_x - mean) / spread) @ weights[1:] + weights[0]
    ranks = scores.argsort().argsort() + 1
    hits = int(test_y.sum())
    return float((ranks[test_y == 1].sum() - hits * (hits + 1) / 2) / (hits * (len(test_y) - hits)))


def _matrix(
    ordinary: Sequence[Sequence[Seen]], probes: Sequence[Sequence[Seen]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    kinds = [(jobs, 0.0) for jobs in ordinary] + [(jobs, 1.0) for jobs in probes]
    plain = np.concatenate([features(jobs) for jobs, _ in kinds if jobs])
    labels = np.concatenate([np.full(len(jobs), kind) for jobs, kind in kinds if jobs])
    products = [plain[:, i] * plain[:, j] for i in range(plain.shape[1]) for j in range(i + 1)]
    return np.column_stack([plain, *products]), labels


def _fit(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Newton's method on the penalized likelihood, both kinds weighing the same."""
    x = np.column_stack([np.ones(len(x)), x])
    share = y.mean()
    weigh = np.where(y == 1, 0.5 / share, 0.5 / (1 - share))
    weights = np.zeros(x.shape[1])
    for _ in range(12):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (weigh * (chance - y)) + weights
        bend = (x * (weigh * chance * (1 - chance))[:, None]).T @ x + np.eye(len(weights))
        weights -= np.linalg.solve(bend, slope)
    return weights
