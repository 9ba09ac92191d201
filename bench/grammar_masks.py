"""What a grammar costs: reading it, a mask a token, and what jobs without one pay.

    python bench/grammar_masks.py [MODEL.gguf] [--answers 20]

`mask_us`: making the set of allowed ids, over answers drawn at random from a schema of four fields;
`forced` where one token is left, `open` inside strings. `draw_*_us` is `sampling.draw_rows` of one
row: `plain` without a mask, as for every other job, `few` and `most` tokens allowed. Medians, and
the 99th percentile of masks. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from assay_node.models.card import build_card
from assay_node.models.fetch import TEST_MODEL_PATH
from assay_protocol import sampling
from assay_protocol.grammars import pack_grammar
from assay_protocol.margins import Allowed
from assay_protocol.masks import DIALECT, Matcher, Vocabulary
from assay_protocol.messages import Sampler

SAMPLER: Final = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
SEED: Final = bytes(range(32))
ROUNDS: Final = 200
TOKENS_MAX: Final = 200
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "kind": {"enum": ["person", "company", "place"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
    },
    "required": ["name", "age", "kind", "tags"],
    "additionalProperties": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=TEST_MODEL_PATH)
    parser.add_argument("--answers", type=int, default=20)
    options = parser.parse_args()
    card = build_card(options.model, name="bench", price_in=0, price_out=0)
    began = time.perf_counter()
    vocabulary = Vocabulary(card.pieces, card.eog)
    figures: dict[str, Any] = {"bench": "grammar_masks", "dialect": DIALECT}
    figures["vocabulary"] = card.n_vocab
    figures["vocabulary_ms"] = round(1e3 * (time.perf_counter() - began), 1)
    print(json.dumps(figures | _masks(vocabulary, options.answers) | _draws(card.n_vocab)))


def _masks(vocabulary: Vocabulary, answers: int) -> dict[str, float]:
    grammar = pack_grammar("json_schema", json.dumps(SCHEMA))
    rng = np.random.default_rng(1)
    reads: list[float] = []
    masks: list[tuple[float, int]] = []
    for _ in range(answers):
        began = time.perf_counter()
        matcher = Matcher(vocabulary, grammar)
        reads.append(time.perf_counter() - began)
        for _ in range(TOKENS_MAX):
            began = time.perf_counter()
            allowed = matcher.allowed()
            masks.append((time.perf_counter() - began, len(allowed)))
            token = int(rng.choice(allowed))
            if token in vocabulary.eog:
                break
            matcher.advance(token)
    seconds = [took for took, _ in masks]
    return {
        "read_us": _us(reads),
        "tokens": len(masks),
        "mask_us": _us(seconds),
        "mask_mean_us": round(1e6 * float(np.mean(seconds)), 1),
        "mask_p99_us": round(1e6 * float(np.percentile(seconds, 99)), 1),
        "mask_forced_us": _us([took for took, count in masks if count == 1]),
        "mask_open_us": _us([took for took, count in masks if count > 1000]),
    }


def _draws(n_vocab: int) -> dict[str, float]:
    logits = (np.random.default_rng(2).standard_normal((1, n_vocab)) * 3).astype(np.float32)
    few, most = np.arange(7, 60), np.arange(n_vocab)[n_vocab // 50 :]

    def drawn(masks: list[Allowed] | None) -> Callable[[], object]:
        return lambda: sampling.draw_rows(logits, [SAMPLER], [SEED], [5], [()], masks)

    return {
        "draw_plain_us": _us(_time(drawn(None))),
        "draw_few_us": _us(_time(drawn([few]))),
        "draw_most_us": _us(_time(drawn([most]))),
    }


def _time(call: Callable[[], object]) -> list[float]:
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken


def _us(seconds: list[float]) -> float:
    return round(1e6 * float(np.median(seconds)), 1)


if __name__ == "__main__":
    main()
