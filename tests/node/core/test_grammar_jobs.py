"""Grammars in the node's core: admitted as committed to, shown to auditors, held against cheats."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.engine.interface import Chunk, Replayed
from assay_protocol.codec import decode, encode
from assay_protocol.grammars import pack_grammar
from assay_protocol.hashing import grammar_hash, pack_tokens
from assay_protocol.limits import GRAMMAR_BYTES_MAX
from assay_protocol.messages import (
    AuditDecline,
    AuditTask,
    Register,
    Sampler,
    StartJob,
    Ticket,
    Transcript,
    TranscriptRequest,
)
from assay_protocol.signing import seal
from node.core import audit_bench
from node.core.audit_bench import AUDIT, accept, revealed, tell
from node.core.node_bench import (
    CLIENT,
    COORDINATOR,
    END,
    SAMPLER,
    SERVED,
    Bench,
    code_of,
    honest_replay,
    make_bench,
    make_ticket,
    nonce_of,
)

GRAMMAR = pack_grammar("regex", "secret|other")
HELD = replace(SAMPLER, grammar=grammar_hash(nonce_of(1), GRAMMAR))
KEEPS = replace(SERVED, grammar="masks-1")
OUTPUT = (11, 12, END)


def start(
    bench: Bench, sampler: Sampler, grammar: bytes | None, ticket: Ticket | None = None
) -> list[do.Effect]:
    job = ticket or make_ticket(1, sampler=sampler)
    nonce = nonce_of(int.from_bytes(job.ticket, "big"))
    frame = StartJob(
        ticket=seal(COORDINATOR, job), nonce=nonce, prompt=pack_tokens((5, 6, 7)), grammar=grammar
    )
    return bench.post(on.StreamOpened(1, CLIENT.public_key, encode(frame)))


def test_the_text_goes_to_the_engine_and_the_offer_says_what_computes_masks() -> None:
    bench = make_bench(served=(KEEPS,))
    [request] = bench.requests(bench.done, Register)
    message = decode(request.body)
    assert isinstance(message, Register)
    assert message.offers[0].grammar == "masks-1"
    [started] = start(bench, HELD, GRAMMAR)
    assert isinstance(started, do.StartGenerate)
    assert started.generate.grammar == GRAMMAR


@pytest.mark.parametrize(
    ("sampler", "grammar", "code"),
    [
        (HELD, None, "grammar_mismatch"),
        (HELD, GRAMMAR + b"s", "grammar_mismatch"),
        (SAMPLER, GRAMMAR, "grammar_mismatch"),
        (replace(SAMPLER, grammar=grammar_hash(nonce_of(1), b"x\ny")), b"x\ny", "grammar_refused"),
    ],
)
def test_a_grammar_that_is_not_the_tickets_is_refused(
    sampler: Sampler, grammar: bytes | None, code: str
) -> None:
    bench = make_bench(served=(KEEPS,))
    assert code_of(start(bench, sampler, grammar)) == code
    [started] = start(bench, HELD, GRAMMAR)
    assert isinstance(started, do.StartGenerate), "the ticket was not used up"


def test_a_node_without_masks_refuses_and_offers_none() -> None:
    bench = make_bench()
    [request] = bench.requests(bench.done, Register)
    message = decode(request.body)
    assert isinstance(message, Register)
    assert message.offers[0].grammar is None
    assert code_of(start(bench, HELD, GRAMMAR)) == "grammar_refused"


def test_a_frame_with_too_long_a_grammar_is_refused() -> None:
    long = b"regex\n" + b"a" * GRAMMAR_BYTES_MAX
    held = replace(SAMPLER, grammar=grammar_hash(nonce_of(1), long))
    assert code_of(start(make_bench(served=(KEEPS,)), held, long)) == "oversized"


@pytest.mark.parametrize(
    ("stopped", "told"), [("grammar_refused", "grammar_refused"), ("busy", "engine_failed")]
)
def test_what_the_engine_refuses_is_told_without_the_text(stopped: str, told: str) -> None:
    bench = make_bench(served=(KEEPS,))
    start(bench, HELD, GRAMMAR)
    effects = bench.post(on.EngineStopped(1, stopped))
    assert code_of(effects) == told
    assert b"secret" not in repr(effects).encode()


# ---- audits ----


def task(**changes: Any) -> AuditTask:
    return audit_bench.task(OUTPUT, **({"sampler": HELD} | changes))


def sealed(box_key: bytes, grammar: bytes | None) -> Transcript:
    return audit_bench.sealed(box_key, output=OUTPUT, grammar=grammar)


def test_the_text_reaches_the_auditor_sealed() -> None:
    executor, auditor = make_bench(served=(KEEPS,)), make_bench(served=(KEEPS,), seed=b"a" * 32)
    start(executor, HELD, GRAMMAR)
    executor.post(on.Drawn(1, Chunk(OUTPUT, bytes(12), "stop", sketches=bytes(30))))
    box_key = accept(auditor, task())
    [transcript] = executor.notices(
        tell(executor, TranscriptRequest(audit=AUDIT, ticket=task().ticket, box_key=box_key))
    )
    assert isinstance(transcript, Transcript)
    assert b"secret" not in transcript.sealed
    [started] = tell(auditor, transcript)
    assert isinstance(started, do.StartReplay)
    assert started.replay.grammar == GRAMMAR
    auditor.post(on.ReplayDone(AUDIT, honest_replay(OUTPUT)))
    assert revealed(auditor).fault is None


@pytest.mark.parametrize("grammar", [None, GRAMMAR + b"s"])
def test_a_transcript_with_another_grammar_is_a_fault(grammar: bytes | None) -> None:
    bench = make_bench(served=(KEEPS,))
    tell(bench, sealed(accept(bench, task()), grammar))
    assert revealed(bench).fault == "transcript_grammar"


def test_a_token_outside_the_grammar_is_a_fault_and_a_lost_draw_is_not() -> None:
    for margin, fault in ((math.inf, "grammar"), (0.25, None)):
        bench = make_bench(served=(KEEPS,))
        tell(bench, sealed(accept(bench, task()), GRAMMAR))
        found = Replayed((11, 99, END), bytes(12), (0.0, margin, 0.0), (0.0,) * 3, bytes(30))
        bench.post(on.ReplayDone(AUDIT, found))
        reveal = revealed(bench)
        assert reveal.fault == fault
        assert reveal.mismatches == (() if fault else (1,))


def test_an_infinite_margin_without_a_grammar_stays_a_margin() -> None:
    bench = make_bench(served=(KEEPS,))
    plain = make_ticket(1).sampler
    tell(bench, sealed(accept(bench, task(sampler=plain)), None))
    margins = (0.0, math.inf, 0.0)
    found = Replayed((11, 99, END), bytes(12), margins, (0.0,) * 3, bytes(30))
    bench.post(on.ReplayDone(AUDIT, found))
    assert (revealed(bench).fault, revealed(bench).mismatches) == (None, (1,))


def test_who_keeps_no_grammar_or_cannot_read_this_one_gives_the_audit_back() -> None:
    bench = make_bench()
    [declined] = bench.notices(tell(bench, task()))
    assert declined == AuditDecline(audit=AUDIT, code="grammar_refused")
    bench = make_bench(served=(KEEPS,))
    tell(bench, sealed(accept(bench, task()), GRAMMAR))
    [declined] = bench.notices(bench.post(on.ReplayFailed(AUDIT, "grammar_refused")))
    assert declined == AuditDecline(audit=AUDIT, code="grammar_refused")
