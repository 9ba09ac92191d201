"""The checks that others published, each by its own statistic and thresholds.

- TOPLOC (Ong et al. 2025, arXiv 2501.16007; package `toploc`): a polynomial through the 128 largest
  of the last hidden states of 32 tokens. A job fails if any of its pieces has more than 38
  mismatching exponents, a mean mantissa difference over 10, or a median over 8.
- Gonka (inference_validation.go): distances of the likeliest tokens' logprobs, as a share of their
  size; a job passes if 1 - distance is over 0.99 by the validator's code, 0.98 by the genesis.
- Token-DiFR (arXiv 2511.20621): how far the given token's score is behind the winner's, clipped at
  half a logit; the mean over the answer. The paper gives no threshold for one answer: ours applies.

What they do about tokens that were not drawn as claimed is nothing, but for Token-DiFR.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from assay_protocol.filters import kept
from assay_protocol.messages import Sampler
from assay_protocol.noise import gumbel

TOPLOC_TOKENS: Final = 32
TOPLOC_VALUES: Final = 128
TOPLOC_LIMITS: Final = (38, 10.0, 8.0)  # exponent mismatches, mean and median mantissa difference
GONKA_TOP: Final = 5  # logprobs of each position
GONKA_LEAST: Final = 100  # tokens that a distance is spread over, at least
DIFR_CLIP: Final = 0.5  # logits

Floats = NDArray[np.float64]


@cache
def has_toploc() -> bool:
    """Whether its package, and a torch that it was built for, are installed."""
    try:
        import toploc
    except ImportError:
        return False
    return bool(toploc.__name__)


def toploc_fails(theirs: NDArray[np.uint16], ours: NDArray[np.uint16]) -> bool | None:
    """Of one answer's hidden states, bfloat16[tokens, width]; None if the package is missing."""
    if not has_toploc():
        return None
    import toploc

    proofs = toploc.build_proofs_bytes(
        _tensors(theirs), TOPLOC_TOKENS, TOPLOC_VALUES, skip_prefill=True
    )
    found = toploc.verify_proofs_bytes(
        _tensors(ours), proofs, TOPLOC_TOKENS, TOPLOC_VALUES, skip_prefill=True
    )
    exponents, mean, middle = TOPLOC_LIMITS
    return any(
        one.exp_mismatches > exponents or one.mant_err_mean > mean or one.mant_err_median > middle
        for one in found
    )


def gonka_distance(
    theirs: tuple[NDArray[np.int32], Floats], ours: tuple[NDArray[np.int32], Floats]
) -> float:
    """Of the likeliest tokens and their logprobs, each [positions, at least GONKA_TOP].

    A token that the executor does not list counts as the next step below its least two.
    """
    distance = 0.0
    for ids, values, others, claimed in zip(*ours, *theirs, strict=True):
        known = dict(zip(others[:GONKA_TOP].tolist(), claimed[:GONKA_TOP].tolist(), strict=True))
        least, second = sorted(known.values())[:2]
        missing = least - (second - least)
        for token, own in zip(ids[:GONKA_TOP].tolist(), values[:GONKA_TOP].tolist(), strict=True):
            other = known.get(token, missing)
            distance += abs(own - other) / (1e-6 + abs(own) + abs(other)) / 2
    return distance / (max(GONKA_LEAST, len(ours[0])) * GONKA_TOP)


def difr_margin(
    logits: NDArray[np.float32],
    token: int,
    drawn: int,
    sampler: Sampler,
    seed: bytes,
    position: int,
) -> float:
    """By how much the drawn token's score beats the given one's, at most DIFR_CLIP."""
    if token == drawn:
        return 0.0
    if token not in kept(logits, sampler):
        return DIFR_CLIP
    pair = np.array([drawn, token])
    scores = logits[pair] + sampler.temperature * gumbel(seed, position, pair)
    return float(min(DIFR_CLIP, scores[0] - scores[1]))


def _tensors(states: NDArray[np.uint16]) -> list[Any]:
    import torch

    whole = torch.from_numpy(states.view(np.int16)).view(torch.bfloat16)
    return list(whole)
