"""Runs one engine and writes down what it computed: answers as they are drawn, or audits of them.

    python bench/verify/recorder.py TASK.json        (started by recordings.py)

A process of its own, because a library is chosen when it is loaded. Generates with the product's
context, sampler and sketches, `STREAMS` answers at once; audits by teacher-forcing prompt and
answer. Answers run on past end tokens, so that every job is as long as the others. Beside what
our own checks need, the last hidden states and the best logits are kept for the checks of others.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from llama_cpp import llama_cpp as library
from numpy.typing import NDArray

import conditions
from assay_node.engine import llama
from assay_node.engine.llama import Context, Model
from assay_node.engine.profiles import Profile
from assay_protocol.messages import Sampler
from assay_protocol.sampling import draw_rows
from assay_protocol.sketches import sketch_rows

CONTEXT: Final = 256
STREAMS: Final = 8
COLUMNS: Final = 512
BEST: Final = 64  # logits kept of each position: top-k and what may come in by drift
_KV_TYPES: Final = {"q8_0": 8, "q4_0": 2}  # ggml_type of ggml.h; the product has f16 only

Rows = dict[str, NDArray[Any]]  # what is kept, by name: one row for each token


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    llama._KV_TYPES.update(_KV_TYPES)
    engine = Engine(Path(task["model"]), conditions.profile(task["class"]), task["kv"])
    for jobs, some in groupby(task["work"], lambda work: work["jobs"]):
        works = list(some)
        audits = [work for work in works if work["answers"]]
        for work in works:
            if not work["answers"]:
                provider = conditions.provider(work["provider"])
                _write(work["target"], generate(engine, provider, jobs, task["tokens"]))
        read = [np.load(work["answers"])["tokens"] for work in audits]
        for work, rows in zip(audits, audit(engine, read, jobs) if audits else [], strict=True):
            _write(work["target"], rows)
    engine.close()


class Engine:
    """The product's model and context, with hidden states switched on."""

    def __init__(self, path: Path, profile: Profile, kv: str) -> None:
        profile = conditions.with_kv(profile, kv)
        self.profile = profile
        self.model = Model(path, profile)
        self.context = Context(
            self.model,
            sequences=STREAMS,
            context=CONTEXT,
            batch=max(profile.total, profile.replay_chunk),
            threads=1,
            profile=profile,
        )
        library.llama_set_embeddings(self.context.handle, True)
        self.width = int(library.llama_model_n_embd(self.model.handle))

    def decode(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits and hidden states of every token in the batch; views, valid until the next."""
        logits = self.context.decode()
        pointer = library.llama_get_embeddings(self.context.handle)
        hidden = np.ctypeslib.as_array(pointer, shape=(len(logits), self.width))
        return logits, hidden

    def feed(self, tokens: list[int], stream: int, begin: int) -> Iterator[tuple[Any, Any]]:
        """The tokens from position `begin` of the stream, in pieces; yields what `decode` gives."""
        size = self.profile.replay_chunk
        for at in range(0, len(tokens), size):
            piece = tokens[at : at + size]
            self.context.batch.clear()
            self.context.batch.add(piece, begin + at, stream, wanted=len(piece))
            yield self.decode()

    def tokenize(self, text: str) -> list[int]:
        vocab: Any = library.llama_model_get_vocab(self.model.handle)
        data = text.encode()
        room = (library.llama_token * (len(data) + 8))()
        count = library.llama_tokenize(vocab, data, len(data), room, len(room), True, True)
        assert count > 0
        return list(room[:count])

    def close(self) -> None:
        self.context.close()
        self.model.close()


def generate(engine: Engine, provider: conditions.Provider, jobs: list[int], tokens: int) -> Rows:
    """The provider's answers: what it drew and what it committed to."""
    kept: list[Rows] = []
    for begin in range(0, len(jobs), STREAMS):
        kept += _together(engine, provider, jobs[begin : begin + STREAMS], tokens)
    return {name: np.stack([one[name] for one in kept]) for name in kept[0]}


def _write(target: str, rows: Rows) -> None:
    part = Path(target).with_suffix(".part.npz")
    np.savez_compressed(part, **rows)  # type: ignore[arg-type]
    part.rename(target)
    print(Path(target).name, flush=True)


def _together(
    engine: Engine, provider: conditions.Provider, jobs: list[int], tokens: int
) -> list[Rows]:
    prompts = [engine.tokenize(provider.prompt(job)) for job in jobs]
    batch, at = engine.context.batch, range(len(jobs))
    logits = np.empty((len(jobs), engine.model.n_vocab), np.float32)
    hidden = np.empty((len(jobs), engine.width), np.float32)
    for stream in at:
        engine.context.truncate(stream, 0)
        for some, states in engine.feed(prompts[stream], stream, 0):
            logits[stream], hidden[stream] = some[-1], states[-1]
    noise = [conditions.seed(job, provider.seed) for job in jobs]
    rows: list[list[Rows]] = [[] for _ in jobs]
    for position in range(tokens):
        samplers: list[Sampler] = [provider.sampler] * len(jobs)
        drawn = draw_rows(logits, samplers, noise, [position] * len(jobs))
        batch.clear()
        for stream in at:
            one = slice(stream, stream + 1)
            kept = _keep(logits[one], hidden[one], drawn[one], jobs[stream], position)
            rows[stream].append(kept | {"tokens": np.array(drawn[one], np.int32)})
            batch.add(drawn[one], len(prompts[stream]) + position, stream, wanted=1)
        if position + 1 < tokens:
            logits, hidden = engine.decode()
    return [{name: np.concatenate([r[name] for r in one]) for name in one[0]} for one in rows]


def audit(engine: Engine, answers: list[NDArray[np.int32]], jobs: list[int]) -> list[Rows]:
    """What this engine computes, as an auditor, for several providers' int32[jobs, tokens].

    A job's prompt is computed once for all of them, as a prefix that is kept.
    """
    kept: list[list[Rows]] = [[] for _ in answers]
    for row, job in enumerate(jobs):
        prompt = engine.tokenize(conditions.HONEST.prompt(job))
        first = len(prompt) - 1
        engine.context.truncate(0, 0)
        for _ in engine.feed(prompt[:first], 0, 0):
            continue
        for one, rows in zip(answers, kept, strict=True):
            tokens = [int(token) for token in one[row]]
            engine.context.truncate(0, first)
            rows.append(_replayed(engine, [prompt[-1], *tokens[:-1]], tokens, first, job))
    return [{name: np.stack([row[name] for row in rows]) for name in rows[0]} for rows in kept]


def _replayed(engine: Engine, fed: list[int], tokens: list[int], first: int, job: int) -> Rows:
    pieces, position = [], 0
    for logits, hidden in engine.feed(fed, 0, first):
        some = tokens[position : position + len(logits)]
        pieces.append(_keep(logits, hidden, some, job, position))
        position += len(logits)
    return {name: np.concatenate([one[name] for one in pieces]) for name in pieces[0]}


def _keep(
    logits: NDArray[np.float32],
    hidden: NDArray[np.float32],
    tokens: list[int],
    job: int,
    position: int,
) -> Rows:
    """What is written down of some rows, from output position `position` on."""
    count = len(logits)
    best = _best(logits)
    seed = conditions.seed(job)
    sketches = sketch_rows(logits, [seed] * count, range(position, position + count))
    top = logits.max(axis=1, keepdims=True)
    return {
        "raw": logits[np.arange(count), tokens].astype(np.float32),
        "sketches": np.frombuffer(sketches, np.uint8).reshape(count, -1),
        "best": best.astype(np.int32),
        "logits": np.take_along_axis(logits, best, axis=1),
        "total": top[:, 0] + np.log(np.exp(logits - top).sum(axis=1)),
        "hidden": _bfloat16(hidden),
    }


def _best(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """The BEST likeliest tokens of each row, the likeliest first, the lower id among equals."""
    count, n_vocab = logits.shape
    columns = logits[:, : n_vocab // COLUMNS * COLUMNS].reshape(count, -1, COLUMNS).max(axis=1)
    columns.partition(COLUMNS - BEST, axis=1)  # at least BEST logits are no less than this one
    found = []
    for row, least in zip(logits, columns[:, COLUMNS - BEST], strict=True):
        tokens = np.flatnonzero(row >= least)
        found.append(tokens[np.argsort(-row[tokens], kind="stable")[:BEST]])
    return np.stack(found)


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of the floats, rounded to the nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


if __name__ == "__main__":
    main()
