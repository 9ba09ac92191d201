"""Embed a record's texts again with the model's own file, and compare the vectors.

In the receipt's own exact class they are the same bits or the receipt is wrong. In others, honest
machines' vectors were never seen further apart than a cosine of 0.9993 (docs/verification.md), and
what is much further is no arithmetic noise; nearer ones convict nobody and acquit nobody.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Final

from assay.records import ReceiptRecord
from assay.steps import Step, Verification
from assay_protocol.classes import is_exact
from assay_protocol.embeddings import FLOAT_BYTES, embedding_sampler, vector_dims
from assay_protocol.errors import AssayError
from assay_protocol.extras import missing_text
from assay_protocol.messages import Receipt, Ticket
from assay_protocol.signing import peek

COSINE_LEAST: Final = 0.995  # 2.5 times the distance of the noisiest honest pair that was measured
NAME: Final = "recomputed vectors"


@dataclass(frozen=True, slots=True)
class EmbeddedAgain:
    """What the engine here computed: a packed vector of each text."""

    class_id: str
    vectors: tuple[bytes, ...]


def replay_vectors(record: ReceiptRecord, model: Path, threads: int | None) -> Verification:
    """As offline_replay.replay does for answers; `model` is the ticket's file and was checked."""
    return judge_vectors(record, _recompute(record, model, threads))


def judge_vectors(record: ReceiptRecord, found: EmbeddedAgain) -> Verification:
    """What a recomputation says of a record that was checked."""
    receipt, size = peek(Receipt, record.receipt), len(found.vectors)
    row = FLOAT_BYTES * vector_dims(record.output, receipt.n_out)
    theirs = [record.output[at : at + row] for at in range(0, len(record.output), row)]
    if {len(one) for one in found.vectors} != {row}:
        return _told(False, "they are of another size than the model's")
    if is_exact(receipt.class_id) and found.class_id == receipt.class_id:
        wrong = [i for i, one in enumerate(found.vectors) if one != theirs[i]]
        if wrong:
            where = f"{len(wrong)} of {size} are not, the first is text {wrong[0]}"
            return _told(False, f"in its own exact class {where}")
        return _told(True, f"all {size}, bit for bit")
    least = min(map(_cosine, found.vectors, theirs))
    classes = f"computed as {receipt.class_id}, again as {found.class_id}"
    if least < COSINE_LEAST:
        return _told(False, f"the farthest has a cosine of {least:.6f}: no noise; {classes}")
    return _told(None, f"the farthest has a cosine of {least:.6f}: nothing against it; {classes}")


def _told(ok: bool | None, detail: str) -> Verification:
    return Verification(ok is not False, (Step(NAME, ok, detail),))


def _cosine(a: bytes, b: bytes) -> float:
    """Of vectors of length 1."""
    numbers = [struct.unpack(f"<{len(one) // FLOAT_BYTES}f", one) for one in (a, b)]
    return fsum(x * y for x, y in zip(*numbers, strict=True))


def _recompute(record: ReceiptRecord, model: Path, threads: int | None) -> EmbeddedAgain:
    try:
        import trio

        from assay_node.engine.interface import Replay, Replayed
        from assay_node.engine.texts_engine import open_texts_engine
    except ModuleNotFoundError as error:
        text = missing_text("verify", error.name or "assay_node")
        raise AssayError("engine_missing", text) from error
    ticket, receipt = peek(Ticket, record.ticket), peek(Receipt, record.receipt)
    lengths = (ticket.sampler.texts or ())[: receipt.n_out]
    prompt = record.prompt_tokens[: sum(lengths)]
    request = Replay(prompt, (), 0, embedding_sampler(lengths), bytes(32))
    room = max(lengths)
    cores = threads or max(1, (os.cpu_count() or 1) - 1)

    async def run() -> tuple[str, Replayed]:
        opening = open_texts_engine(model, ticket.model, context=room, threads=cores)
        async with opening as engine:
            return engine.info.class_id, await engine.replay(request)

    class_id, done = trio.run(run)
    row = len(done.vectors) // len(lengths)
    found = tuple(done.vectors[at : at + row] for at in range(0, len(done.vectors), row))
    return EmbeddedAgain(class_id, found)
