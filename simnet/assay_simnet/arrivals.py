"""What clients ask and when: arrivals, lengths, sessions, and a crowd that comes at once.

Times between arrivals are exponential (Poisson), of a Gamma law (bursts: BurstGPT found shapes
below 1), or a trace's. A session is one client's turns: each prompt holds what was said before, and
the next comes a while after the last answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from assay_simnet.scenario import Workload
from assay_simnet.seeds import Stream, Zipf
from assay_simnet.traces import Ask


@dataclass(frozen=True, slots=True)
class Lengths:
    """Draws token counts in [1, most]. `exponent` is Zipf's."""

    law: str
    mean: int
    most: int
    zipf: Zipf | None = None

    def draw(self, stream: Stream) -> int:
        if self.zipf is not None:
            return min(self.most, self.zipf.draw(stream))
        if self.law == "exponential":
            return max(1, min(self.most, round(stream.exponential(self.mean))))
        return min(self.most, self.mean)


def lengths(law: str, mean: int, most: int, exponent: float) -> Lengths:
    """Zipf's lengths are 1..most by rank, so their mean follows from the exponent."""
    zipf = Zipf(most, exponent) if law == "zipf" else None
    return Lengths(law, mean, most, zipf)


@dataclass(frozen=True, slots=True)
class Turns:
    """One session to come: how many turns, and the pause before each after the first."""

    at_us: int
    asks: tuple[Ask, ...]
    pauses_us: tuple[int, ...]


def sessions(workload: Workload, stream: Stream, trace: Sequence[Ask]) -> Iterator[Turns]:
    """All sessions in the order of their first asks; times from the start of the workload."""
    if workload.arrivals == "trace":
        yield from _traced(workload, trace)
        return
    prompts = lengths(workload.lengths, workload.prompt_tokens, workload.prompt_most, workload.zipf)
    answers = lengths(workload.lengths, workload.answer_tokens, workload.answer_most, workload.zipf)
    at = 0.0
    while workload.arrivals != "none":
        at += _gap_us(workload, stream, at)
        yield _session(workload, stream, round(at), prompts, answers)


def _gap_us(workload: Workload, stream: Stream, at: float) -> float:
    mean = 1e6 / workload.rate
    begins, ends = workload.surge_at, workload.surge_at + workload.surge_for
    if begins <= at < ends:
        mean /= workload.surge_factor
    if workload.arrivals == "gamma":
        gap = stream.gamma(mean, workload.gamma_shape)
    else:
        gap = stream.exponential(mean)
    if at < begins < at + gap and workload.surge_for:
        return begins - at  # the crowd does not wait for a calm gap to end
    return gap


def _session(
    workload: Workload, stream: Stream, at: int, prompts: Lengths, answers: Lengths
) -> Turns:
    count = 1
    if workload.turns > 1:  # geometric, of that mean
        while count < workload.turns_most and stream.uniform() > 1.0 / workload.turns:
            count += 1
    asks, pauses, said = [], [], 0
    for turn in range(count):
        own, answer = prompts.draw(stream), answers.draw(stream)
        n_in = min(workload.prompt_most, said + own)
        asks.append(Ask(at, n_in, answer))
        said = n_in + answer
        if turn:
            pauses.append(round(stream.exponential(max(1, workload.think))))
    return Turns(at, tuple(asks), tuple(pauses))


def _traced(workload: Workload, trace: Sequence[Ask]) -> Iterator[Turns]:
    """The trace, faster by `rate_scale`, again and again until the run is over."""
    span = max(1, trace[-1].at_us + (trace[-1].at_us // max(1, len(trace) - 1) or 1))
    lap = 0
    while True:
        for ask in trace:
            at = round((lap * span + ask.at_us) / workload.rate_scale)
            n_in, n_out = min(ask.n_in, workload.prompt_most), min(ask.n_out, workload.answer_most)
            yield Turns(at, (Ask(at, n_in, n_out, ask.session),), ())
        lap += 1
