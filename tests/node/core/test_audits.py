"""Audits, both sides, with real sealed boxes: the executor's answers open the auditor's eyes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.auditor import MARGIN_MAX
from assay_node.core.sealing import NaclSealing, Secrets
from assay_node.engine.interface import Chunk, Replayed
from assay_protocol.codec import decode_as
from assay_protocol.errors import ProtocolError
from assay_protocol.hashing import commitment, job_seed, leaves_root
from assay_protocol.leaves import Leaves, leaves_of
from assay_protocol.limits import SKETCH_BYTES
from assay_protocol.messages import (
    AuditCommit,
    AuditDecline,
    AuditReveal,
    AuditStatement,
    AuditTask,
    LeavesOpened,
    OpenLeaves,
    Receipt,
    RevealRequest,
    Transcript,
    TranscriptRequest,
)
from assay_protocol.signing import open_signed, peek
from assay_protocol.sketches import gap_code
from node.core.audit_bench import AUDIT, OUTPUT, PROMPT, accept, sealed, task, tell
from node.core.node_bench import (
    END,
    NODE,
    NOW,
    SAMPLER,
    SECOND,
    SERVED,
    Bench,
    finished_job,
    honest_replay,
    make_bench,
    make_ticket,
    nonce_of,
    numbers_of,
)


def reveal_of(bench: Bench, committed: list[do.Effect]) -> AuditReveal:
    """Ask for the reveal and check it against the commitment."""
    [commit] = bench.notices(committed)
    assert isinstance(commit, AuditCommit)
    [notice] = [e for e in tell(bench, RevealRequest(audit=AUDIT)) if isinstance(e, do.Notify)]
    reveal = decode_as(AuditReveal, notice.body)
    assert (commit.audit, commit.commitment) == (AUDIT, commitment(reveal.nonce, notice.body))
    assert open_signed(AuditStatement, commit.statement or b"", NODE.public_key) == AuditStatement(
        audit=AUDIT,
        ticket=make_ticket(1).ticket,
        output_hash=bench.node._auditor._audits[AUDIT].task.output_hash,
        commitment=commit.commitment,
    )
    return reveal


def test_an_honest_job_passes_from_executor_to_auditor() -> None:
    executor, auditor = make_bench(), make_bench(seed=b"a" * 32)
    finished_job(executor)
    box_key = accept(auditor, task())
    [transcript] = executor.notices(
        tell(executor, TranscriptRequest(audit=AUDIT, ticket=task().ticket, box_key=box_key))
    )
    assert isinstance(transcript, Transcript)
    [started] = tell(auditor, transcript)
    assert isinstance(started, do.StartReplay)
    assert (started.replay.prompt, started.replay.output) == (PROMPT, OUTPUT)
    assert started.replay.seed == job_seed(task().seed_ticket, nonce_of(1))
    committed = auditor.post(on.ReplayDone(AUDIT, honest_replay(OUTPUT)))
    reveal = reveal_of(auditor, committed)
    assert (reveal.mismatches, reveal.margins, reveal.fault) == ((), (), None)

    [opened] = executor.notices(tell(executor, OpenLeaves(audit=AUDIT, ticket=task().ticket)))
    assert isinstance(opened, LeavesOpened)
    receipt = peek(Receipt, executor.of(do.SaveReceipt)[-1].receipt)
    assert opened.logits == reveal.logits == b""
    assert (opened.raws, opened.sketches) == (reveal.raws, reveal.sketches)
    leaves = Leaves(opened.raws or b"", opened.sketches or b"")
    leaves.check(receipt.class_id, receipt.n_out)
    assert leaves.root(receipt.class_id, [opened.hashes]) == receipt.root
    assert reveal.gaps == bytes(6)


LONG = tuple(range(1, 41))


def long_task(**changes: Any) -> AuditTask:
    return task(LONG, finish="cancelled", **changes)


@pytest.mark.parametrize(("replay", "tokens"), [(None, 40), (16, 16), (32, 32), (40, 40)])
def test_so_many_first_tokens_are_replayed_and_revealed(replay: int | None, tokens: int) -> None:
    bench = make_bench()
    told = tell(bench, sealed(accept(bench, long_task(replay=replay)), output=LONG))
    [started] = bench.of(do.StartReplay, told)
    assert started.replay.output == LONG[:tokens]
    found = replace(honest_replay(LONG[:tokens]), gaps=(0.0, 5.0) * (tokens // 2))
    reveal = reveal_of(bench, bench.post(on.ReplayDone(AUDIT, found)))
    whole = numbers_of(LONG)
    leaves = leaves_of(**whole)
    assert reveal.raws == leaves.raws[: 32 * -(-tokens // 16)]
    assert reveal.sketches == whole["sketches"][: SKETCH_BYTES * tokens]
    assert reveal.gaps == bytes([0, gap_code(5.0)]) * (tokens // 2)


def test_the_whole_transcript_is_checked_whatever_is_replayed() -> None:
    bench = make_bench()
    other = (*LONG[:-1], 99)
    committed = tell(bench, sealed(accept(bench, long_task(replay=16)), output=other))
    assert reveal_of(bench, committed).fault == "transcript_output"


@pytest.mark.parametrize("replay", [0, 1, 17, 41, 48])
def test_a_replay_that_ends_within_a_leaf_is_declined(replay: int) -> None:
    bench = make_bench()
    [declined] = bench.notices(tell(bench, long_task(replay=replay)))
    assert declined == AuditDecline(audit=AUDIT, code="malformed")


@pytest.mark.parametrize(
    "changes",
    [
        {"drawn": OUTPUT[:5]},
        {"margins": (0.0,) * 5},
        {"gaps": ()},
        {"logits": bytes(20)},
        {"sketches": bytes(50)},
    ],
)
def test_an_engine_that_leaves_something_out_gives_the_audit_back(changes: dict[str, Any]) -> None:
    bench = make_bench()
    tell(bench, sealed(accept(bench, task())))
    effects = bench.post(on.ReplayDone(AUDIT, replace(honest_replay(OUTPUT), **changes)))
    assert bench.notices(effects) == [AuditDecline(audit=AUDIT, code="engine_failed")]


def test_logprob_leaves_are_opened_and_revealed_as_logprobs() -> None:
    served = replace(SERVED, class_id="openai/x/Q4_1/L")
    executor, auditor = make_bench(served=(served,)), make_bench(seed=b"a" * 32)
    executor.start(1, make_ticket(1))
    logits = numbers_of(OUTPUT)["logits"]
    executor.post(on.Drawn(1, Chunk(OUTPUT, logits, "stop")))
    [opened] = executor.notices(tell(executor, OpenLeaves(audit=AUDIT, ticket=task().ticket)))
    assert (opened.logits, opened.raws, opened.sketches) == (logits, None, None)
    receipt = peek(Receipt, executor.of(do.SaveReceipt)[-1].receipt)
    assert leaves_root([opened.hashes], opened.logits) == receipt.root
    tell(auditor, sealed(accept(auditor, task(leaves="logprob"))))
    found = replace(honest_replay(OUTPUT), sketches=b"")
    reveal = reveal_of(auditor, auditor.post(on.ReplayDone(AUDIT, found)))
    assert (reveal.logits, reveal.raws, reveal.sketches) == (logits, None, None)
    assert reveal.gaps == bytes(6)


def test_a_task_says_what_the_leaves_hold_and_one_unknown_is_declined() -> None:
    for leaves, normalized in ((None, False), ("logprob", True)):
        bench = make_bench()
        [started] = tell(bench, sealed(accept(bench, task(leaves=leaves))))
        assert isinstance(started, do.StartReplay)
        assert started.replay.normalized is normalized
    bench = make_bench()
    [declined] = bench.notices(tell(bench, task(leaves="entropy")))
    assert declined == AuditDecline(audit=AUDIT, code="class_refused")


def test_an_engine_that_cannot_replay_audits_nothing() -> None:
    bench = make_bench(served=(replace(SERVED, class_id="openai/x/Q4_1/L"),))
    [declined] = bench.notices(tell(bench, task()))
    assert declined == AuditDecline(audit=AUDIT, code="class_refused")


def test_mismatches_are_positions_with_margins_in_thousandths() -> None:
    bench = make_bench()
    box_key = accept(bench, task())
    tell(bench, sealed(box_key))
    drawn = (11, 99, 13, 98, 97, END)
    margins = (0.0, 0.0314, 0.0, float("inf"), float("nan"), 0.0)
    replayed = Replayed(drawn, bytes(24), margins, (0.0,) * 6, bytes(60))
    reveal = reveal_of(bench, bench.post(on.ReplayDone(AUDIT, replayed)))
    assert reveal.mismatches == (1, 3, 4)
    assert reveal.margins == (31, MARGIN_MAX, MARGIN_MAX)


TAMPERED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "short prompt": ({}, {"prompt": PROMPT[:2]}, "transcript_length"),
    "long output": ({}, {"output": (*OUTPUT, 1)}, "transcript_length"),
    "other nonce": ({}, {"nonce": b"x" * 32}, "transcript_nonce"),
    "other prompt": ({}, {"prompt": (5, 6, 8)}, "transcript_prompt"),
    "other output": ({}, {"output": (11, 12, 13, 14, 16, END)}, "transcript_output"),
    "unknown token": (
        {"output": (11, 12, 13, 14, 999, END)},
        {"output": (11, 12, 13, 14, 999, END)},
        "transcript_tokens",
    ),
    "stop without the end": ({"output": (11, 12)}, {"output": (11, 12)}, "finish"),
    "length too early": ({"finish": "length"}, {}, "finish"),
    "stop with a token that only another sampler stops at": (
        {"output": (11, 12), "sampler": replace(SAMPLER, stop_tokens=(13,))},
        {"output": (11, 12)},
        "finish",
    ),
    "tokens after a stop token": (
        {"output": (11, 12, END), "sampler": replace(SAMPLER, stop_tokens=(12,))},
        {"output": (11, 12, END)},
        "finish",
    ),
    "tokens after the end": (
        {"output": (11, END, 12, END)},
        {"output": (11, END, 12, END)},
        "finish",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_transcript_is_a_named_fault(name: str) -> None:
    asked, given_back, fault = TAMPERED[name]
    bench = make_bench()
    wanted = task(**asked)
    committed = tell(bench, sealed(accept(bench, wanted), **given_back))
    assert not bench.of(do.StartReplay, committed)
    reveal = reveal_of(bench, committed)
    assert (reveal.fault, reveal.mismatches, reveal.logits) == (fault, (), b"")
    assert (reveal.raws, reveal.sketches, reveal.gaps) == (None, None, None)


def test_a_stop_token_of_the_sampler_is_an_honest_end() -> None:
    bench = make_bench()
    wanted = task(output=(11, 12), sampler=replace(SAMPLER, stop_tokens=(12,)))
    told = tell(bench, sealed(accept(bench, wanted), output=(11, 12)))
    [started] = bench.of(do.StartReplay, told)
    assert started.replay.output == (11, 12)


def test_a_box_for_somebody_else_is_unreadable() -> None:
    bench = make_bench()
    accept(bench, task())
    other = NaclSealing().public_key(b"o" * 32)
    assert reveal_of(bench, tell(bench, sealed(other))).fault == "transcript_unreadable"


def test_an_empty_answer_needs_no_replay() -> None:
    bench = make_bench()
    box_key = accept(bench, task(output=(), finish="cancelled"))
    reveal = reveal_of(bench, tell(bench, sealed(box_key, output=())))
    assert (reveal.mismatches, reveal.fault) == ((), None)
    assert (reveal.raws, reveal.sketches, reveal.gaps) == (b"", b"", b"")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": b"x" * 32}, "model_unknown"),
        ({"n_out": 62}, "prompt_too_long"),
        ({"n_out": 2_049}, "malformed"),
        ({"deadline_at": NOW}, "timeout"),
        ({"sampler": replace(make_ticket(1).sampler, temperature=-1.0)}, "sampler_refused"),
    ],
)
def test_a_task_it_cannot_do_is_declined(changes: dict[str, Any], code: str) -> None:
    bench = make_bench()
    assert bench.notices(tell(bench, task(**changes))) == [AuditDecline(audit=AUDIT, code=code)]


def test_it_takes_on_only_so_many_audits() -> None:
    bench = make_bench()
    for number in range(2):
        accept(bench, task(audit=bytes([number]) * 16))
    assert bench.notices(tell(bench, task())) == [AuditDecline(audit=AUDIT, code="busy")]
    bench.later(60 * SECOND)
    late = task(deadline_at=NOW + 120 * SECOND)
    accept(bench, late)


def test_everything_may_be_said_twice() -> None:
    bench = make_bench()
    box_key = accept(bench, task())
    assert accept(bench, task()) == box_key
    transcript = sealed(box_key)
    assert len(tell(bench, transcript)) == 1
    assert tell(bench, transcript) == []
    committed = bench.post(on.ReplayDone(AUDIT, honest_replay(OUTPUT)))
    assert bench.post(on.ReplayDone(AUDIT, honest_replay(OUTPUT))) == []
    assert bench.notices(tell(bench, transcript)) == bench.notices(committed)
    assert reveal_of(bench, committed) == reveal_of(bench, committed)


def test_nothing_is_revealed_before_the_commitment() -> None:
    bench = make_bench()
    accept(bench, task())
    [answer] = bench.notices(tell(bench, RevealRequest(audit=AUDIT)))
    assert answer == AuditDecline(audit=AUDIT, code="unexpected_message")


def test_two_audits_get_two_box_keys() -> None:
    bench = make_bench()
    assert accept(bench, task(audit=b"1" * 16)) != accept(bench, task(audit=b"2" * 16))


def test_a_failed_replay_gives_the_audit_back() -> None:
    bench = make_bench()
    tell(bench, sealed(accept(bench, task())))
    effects = bench.post(on.ReplayFailed(AUDIT, "engine_failed"))
    assert bench.notices(effects) == [AuditDecline(audit=AUDIT, code="engine_failed")]


def test_an_unknown_ticket_is_a_lost_transcript() -> None:
    bench = make_bench()
    asked = (
        TranscriptRequest(audit=AUDIT, ticket=b"t" * 16, box_key=b"k" * 32),
        OpenLeaves(audit=AUDIT, ticket=b"t" * 16),
    )
    for message in asked:
        assert bench.notices(tell(bench, message)) == [
            AuditDecline(audit=AUDIT, code="transcript_lost")
        ]


def test_a_transcript_is_forgotten_by_age() -> None:
    bench = make_bench()
    finished_job(bench)
    bench.later(3_600 * SECOND + 1)
    [answer] = bench.notices(tell(bench, OpenLeaves(audit=AUDIT, ticket=task().ticket)))
    assert isinstance(answer, AuditDecline)


def test_secrets_never_repeat_and_depend_on_the_seed() -> None:
    one, other = Secrets(b"1" * 32), Secrets(b"2" * 32)
    drawn = [one.next() for _ in range(50)] + [other.next() for _ in range(50)]
    assert len(set(drawn)) == 100


@given(st.binary(max_size=200))
def test_any_bytes_in_a_box_are_unreadable_and_nothing_else(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        NaclSealing().open(data, b"s" * 32)
