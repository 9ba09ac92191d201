"""The frames of a child that embeds, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay_node.engine import embedding_wire, wire
from assay_node.engine.embedder import LlamaEmbedder
from assay_node.engine.embedding import Embed, Embedded, EmbeddingInfo, check_embed
from assay_node.engine.embedding_wire import Opening
from assay_node.engine.frames import Deframer
from assay_node.engine.profiles import FLASH, PLAIN, Profile
from assay_protocol.errors import AssayError

INFO = EmbeddingInfo(bytes(32), 100, 8, 16, "mean", "class", "cpu")


def _through_the_pipe(data: bytes) -> list[object]:
    (fields,) = Deframer().feed(data)
    return fields


@pytest.mark.parametrize("profile", [FLASH, PLAIN])
def test_an_opening_arrives_as_sent(profile: Profile) -> None:
    opening = Opening("/x.gguf", b"d" * 32, 512, 3, profile, -1, None)
    assert embedding_wire.read_opening(_through_the_pipe(opening.frame())) == opening


def test_what_the_child_says_of_itself_arrives_and_is_checked() -> None:
    opening = Opening("/x.gguf", b"d" * 32, 512, 3, FLASH, -1, "cls")
    fields = _through_the_pipe(embedding_wire.ready_frame(INFO))
    assert opening.read_ready(fields) == INFO
    for wrong in ([*fields[:5], "rank", *fields[6:]], [*fields[:3], 0, *fields[4:]], fields[:-1]):
        with pytest.raises(ValueError):
            opening.read_ready(wrong)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20), st.binary(max_size=33))
def test_a_text_arrives_as_sent(tokens: list[int], tenant: bytes) -> None:
    request = Embed(tuple(tokens), tenant)
    fields = _through_the_pipe(embedding_wire.embed_frame(7, request))
    assert embedding_wire.read_embed(fields) == (7, request)


def test_a_vector_arrives_as_sent() -> None:
    events: list[wire.Event] = [(3, Embedded(b"\0\0\x80?")), (4, Embedded(b""))]
    assert wire.read_events(_through_the_pipe(wire.events_frame(events))) == events


@pytest.mark.parametrize(
    ("tokens", "code"),
    [
        ((), "malformed"),
        ((1, 100), "malformed"),
        ((-1,), "malformed"),
        ((1,) * 17, "prompt_too_long"),
    ],
)
def test_a_text_the_engine_cannot_take_is_refused(tokens: tuple[int, ...], code: str) -> None:
    with pytest.raises(AssayError) as refused:
        check_embed(INFO, Embed(tokens))
    assert refused.value.code == code
    check_embed(INFO, Embed((99,) * 16))


@pytest.mark.parametrize("event", [Embedded(b"short"), Embedded(bytes(36))])
def test_a_vector_of_another_size_cannot_be_the_engines(event: Embedded) -> None:
    engine = LlamaEmbedder(Opening("/x.gguf", bytes(32), 16, 1, FLASH, -1, None), 1.0)
    engine.info = INFO
    engine._deliver((1, Embedded(bytes(32))))  # of a text given up meanwhile
    with pytest.raises(ValueError):
        engine._deliver((1, event))
