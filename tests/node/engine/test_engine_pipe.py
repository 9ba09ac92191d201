"""The pipe between supervisor and worker, and the two ways a child that is not ours can end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node.engine import wire
from assay_node.engine.frames import Deframer, frame
from assay_node.engine.interface import PRIORITY_LOW, Chunk, EngineInfo, Generate, Replay, Replayed
from assay_protocol.errors import AssayError
from assay_protocol.messages import Sampler, TokenBias

SAMPLER = Sampler(temperature=0.5, top_k=3, top_p=0.9, min_p=0.1)


def _through_the_pipe(data: bytes) -> list[object]:
    (fields,) = Deframer().feed(data)
    return fields


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 7))
def test_frames_survive_any_cutting(bodies: list[bytes], size: int) -> None:
    stream = b"".join(frame("x", body) for body in bodies)
    deframer = Deframer()
    got = [
        fields
        for i in range(0, len(stream), size)
        for fields in deframer.feed(stream[i : i + size])
    ]
    assert got == [["x", body] for body in bodies]


_PLAIN = st.recursive(
    st.none() | st.integers(-5, 2**40) | st.binary(max_size=9) | st.sampled_from(["chunk", "stop"]),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)


@given(st.binary(min_size=1, max_size=64) | st.lists(_PLAIN).map(lambda v: frame("events", *v)))
def test_any_bytes_give_frames_or_engine_failed(data: bytes) -> None:
    codes = set()
    try:
        for fields in Deframer().feed(data):
            wire.read_events(fields)
    except AssayError as error:
        codes.add(error.code)
    assert codes <= {"engine_failed"}


def test_requests_arrive_as_sent() -> None:
    generate = Generate((1, 2, 70_000), 4, 9, SAMPLER, bytes(32), b"who", 2, PRIORITY_LOW)
    job, got = wire.read_generate(_through_the_pipe(wire.generate_frame(7, generate)))
    assert (job, got.prompt, got.start, got.max_tokens) == (7, (1, 2, 70_000), 4, 9)
    assert (got.sampler.temperature, got.sampler.top_k) == (0.5, 3)
    assert (got.tenant, got.shared) == (b"who", 2)
    replay = Replay((1,), (2, 3), 1, SAMPLER, bytes(32), adapter=b"a" * 32)
    job, back = wire.read_replay(_through_the_pipe(wire.replay_frame(8, replay)))
    assert (job, back.prompt, back.output, back.start, back.seed) == (8, (1,), (2, 3), 1, bytes(32))
    assert back.adapter == b"a" * 32


def test_every_option_of_a_sampler_arrives_as_sent() -> None:
    sampler = Sampler(
        temperature=0.5,
        top_k=3,
        top_p=0.9,
        min_p=0.1,
        repetition_penalty=1.1,
        repetition_window=0,
        presence_penalty=-0.5,
        frequency_penalty=0.25,
        logit_bias=(TokenBias(token=1, bias=-2.0), TokenBias(token=70_000, bias=3.5)),
        stop_tokens=(5, 9),
        logprobs=0,
    )
    for sent in (sampler, SAMPLER):
        generate = Generate((1, 2), 4, 9, sent, bytes(32), adapter=b"a" * 32)
        assert (
            wire.read_generate(_through_the_pipe(wire.generate_frame(7, generate)))[1] == generate
        )


def test_events_arrive_as_sent() -> None:
    events: list[wire.Event] = [
        (1, Chunk((5,), b"\0\0\0\1", None)),
        (2, Chunk((6,), b"\0\0\0\2", "stop", b"logprobs", b"0123456789")),
        (2, Chunk((), b"", None, prompt_logprobs=b"of the prompt")),
        (3, Replayed((1, 2), b"12345678", (0.0, 0.25), (math.inf, 0.5), b"01234567890123456789")),
    ]
    assert wire.read_events(_through_the_pipe(wire.events_frame(events))) == events
    failed = wire.events_frame([(4, AssayError("busy", "later"))])
    ((job, error),) = wire.read_events(_through_the_pipe(failed))
    assert isinstance(error, AssayError)
    assert (job, error.code, error.message) == (4, "busy", "later")


def test_the_engine_info_arrives_as_sent() -> None:
    info = EngineInfo(bytes(32), 10, 20, 2, "class", frozenset({1, 2}), "cpu", "", (b"a" * 32,))
    assert wire.read_ready(_through_the_pipe(wire.ready_frame(info))) == info


def test_a_frame_too_large_is_refused_before_it_is_held() -> None:
    with pytest.raises(AssayError):
        Deframer().feed((1 << 31).to_bytes(4, "little"))
