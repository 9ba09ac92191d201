"""What recent jobs looked like, without a word of them: the pattern that probes are cut to.

`coordinator shapes` writes one JSON object a line, oldest first: which account asked (a number that
means nothing elsewhere), when, how many tokens went in and came out, and the sampler. An account's
jobs are split into sessions at pauses; within one, a job whose prompt is long enough to hold the
earlier prompt and answer is a further turn of the same talk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from assay_protocol.errors import AssayError

SHAPES_MAX: Final = 100_000  # lines read; of a longer file the last
SESSION_PAUSE_MS: Final = 1_800_000  # a longer one begins a new session
SESSION_JOBS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class JobShape:
    """One job as everybody but its client and its node sees it. `sampling` is for make_sampler.

    `grammar`: its answer was held to one, whose text is not known.
    """

    account: int
    at_ms: int
    n_in: int
    n_out: int
    max_tokens: int
    sampling: Mapping[str, Any]
    grammar: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """A job in its session: the pause before it, and whether it goes on with the talk before."""

    shape: JobShape
    wait_ms: int
    follows: bool


@dataclass(frozen=True, slots=True)
class Session:
    """An account's jobs without a long pause; `start_ms` counts from the first job of the file."""

    start_ms: int
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """What each account did. `turnover`: the share of the later half's accounts that are new."""

    accounts: tuple[tuple[Session, ...], ...]
    turnover: float


def read_shapes(text: str) -> Shapes:
    """The shapes of a file's text. Raises AssayError("config_invalid") naming the line."""
    lines = text.splitlines()
    first = max(0, len(lines) - SHAPES_MAX)
    shapes = [_shape(line, number) for number, line in enumerate(lines[first:], first + 1)]
    if not shapes:
        raise AssayError("config_invalid", "the file has no shapes")
    return arrange(shapes)


def arrange(shapes: Sequence[JobShape]) -> Shapes:
    """Accounts and sessions of jobs in any order; at least one."""
    jobs: dict[int, list[JobShape]] = {}
    for shape in sorted(shapes, key=lambda one: one.at_ms):
        jobs.setdefault(shape.account, []).append(shape)
    begin = min(mine[0].at_ms for mine in jobs.values())
    middle = (begin + max(mine[-1].at_ms for mine in jobs.values())) // 2
    late = [mine for mine in jobs.values() if mine[-1].at_ms > middle]
    new = sum(mine[0].at_ms > middle for mine in late)
    accounts = tuple(tuple(_sessions(mine, begin)) for mine in jobs.values())
    return Shapes(accounts, new / len(late) if late else 1.0)


def _sessions(jobs: Sequence[JobShape], begin: int) -> list[Session]:
    """One account's jobs, in order of time."""
    found: list[list[Turn]] = []
    before: JobShape | None = None
    for shape in jobs:
        wait = 0 if before is None else shape.at_ms - before.at_ms
        full = bool(found) and len(found[-1]) == SESSION_JOBS_MAX
        if before is None or wait > SESSION_PAUSE_MS or full:
            found.append([Turn(shape, 0, False)])
        else:
            found[-1].append(Turn(shape, wait, shape.n_in > before.n_in + before.n_out))
        before = shape
    return [Session(turns[0].shape.at_ms - begin, tuple(turns)) for turns in found]


def _shape(line: str, number: int) -> JobShape:
    try:
        fields = json.loads(line)
        counts = [fields[name] for name in ("account", "at_ms", "n_in", "n_out", "max_tokens")]
        sampling, grammar = fields["sampling"], fields.get("grammar", False)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise TypeError("counts")
        if type(sampling) is not dict or type(grammar) is not bool:
            raise TypeError("sampling")
    except (ValueError, TypeError, KeyError) as error:
        raise AssayError("config_invalid", f"line {number} is not a shape: {error}") from error
    if bias := sampling.get("logit_bias"):  # JSON has no numbers as names
        sampling["logit_bias"] = {int(token): by for token, by in dict(bias).items()}
    account, at_ms, n_in, n_out, max_tokens = counts
    return JobShape(account, at_ms, n_in, n_out, max_tokens, sampling, grammar)
