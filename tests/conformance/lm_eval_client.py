"""lm-eval over /v1/completions: tasks of local files, weighed as its leaderboards weigh them.

What it finds is compared with loglikelihoods that llama-cpp-python computes from the model's file
(direct_logprobs.py), of the very tokens it asked for. No package of ours here.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import lm_eval
from checks import equal, run
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager

NATS = float(os.environ["WEIGHING_NATS"])  # a text may be off by so much
CHOICES, PASSAGES = "weigh_capitals", "weigh_passages"

Weighed = list[tuple[float, bool]]


def model(**more: Any) -> LocalCompletionsAPI:
    return LocalCompletionsAPI(
        base_url=os.environ["SUBJECT_BASE"] + "/completions",
        model=os.environ["SUBJECT_MODEL"],
        tokenizer="tokenizer",
        tokenizer_backend="huggingface",
        max_length=1_024,
        max_retries=1,
        **more,
    )


def evaluated(task: str, lm: LocalCompletionsAPI) -> tuple[dict[str, Any], Weighed]:
    """The task's scores, and what each of its requests got."""
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=[task],
        task_manager=TaskManager(include_path=str(Path.cwd()), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    got = [one for sample in samples for one in sample["filtered_resps"]]
    return found["results"][task], got


@cache
def direct(task: str) -> Weighed:
    """Of the same texts, from the model's file."""
    lm = model()
    lines = Path(f"{task.removeprefix('weigh_')}.jsonl").read_text().splitlines()
    docs = [json.loads(line) for line in lines]
    if task == CHOICES:
        texts = [(doc["question"], f" {choice}") for doc in docs for choice in doc["choices"]]
        pairs = [lm._encode_pair(*text) for text in texts]
    else:
        pairs = [([lm.prefix_token_id], lm.tok_encode(doc["text"])) for doc in docs]
    command = [os.environ["DIRECT_PYTHON"], os.environ["DIRECT_PROGRAM"], os.environ["MODEL_FILE"]]
    done = subprocess.run(command, input=json.dumps(pairs), stdout=-1, text=True, check=True)
    return [(total, greedy) for total, greedy in json.loads(done.stdout)]


def compare(found: Weighed, wanted: Weighed) -> None:
    equal(len(found), len(wanted))
    off = max(abs(one[0] - other[0]) for one, other in zip(found, wanted, strict=True))
    assert off <= NATS, f"a text is off by {off:.4g} nats, and {NATS:g} are allowed"
    equal([greedy for _, greedy in found], [greedy for _, greedy in wanted])


def multiple_choice() -> None:
    scores, found = evaluated(CHOICES, model())
    compare(found, direct(CHOICES))
    assert 0.5 <= scores["acc,none"] <= 1.0, scores


def in_batches() -> None:
    _, found = evaluated(CHOICES, model(batch_size=4))
    compare(found, direct(CHOICES))


def several_at_once() -> None:
    _, found = evaluated(CHOICES, model(num_concurrent=4))
    compare(found, direct(CHOICES))


def prompts_as_text() -> None:
    _, found = evaluated(CHOICES, model(tokenized_requests=False))
    compare(found, direct(CHOICES))


def loglikelihood_rolling() -> None:
    scores, found = evaluated(PASSAGES, model())
    wanted = direct(PASSAGES)
    compare([(total, False) for total in found], [(total, False) for total, _ in wanted])
    assert scores["bits_per_byte,none"] > 0, scores


if __name__ == "__main__":
    run(multiple_choice, in_batches, several_at_once, prompts_as_text, loglikelihood_rolling)
