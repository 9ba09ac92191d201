"""From audits of trusted nodes to a calibration table.

Of each pair of classes that enough jobs were seen of, and of each model over all its pairs, the
chance of a flip by gap and the drift of sketches, with the upper ends of 99.5 % confidence
intervals: what is fitted from few jobs is wide, and evidence by it is weak rather than wrong. Flips
do not rise with the gap (isotonic regression by pooling adjacent violators). A class whose mean
drift is more than NOISY times the median class's of its model is marked as refused: in its noise a
cheat could hide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance
from typing import Final

from assay_coordinator.core.calibration import BUILT_IN, MILLION, gap_bin
from assay_protocol.classes import is_exact
from assay_protocol.limits import GAP_BINS
from assay_protocol.messages import Calibration, PairNoise

PAIR_JOBS_MIN: Final = 50  # fewer are only counted for their model
CLASSES_MIN: Final = 3  # of a model, before one of them can be called noisy
NOISY: Final = 1.5
_Z: Final = 2.5758  # one-sided 99.5 %
_FLIP_LEAST, _FLIP_MOST = 1e-5, 0.95
_DRIFT_LEAST: Final = 1e-4
_SPREAD_LEAST: Final = 0.02  # of the drift: no honest noise was seen to be steadier

Key = tuple[bytes, str, str]  # model, executor's class, auditor's class


@dataclass(frozen=True, slots=True)
class Trace:
    """One trusted auditor's audit of one trusted node's answer."""

    model: bytes
    executor: str
    auditor: str
    gaps: bytes  # a code for each token
    mismatches: tuple[int, ...]
    distances: tuple[float, ...]  # of each leaf


def fit(version: int, fitted_at: int, traces: Iterable[Trace]) -> Calibration:
    """The table. Pairs of one exact class are left out: they are compared bit by bit."""
    groups: dict[Key, list[Trace]] = {}
    for trace in traces:
        if trace.distances and not (is_exact(trace.executor) and trace.executor == trace.auditor):
            pair = (trace.model, trace.executor, trace.auditor)
            for key in (pair, (trace.model, "", "")):
                groups.setdefault(key, []).append(trace)
    enough = {key: group for key, group in groups.items() if len(group) >= PAIR_JOBS_MIN}
    noisy = noisy_classes([trace for key, g in enough.items() if key[1] for trace in g])
    pairs = [noise_of(key, enough[key]) for key in sorted(enough)]
    for model, executor in sorted(noisy):
        known = noise_of((model, executor, ""), _of_class(enough, model, executor), refused=True)
        pairs.append(known)
    unseen = BUILT_IN.calibration.pairs  # for models that nothing is known of
    return Calibration(version=version, fitted_at=fitted_at, pairs=(*pairs, *unseen))


def noise_of(key: Key, traces: Sequence[Trace], refused: bool | None = None) -> PairNoise:
    """The entry for `key` from its traces, one or more, each with at least one leaf."""
    flips, tokens = [0] * GAP_BINS, [0] * GAP_BINS
    for trace in traces:
        for code in trace.gaps:
            tokens[gap_bin(code)] += 1
        for at in trace.mismatches:
            flips[gap_bin(trace.gaps[at])] += 1
    drift, leaf_sd, job_sd = spread([trace.distances for trace in traces])
    return PairNoise(
        model=key[0],
        executor=key[1],
        auditor=key[2],
        flips=tuple(math.ceil(MILLION * rate) for rate in flip_bounds(flips, tokens)),
        drift=math.ceil(MILLION * drift),
        leaf_sd=math.ceil(MILLION * leaf_sd),
        job_sd=math.ceil(MILLION * job_sd),
        jobs=len(traces),
        refused=refused,
    )


def flip_bounds(flips: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Upper bounds on the chance of a flip in each bin, not rising; a bin nothing was seen in has
    its lower neighbour's."""
    blocks: list[tuple[int, int, int]] = []  # flips, tokens, bins
    for flipped, seen in zip(flips, tokens, strict=True):
        block = (flipped, seen, 1)
        while blocks and block[0] * blocks[-1][1] >= blocks[-1][0] * block[1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    bounds: list[float] = []
    for flipped, seen, bins in blocks:
        bound = min(_FLIP_MOST, max(_FLIP_LEAST, upper(flipped, seen)))
        bounds += [min([bound, *bounds[-1:]])] * bins
    return bounds


def upper(hits: int, trials: int) -> float:
    """The upper end of the one-sided 99.5 % Wilson interval."""
    if not trials:
        return 1.0
    p, z2 = hits / trials, _Z * _Z / trials
    return (p + z2 / 2 + _Z * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials))) / (1 + z2)


def spread(jobs: Sequence[tuple[float, ...]]) -> tuple[float, float, float]:
    """Mean of the jobs' means, standard deviation within a job's leaves and between jobs: the upper
    ends of their intervals."""
    means = [fmean(leaves) for leaves in jobs]
    within = [(len(leaves) - 1, variance(leaves)) for leaves in jobs if len(leaves) > 1]
    free = sum(count for count, _ in within)
    leaf_variance = math.fsum(count * one for count, one in within) / free if free else 0.0
    of_means = variance(means) if len(means) > 1 else 0.0
    of_leaves = leaf_variance * fmean(1 / len(leaves) for leaves in jobs)
    wider = 1 + _Z / math.sqrt(2 * max(1, len(means) - 1))
    drift = max(_DRIFT_LEAST, fmean(means) + _Z * math.sqrt(of_means / len(means)))
    between = max(_SPREAD_LEAST * drift, wider * math.sqrt(max(0.0, of_means - of_leaves)))
    return drift, wider * math.sqrt(leaf_variance), between


def noisy_classes(traces: Sequence[Trace]) -> set[tuple[bytes, str]]:
    """(model, class) of executors whose mean drift stands out from the other classes'."""
    means: dict[bytes, dict[str, list[float]]] = {}
    for trace in traces:
        of_model = means.setdefault(trace.model, {})
        of_model.setdefault(trace.executor, []).append(fmean(trace.distances))
    noisy = set()
    for model, classes in means.items():
        drifts = {name: fmean(values) for name, values in classes.items()}
        limit = NOISY * median(drifts.values())
        if len(drifts) >= CLASSES_MIN:
            noisy |= {(model, name) for name, drift in drifts.items() if drift > limit}
    return noisy


def _of_class(groups: dict[Key, list[Trace]], model: bytes, executor: str) -> list[Trace]:
    return [t for key, group in groups.items() if key[:2] == (model, executor) for t in group]
