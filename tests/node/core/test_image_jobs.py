"""Images in the node's core: admitted as the prompt spells them, kept, shown to auditors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.parameters import Parameters
from assay_node.engine.interface import Chunk
from assay_protocol.codec import encode
from assay_protocol.hashing import pack_tokens, prompt_hash
from assay_protocol.images import spelled
from assay_protocol.messages import (
    AuditTask,
    Image,
    StartJob,
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
    SECOND,
    SERVED,
    Bench,
    code_of,
    honest_replay,
    make_bench,
    make_ticket,
    nonce_of,
)

PLACES = 9
READS = replace(SERVED, image_tokens=PLACES)
PICTURE, OTHER = (Image(width=2, height=2, pixels=bytes([n]) * 12) for n in (1, 2))
PROMPT = (5, *spelled(PICTURE, PLACES), 7)
OUTPUT = (11, 12, END)


def start(
    bench: Bench,
    images: tuple[Image, ...] | None = (PICTURE,),
    prompt: tuple[int, ...] = PROMPT,
    number: int = 1,
    **changes: Any,
) -> list[do.Effect]:
    frame = first_frame(images, prompt, number, **changes)
    return bench.post(on.StreamOpened(number, CLIENT.public_key, frame))


def first_frame(
    images: tuple[Image, ...] | None, prompt: tuple[int, ...], number: int, **changes: Any
) -> bytes:
    ticket = seal(COORDINATOR, make_ticket(number, prompt, **changes))
    packed = pack_tokens(prompt)
    return encode(StartJob(ticket=ticket, nonce=nonce_of(number), prompt=packed, images=images))


def test_images_go_to_the_engine() -> None:
    [started] = start(make_bench(served=(READS,)))
    assert isinstance(started, do.StartGenerate)
    assert started.generate.images == (PICTURE,)
    assert started.generate.prompt == PROMPT


@pytest.mark.parametrize(
    ("images", "prompt", "changes", "code"),
    [
        (None, PROMPT, {}, "image_mismatch"),
        ((OTHER,), PROMPT, {}, "image_mismatch"),
        ((PICTURE, PICTURE), PROMPT, {}, "image_mismatch"),
        ((PICTURE,), (5, *spelled(PICTURE, PLACES + 1), 7), {}, "image_mismatch"),
        ((PICTURE,), (5, 6, 7), {}, "image_mismatch"),
        ((replace(PICTURE, width=3),), PROMPT, {}, "image_refused"),
        ((PICTURE,), PROMPT, {"start": 2}, "malformed"),
        ((PICTURE,), PROMPT, {"sampler": replace(SAMPLER, prompt_logprobs=0)}, "sampler_refused"),
    ],
)
def test_what_the_prompt_does_not_spell_is_refused_and_the_ticket_kept(
    images: tuple[Image, ...] | None, prompt: tuple[int, ...], changes: dict[str, Any], code: str
) -> None:
    tells = replace(READS, tells_prompts=True)
    bench = make_bench(served=(tells,))
    assert code_of(start(bench, images, prompt, **changes)) == code
    assert isinstance(start(bench)[0], do.StartGenerate), "the ticket was not used up"


@pytest.mark.parametrize("images", [None, (PICTURE,)])
def test_a_model_of_text_refuses_images(images: tuple[Image, ...] | None) -> None:
    assert code_of(start(make_bench(), images)) == "image_refused"


def test_a_job_that_goes_on_has_the_images_in_its_prompt() -> None:
    [started] = start(make_bench(served=(READS,)), prompt=(*PROMPT, 11, 12), start=2)
    assert isinstance(started, do.StartGenerate)
    assert (started.generate.start, started.generate.images) == (2, (PICTURE,))


@pytest.mark.parametrize(
    ("stopped", "told"), [("image_refused", "image_refused"), ("busy", "engine_failed")]
)
def test_what_the_engine_refuses_is_told(stopped: str, told: str) -> None:
    bench = make_bench(served=(READS,))
    start(bench)
    assert code_of(bench.post(on.EngineStopped(1, stopped))) == told


# ---- audits ----


def task(**changes: Any) -> AuditTask:
    about = {"n_in": len(PROMPT), "prompt_hash": prompt_hash(nonce_of(1), pack_tokens(PROMPT))}
    return audit_bench.task(OUTPUT, **(about | changes))


def test_the_pixels_reach_the_auditor_sealed() -> None:
    executor, auditor = make_bench(served=(READS,)), make_bench(served=(READS,), seed=b"a" * 32)
    start(executor)
    executor.post(on.Drawn(1, Chunk(OUTPUT, bytes(12), "stop", sketches=bytes(30))))
    box_key = accept(auditor, task())
    [transcript] = executor.notices(
        tell(executor, TranscriptRequest(audit=AUDIT, ticket=task().ticket, box_key=box_key))
    )
    assert isinstance(transcript, Transcript)
    assert PICTURE.pixels not in transcript.sealed
    [started] = tell(auditor, transcript)
    assert isinstance(started, do.StartReplay)
    assert (started.replay.prompt, started.replay.images) == (PROMPT, (PICTURE,))
    auditor.post(on.ReplayDone(AUDIT, honest_replay(OUTPUT)))
    assert revealed(auditor).fault is None


@pytest.mark.parametrize(
    ("images", "served", "fault"),
    [
        (None, READS, "transcript_images"),
        ((OTHER,), READS, "transcript_images"),
        ((PICTURE, OTHER), READS, "transcript_images"),
        ((replace(PICTURE, height=1),), READS, "transcript_images"),
        ((PICTURE,), replace(READS, n_vocab=7), "transcript_tokens"),
    ],
)
def test_a_transcript_with_other_images_is_a_fault(
    images: tuple[Image, ...] | None, served: Any, fault: str
) -> None:
    bench = make_bench(served=(served,))
    box_key = accept(bench, task())
    tell(bench, audit_bench.sealed(box_key, prompt=PROMPT, output=OUTPUT, images=images))
    assert revealed(bench).fault == fault


# ---- memory ----

ONE_JOB = len(first_frame((PICTURE,), PROMPT, 1))  # bytes that it may need


def test_images_are_refused_before_a_young_answer_would_be_lost() -> None:
    bounds = Parameters(transcript_bytes_max=ONE_JOB + 100)
    bench = make_bench(served=(READS,), parameters=bounds)
    start(bench)
    bench.post(on.Drawn(1, Chunk(OUTPUT, bytes(12), "stop", sketches=bytes(30))))
    bench.later(10 * SECOND)  # the stream is closed, whose images counted as well
    assert code_of(start(bench, number=2)) == "busy"
    asked = TranscriptRequest(audit=AUDIT, ticket=make_ticket(1).ticket, box_key=b"k" * 32)
    assert isinstance(bench.notices(tell(bench, asked))[0], Transcript)
    bench.post(on.SessionDown())
    bench.later(bounds.prove_us)
    bench.register()
    [started] = start(bench, number=2)
    assert isinstance(started, do.StartGenerate), "an old answer makes room"


def test_images_of_running_jobs_take_room() -> None:
    bounds = Parameters(transcript_bytes_max=ONE_JOB + 10)
    bench = make_bench(served=(READS,), parameters=bounds)
    assert isinstance(start(bench, number=1)[0], do.StartGenerate)
    assert code_of(start(bench, number=2)) == "busy"
