"""What a replay with the model's file says: proof in the exact class, evidence elsewhere."""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from dataclasses import replace
from functools import partial
from math import comb, inf
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from assay.offline_replay import HONEST_SHARE, Recomputed, judge, noise_chance
from assay.records import ReceiptRecord
from assay.steps import Verification
from assay.verify import replay, verify
from assay_protocol.errors import AssayError
from assay_protocol.hashing import job_seed, nonce_commitment, pack_tokens, prompt_hash
from assay_protocol.messages import Receipt, Sampler, Ticket
from assay_protocol.prompt_logprobs import told_digest
from assay_protocol.signing import peek, seal
from assay_protocol.streams import NodeStream, Times
from sdk import verdict_cases
from sdk.client_world import COORDINATOR, node_key
from sdk.test_receipt_verify import RECORD
from told_cases import told_of

ANSWER = RECORD.output_tokens
FLOAT = verdict_cases.CLASS[:-1] + "F"


def found(wrong: int = 0, margin: float = 0.1, **changes: object) -> Recomputed:
    """What an engine of that class finds, with the first `wrong` tokens drawn otherwise."""
    drawn = tuple(token + 1 if i < wrong else token for i, token in enumerate(ANSWER))
    margins = tuple(margin if i < wrong else 0.0 for i in range(len(ANSWER)))
    right = Recomputed(
        verdict_cases.CLASS, drawn, margins, verdict_cases.logits(), verdict_cases.sketches()
    )
    return replace(right, **changes)  # type: ignore[arg-type]  # tests name real fields


def judged(recomputed: Recomputed, class_id: str = verdict_cases.CLASS) -> Verification:
    record = verdict_cases.sketched(class_id)
    return judge(record, peek(Receipt, record.receipt), recomputed)


def test_in_the_same_exact_class_tokens_and_root_must_be_the_very_same() -> None:
    result = judged(found())
    assert [(step.name, step.ok) for step in result.steps] == [
        ("replayed tokens", True),
        ("leaves root", True),
    ]
    one = judged(found(wrong=1))
    assert one.failed == ("replayed tokens",)
    assert "the first is token 0" in one.steps[0].detail
    other = judged(found(logits=verdict_cases.logits(1e-3)))
    assert other.failed == ("leaves root",), "a prefill of the right tokens by another model"


@pytest.mark.parametrize(
    ("wrong", "margin", "ok", "says"),
    [
        (0, 0.1, None, "nothing speaks against it"),
        (3, 0.4, None, "3 of 100 differ (3.0 %): nothing speaks against it"),
        (3, 2.5, None, "ask for an audit"),
        (3, inf, None, "ask for an audit"),
        (30, 0.4, False, "too many for honest noise"),
    ],
)
def test_between_classes_it_is_evidence_and_never_proof(
    wrong: int, margin: float, ok: bool | None, says: str
) -> None:
    for recomputed, class_id in (
        (found(wrong, margin, class_id=FLOAT), verdict_cases.CLASS),
        (found(wrong, margin, class_id=FLOAT), FLOAT),
        (found(wrong, margin), FLOAT),
    ):
        (step,) = judged(recomputed, class_id).steps
        assert step.ok is ok
        assert says in step.detail


def test_opened_leaves_let_sketches_be_compared() -> None:
    record, opening = verdict_cases.sketched(FLOAT), verdict_cases.opening()
    receipt = peek(Receipt, record.receipt)
    near = judge(record, receipt, found(sketches=verdict_cases.sketches(0.02)), opening)
    assert near.steps[1].name == "sketches"
    assert near.steps[1].ok is None
    assert "% apart" in near.steps[1].detail
    none = judge(record, receipt, found(sketches=b"", class_id=FLOAT), opening)
    assert none.steps[1].detail == "one side has none"
    lied = replace(opening, sketches=verdict_cases.sketches(0.3))
    assert judge(record, receipt, found(), lied).failed == ("sketches",)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_chance_is_the_binomial_tail(mismatches: int, matches: int) -> None:
    tokens, share = mismatches + matches, HONEST_SHARE
    tail = sum(
        comb(tokens, k) * share**k * (1 - share) ** (tokens - k)
        for k in range(mismatches, tokens + 1)
    )
    assert noise_chance(mismatches, tokens) == pytest.approx(tail, rel=1e-9)


def test_what_cannot_be_replayed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"not it")
    with pytest.raises(AssayError, match="model_corrupt"):
        replay(RECORD, file)
    with pytest.raises(AssayError, match=r"receipt_mismatch.*output"):
        replay(replace(RECORD, output=RECORD.output[4:]), file)
    named = _with_model(RECORD, hashlib.sha256(b"not it").digest())
    monkeypatch.setitem(sys.modules, "assay_node.engine.trials", None)
    with pytest.raises(AssayError, match=r"engine_missing.*assay-network\[verify\]"):
        replay(named, str(file))


def _with_model(record: ReceiptRecord, model: bytes) -> ReceiptRecord:
    ticket = replace(peek(Ticket, record.ticket), model=model)
    return replace(record, ticket=seal(COORDINATOR, ticket))


ASKS = replace(peek(Ticket, RECORD.ticket).sampler, prompt_logprobs=1)


@pytest.mark.parametrize(
    ("theirs", "ours", "lie", "ok", "says"),
    [
        (verdict_cases.CLASS, verdict_cases.CLASS, 0.0, True, "as the model gives them"),
        (verdict_cases.CLASS, verdict_cases.CLASS, 1e-3, False, "in its own exact class"),
        (verdict_cases.CLASS, FLOAT, 0.1, None, "nothing speaks against them"),
        (FLOAT, FLOAT, 0.1, None, "nothing speaks against them"),
        (FLOAT, FLOAT, 2.5, False, "more than honest classes do"),
    ],
)
def test_logprobs_of_the_prompt_are_compared_as_strictly_as_the_classes_allow(
    theirs: str, ours: str, lie: float, ok: bool | None, says: str
) -> None:
    record, prompt = verdict_cases.sketched(theirs), RECORD.prompt_tokens
    ticket = replace(peek(Ticket, record.ticket), sampler=ASKS)
    told = told_of(prompt[1:], 1, lie)
    record = replace(record, ticket=seal(COORDINATOR, ticket), prompt_logprobs=told)
    here = found(class_id=ours, told=told_of(prompt[1:], 1))
    step = judge(record, peek(Receipt, record.receipt), here).steps[-1]
    assert (step.name, step.ok) == ("prompt logprobs", ok)
    assert says in step.detail
    broken = replace(record, prompt_logprobs=told[:-8])
    assert judge(broken, peek(Receipt, record.receipt), here).failed == ("prompt logprobs",)


# ---- with the real model ------------------------------------------------------------------------

NONCE = bytes(range(32))
SAMPLER = Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
PROMPT = tuple(500 + (37 * i) % 40_000 for i in range(30))
TOKENS = 40


@pytest.mark.model
@pytest.mark.slow
def test_a_real_answer_is_replayed_with_the_models_file() -> None:
    path = _model()
    record = _written(path)
    assert verify(record).ok
    result = replay(record, path, threads=1)
    assert result.ok
    class_id = peek(Receipt, record.receipt).class_id
    proved = class_id.endswith("/E")
    assert [step.ok for step in result.steps] == ([True, True] if proved else [None])
    forged = replace(record, receipt=_resealed(record, class_id="another/F"))
    assert [step.ok for step in replay(forged, path, threads=1).steps] == [None]


@pytest.mark.model
@pytest.mark.slow
def test_a_real_prompt_is_told_of_again_and_a_signed_lie_is_seen() -> None:
    path = _model()
    record = _written(path, replace(SAMPLER, prompt_logprobs=2))
    assert verify(record).ok
    result = replay(record, path, threads=1)
    assert result.ok
    proved = peek(Receipt, record.receipt).class_id.endswith("/E")
    told = result.steps[-1]
    assert (told.name, told.ok) == ("prompt logprobs", True if proved else None)
    lied = bytearray(record.prompt_logprobs)
    lied[4:8] = struct.pack("<f", -0.001)  # the first token, as if the model were sure of it
    ticket = peek(Ticket, record.ticket)
    signed = told_digest(ticket, NONCE, bytes(lied))
    receipt = _resealed(record, prompt_logprobs=signed)
    forged = replace(record, prompt_logprobs=bytes(lied), receipt=receipt)
    assert verify(forged).ok, "the node signed for it, so offline it holds"
    assert replay(forged, path, threads=1).failed == ("prompt logprobs",)


def _model() -> Path:
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    path = Path(os.environ.get("ASSAY_TEST_MODEL") or Path.home() / ".cache/assay/models" / name)
    assert path.is_file(), f"put {name} at {path}, or its path into ASSAY_TEST_MODEL"
    return path


def _resealed(record: ReceiptRecord, **changes: object) -> bytes:
    receipt = replace(peek(Receipt, record.receipt), **changes)  # type: ignore[arg-type]  # fields
    return seal(node_key(0), receipt)


def _written(path: Path, sampler: Sampler = SAMPLER) -> ReceiptRecord:
    """The record of an answer that an engine of this machine's exact class drew."""
    from assay_node.engine.interface import Generate
    from assay_node.engine.library import engines
    from assay_node.engine.supervisor import open_llama_engine
    from assay_node.engine.trials import choose

    model = hashlib.sha256(path.read_bytes()).digest()
    profile = choose(path, model, "exact", threads=1, directory=engines())
    ticket = replace(
        peek(Ticket, RECORD.ticket),
        model=model,
        prompt_hash=prompt_hash(NONCE, pack_tokens(PROMPT)),
        n_in=len(PROMPT),
        sampler=sampler,
        max_tokens=TOKENS,
        nonce_commitment=nonce_commitment(NONCE),
    )
    request = Generate(PROMPT, 0, TOKENS, sampler, job_seed(ticket.seed_ticket, NONCE))

    async def run() -> tuple[bytes, bytes, bytes]:
        opening = partial(open_llama_engine, slots=2, context=256, threads=1, profile=profile)
        with trio.fail_after(120):
            async with opening(path, model) as engine, engine.generate(request) as chunks:
                stream = NodeStream(ticket, NONCE, node_key(0), engine.info.class_id)
                told = b""
                async for chunk in chunks:
                    if chunk.prompt_logprobs:
                        stream.tell(chunk.prompt_logprobs)
                        told += chunk.prompt_logprobs
                        continue
                    stream.chunk(chunk.tokens, chunk.logits, chunk.sketches)
                assert chunk.finish is not None
                return stream.output, stream.finish(chunk.finish, Times(1, 2, 3))[1], told

    output, receipt, told = trio.run(run)
    return ReceiptRecord(
        coordinator=COORDINATOR.public_key,
        ticket=seal(COORDINATOR, ticket),
        receipt=receipt,
        nonce=NONCE,
        prompt=pack_tokens(PROMPT),
        output=output,
        prompt_logprobs=told,
    )
