"""Loglikelihoods straight from the model's file, by llama-cpp-python: what a server should tell.

    python direct_logprobs.py MODEL.gguf < PAIRS > LOGLIKELIHOODS

PAIRS is JSON: lists of token ids, a context and what comes after it. Told for each: the sum of the
natural log probabilities of the second list, and whether each of its tokens was the likeliest.
Runs in the environment of llama-cpp-python: no package of ours here. Prompts are read as the nodes
of the first exact road read them, with flash attention and in small pieces, so that the same
library computes the same bits; the softmax is of its own, in binary64. Where the trial of a machine
chose another road, texts are off by more (bench/prompt_logprobs.py tells how much).
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import numpy as np
from llama_cpp import Llama

CONTEXT: Final = 1_024
PIECE: Final = 32


def main() -> None:
    model = Llama(
        model_path=sys.argv[1],
        n_ctx=CONTEXT,
        n_batch=PIECE,
        n_ubatch=PIECE,
        n_threads=1,
        flash_attn=True,
        logits_all=True,
        verbose=False,
    )
    print(json.dumps([weighed(model, *pair) for pair in json.load(sys.stdin)]))


def weighed(model: Any, context: list[int], after: list[int]) -> tuple[float, bool]:
    model.reset()
    model.eval([*context, *after])
    rows = np.array(model.scores[len(context) - 1 : len(context) + len(after) - 1], np.float64)
    best = rows.max(axis=1)
    totals = best + np.log(np.exp(rows - best[:, None]).sum(axis=1))
    own = rows[np.arange(len(after)), after]
    return float((own - totals).sum()), bool((own == best).all())


if __name__ == "__main__":
    main()
