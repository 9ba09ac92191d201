"""Logprobs of a prompt between the two ends of a stream, whatever becomes of the frames."""

from __future__ import annotations

import dataclasses
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay_protocol import hashing, messages
from assay_protocol.codec import encode
from assay_protocol.errors import AssayError, ProtocolError
from assay_protocol.limits import PROMPT_LOGPROBS_BYTES_MAX, TOKENS_PER_FRAME_MAX
from assay_protocol.messages import PromptChunk, Sampler
from assay_protocol.prompt_logprobs import check_asked, read_told, told_digest
from assay_protocol.samplers import validate
from assay_protocol.signing import open_signed, seal
from assay_protocol.streams import ClientStream, NodeStream, Times
from protocol_cases import CLIENT, NODE, NONCE, damaged, make_ticket
from told_cases import told_of

TIMES = Times(1, 2, 3)


def sampler(rivals: int | None) -> Sampler:
    return dataclasses.replace(make_ticket().sampler, prompt_logprobs=rivals)


def ends(
    prompt: tuple[int, ...], rivals: int | None, **changes: Any
) -> tuple[NodeStream, ClientStream]:
    """Both ends of a job over `prompt`, the client's already started."""
    packed = hashing.pack_tokens(prompt)
    ticket = make_ticket(
        prompt_hash=hashing.prompt_hash(NONCE, packed),
        n_in=len(prompt),
        sampler=sampler(rivals),
        **changes,
    )
    client = ClientStream(ticket, NONCE, CLIENT)
    client.start(b"", packed)
    return NodeStream(ticket, NONCE, NODE, "exact"), client


def pieces(told: bytes, size: int, cuts: list[int]) -> list[bytes]:
    """`told` in frames of so many entries each, the cuts repeated as often as needed."""
    found, at = [], 0
    while at < len(told):
        step = size * min(cuts[len(found) % len(cuts)], TOKENS_PER_FRAME_MAX)
        found.append(told[at : at + step])
        at += step
    return found


PROMPTS = st.lists(st.integers(0, 999), min_size=1, max_size=600).map(tuple)
CUTS = st.lists(st.integers(1, 300), min_size=1, max_size=5)


@settings(max_examples=60)
@given(PROMPTS, st.integers(0, 3), CUTS)
def test_a_sound_stream_tells_the_whole_prompt_in_any_pieces(
    prompt: tuple[int, ...], rivals: int, cuts: list[int]
) -> None:
    node, client = ends(prompt, rivals)
    told = told_of(prompt[1:], rivals)
    heard = []
    for piece in pieces(told, 8 * (1 + rivals), cuts):
        heard += client.receive(node.tell(piece)).prompt_logprobs
    assert node.untold == 0
    assert [entry.token for entry in heard] == list(prompt[1:])
    assert all(len(entry.top) == rivals for entry in heard)
    assert read_told(bytes(client.told), client.ticket.sampler, prompt) == tuple(heard)
    client.receive(node.chunk((7,), bytes(4), bytes(10)))
    receipt = client.receive(node.finish("stop", TIMES)[0]).receipt
    assert receipt is not None
    assert receipt.prompt_logprobs == told_digest(client.ticket, NONCE, told)


@settings(max_examples=150)
@given(PROMPTS.filter(lambda prompt: len(prompt) > 1), CUTS, st.data())
def test_a_receipt_is_taken_only_if_the_client_has_what_the_node_signed_for(
    prompt: tuple[int, ...], cuts: list[int], data: st.DataObject
) -> None:
    """One frame is lost, doubled, moved or damaged. What fails leaves nothing behind."""
    node, client = ends(prompt, 1)
    told = told_of(prompt[1:], 1)
    frames = [node.tell(piece) for piece in pieces(told, 16, cuts)]
    at = data.draw(st.integers(0, len(frames) - 1))
    other = data.draw(st.integers(0, len(frames) - 1))
    amiss = {
        "lost": [],
        "doubled": [frames[at], frames[at]],
        "moved": [frames[other]],
        "damaged": [data.draw(damaged(frames[at]))],
    }[data.draw(st.sampled_from(["lost", "doubled", "moved", "damaged"]))]
    sent = [*frames[:at], *amiss, *frames[at + 1 :]]
    last = [node.chunk((7,), bytes(4), bytes(10)), node.finish("stop", TIMES)[0]]
    for frame in [*sent, *last]:
        before = bytes(client.told)
        try:
            client.receive(frame)
        except AssayError:
            assert bytes(client.told) == before
            break
    if client.receipt_blob is not None:
        assert bytes(client.told) == told
    if sent == frames:
        assert client.receipt_blob is not None


def refused(client: ClientStream, message: object, code: str, says: str) -> None:
    with pytest.raises(ProtocolError, match=says) as caught:
        client.receive(encode(message))
    assert caught.value.code == code


def test_what_was_not_asked_for_is_refused() -> None:
    _, client = ends((5, 6, 7), None)
    told = told_of((6,), 0)
    refused(client, PromptChunk(position=1, logprobs=told), "unexpected_message", "nobody asked")
    _, resumed = ends((5, 6, 7), 0, start=1)
    refused(resumed, PromptChunk(position=1, logprobs=told), "unexpected_message", "nobody asked")


def test_gaps_repetitions_too_many_and_other_tokens_are_refused() -> None:
    prompt = (5, 6, 7)
    _, client = ends(prompt, 0)
    told = told_of(prompt[1:], 0)
    for position in (0, 2, 3):
        chunk = PromptChunk(position=position, logprobs=told[:8])
        refused(client, chunk, "unexpected_message", "out of order")
    more = told_of((6, 7, 8), 0)
    refused(client, PromptChunk(position=1, logprobs=more), "oversized", "more logprobs")
    refused(client, PromptChunk(position=1, logprobs=told + b"1234"), "malformed", "whole")
    other = told_of((7, 6), 0)
    refused(client, PromptChunk(position=1, logprobs=other), "malformed", "another token")
    above = struct.pack("<If", 6, 0.5)
    refused(client, PromptChunk(position=1, logprobs=above), "malformed", "above 0")
    nothing = struct.pack("<If", 6, math.nan)
    refused(client, PromptChunk(position=1, logprobs=nothing), "malformed", "above 0")
    client.receive(encode(PromptChunk(position=1, logprobs=told)))
    for position in (1, 3):
        chunk = PromptChunk(position=position, logprobs=told[:8])
        code = "unexpected_message" if position == 1 else "oversized"
        refused(client, chunk, code, "out of order" if position == 1 else "more logprobs")


def test_a_frame_has_at_most_so_many() -> None:
    prompt = tuple(range(TOKENS_PER_FRAME_MAX + 2))
    _, client = ends(prompt, 0)
    told = told_of(prompt[1:], 0)
    assert len(told) == 8 * (TOKENS_PER_FRAME_MAX + 1)
    refused(client, PromptChunk(position=1, logprobs=told), "oversized", "more logprobs")


def test_no_token_comes_before_the_whole_prompt_is_told_of() -> None:
    prompt = (5, 6, 7)
    node, client = ends(prompt, 0)
    told = told_of(prompt[1:], 0)
    first = PromptChunk(position=1, logprobs=told[:8])
    client.receive(encode(first))
    token = messages.TokenChunk(position=0, tokens=bytes(4))
    refused(client, token, "unexpected_message", "before the prompt's logprobs")
    node.tell(told[:8])
    with pytest.raises(AssertionError):
        node.chunk((1,), bytes(4), bytes(10))


def test_a_node_signs_for_what_it_told_and_a_client_takes_no_other_receipt() -> None:
    prompt = (5, 6, 7)
    node, client = ends(prompt, 0)
    told = told_of(prompt[1:], 0)
    client.receive(node.tell(told))
    client.receive(node.chunk((9,), bytes(4), bytes(10)))
    frame, blob = node.finish("stop", TIMES)
    receipt = open_signed(messages.Receipt, blob, NODE.public_key)
    for wrong in (None, bytes(32)):
        forged = seal(NODE, dataclasses.replace(receipt, prompt_logprobs=wrong))
        message = messages.Finished(receipt=forged)
        refused(client, message, "receipt_mismatch", "signed for")
    assert client.receive(frame).receipt == receipt


def test_a_cancelled_job_signs_for_what_it_told_by_then() -> None:
    prompt = (5, 6, 7)
    node, client = ends(prompt, 0)
    told = told_of(prompt[1:], 0)
    client.receive(node.tell(told[:8]))
    receipt = client.receive(node.finish("cancelled", TIMES)[0]).receipt
    assert receipt is not None
    assert receipt.prompt_logprobs == told_digest(client.ticket, NONCE, told[:8])


def test_a_job_that_goes_on_elsewhere_tells_nothing_and_signs_for_nothing() -> None:
    node, client = ends((5, 6, 7), 2, start=1)
    assert node.untold == 0
    client.receive(node.chunk((9,), bytes(4), bytes(10)))
    receipt = client.receive(node.finish("stop", TIMES)[0]).receipt
    assert receipt is not None
    assert receipt.prompt_logprobs is None


def test_more_than_may_be_told_is_refused_before_anything_is_computed() -> None:
    most = PROMPT_LOGPROBS_BYTES_MAX // (8 * 21)
    check_asked(sampler(20), most)
    check_asked(sampler(None), 1 << 31)
    with pytest.raises(ProtocolError, match="sampler_refused"):
        check_asked(sampler(20), most + 1)
    for rivals in (-1, 21):
        with pytest.raises(ProtocolError, match="prompt_logprobs"):
            validate(dataclasses.replace(sampler(0), prompt_logprobs=rivals))


@pytest.mark.parametrize("told", [bytes(7), bytes(16), told_of((7,), 0)])
def test_kept_ones_that_are_not_the_prompts_are_refused(told: bytes) -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        read_told(told, sampler(0), (5, 6))
