"""A prompt's logprobs at the node's core: taken from the engine, sent first, refused where not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.offers import make_offer
from assay_node.core.parameters import Served
from assay_node.engine.interface import Chunk
from assay_protocol.codec import decode
from assay_protocol.errors import RemoteError
from assay_protocol.limits import PROMPT_LOGPROBS_BYTES_MAX, TOKENS_PER_FRAME_MAX
from assay_protocol.messages import PromptChunk, Receipt, Sampler, TokenChunk
from assay_protocol.prompt_logprobs import told_digest
from assay_protocol.signing import peek
from node.core.node_bench import SAMPLER, SERVED, Bench, Client, make_bench, make_ticket, nonce_of
from told_cases import told_of

TELLS = replace(SERVED, tells_prompts=True, context=1_024)


def asking(rivals: int = 0) -> Sampler:
    return replace(SAMPLER, prompt_logprobs=rivals)


def started(prompt: tuple[int, ...], rivals: int = 0, **changes: Any) -> tuple[Bench, Client]:
    bench = make_bench(served=(TELLS,))
    ticket = make_ticket(1, prompt, sampler=asking(rivals), **changes)
    return bench, bench.start(1, ticket, prompt)


def told(tokens: tuple[int, ...], rivals: int = 0, **more: Any) -> Chunk:
    return Chunk((), b"", None, prompt_logprobs=told_of(tokens, rivals), **more)


def sent(bench: Bench, effects: list[do.Effect]) -> list[Any]:
    return [decode(effect.frame) for effect in bench.of(do.SendFrame, effects)]


@pytest.mark.parametrize("rivals", [0, 3])
def test_they_are_sent_as_they_come_and_more_is_asked_for(rivals: int) -> None:
    bench, client = started((5, 6, 7, 8), rivals)
    for tokens in ((6, 7), (8,)):
        effects = bench.post(on.Drawn(1, told(tokens, rivals)))
        assert [type(one) for one in sent(bench, effects)] == [PromptChunk]
        assert bench.of(do.NextChunk, effects) == [do.NextChunk(1)]
        client.hear(effects)
    client.draw(11, 12, finish="stop")
    client.reply()
    receipt = peek(Receipt, bench.of(do.SaveReceipt)[-1].receipt)
    whole = told_of((6, 7, 8), rivals)
    assert bytes(client.end.told) == whole
    assert receipt.prompt_logprobs == told_digest(client.end.ticket, nonce_of(1), whole)


def test_a_long_prompt_is_told_of_in_bounded_frames_and_no_window() -> None:
    prompt = tuple(i % 100 for i in range(2 * TOKENS_PER_FRAME_MAX + 3))
    bench, client = started(prompt)
    effects = bench.post(on.Drawn(1, told(prompt[1:])))
    client.hear(effects)
    frames = sent(bench, effects)
    assert [len(one.logprobs) // 8 for one in frames] == [256, 256, 2]
    assert [one.position for one in frames] == [1, 257, 513]


@pytest.mark.parametrize(
    "chunk",
    [
        told((6, 7, 8)),  # one more than the prompt has
        Chunk((), b"", None, prompt_logprobs=told_of((6, 7))[:-1]),
        told((6, 7), logprobs=b"1"),
        Chunk((9,), bytes(4), None, sketches=bytes(10), prompt_logprobs=told_of((6, 7))),
        Chunk((9,), bytes(4), None, sketches=bytes(10)),  # a token before them
        replace(told((6, 7)), finish="stop"),
    ],
)
def test_an_engine_that_tells_something_else_ends_the_job(chunk: Chunk) -> None:
    bench, _ = started((5, 6, 7))
    effects = bench.post(on.Drawn(1, chunk))
    assert bench.of(do.StopGenerate, effects)
    assert [one.code for one in sent(bench, effects)] == ["engine_failed"]


def test_an_engine_that_tells_what_nobody_asked_for_ends_the_job() -> None:
    bench = make_bench(served=(TELLS,))
    bench.start(1, make_ticket(1))
    assert bench.of(do.StopGenerate, bench.post(on.Drawn(1, told((6, 7)))))


def test_a_client_that_leaves_amid_the_telling_gets_a_receipt_for_what_was_told() -> None:
    bench, client = started((5, 6, 7, 8))
    client.hear(bench.post(on.Drawn(1, told((6,)))))
    client.hear(bench.post(on.StreamFrame(1, client.end.cancel())))
    receipt = peek(Receipt, bench.of(do.SaveReceipt)[-1].receipt)
    assert (receipt.finish, receipt.n_out) == ("cancelled", 0)
    assert receipt.prompt_logprobs == told_digest(client.end.ticket, nonce_of(1), told_of((6,)))


def test_a_prompt_of_one_token_begins_with_its_answer() -> None:
    bench, client = started((5,))
    effects = client.draw(11, finish="stop")
    assert isinstance(sent(bench, effects)[0], TokenChunk)


def test_a_job_that_goes_on_is_told_of_no_prompt() -> None:
    _, client = started((5, 6, 7), start=2)
    client.draw(11, finish="stop")
    assert client.end.tokens == [11]


LONG = (7,) * (PROMPT_LOGPROBS_BYTES_MAX // (8 * 21) + 1)


@pytest.mark.parametrize(
    ("served", "sampler", "prompt", "code"),
    [
        (SERVED, asking(), (5, 6, 7), "sampler_refused"),  # its engine cannot
        (replace(TELLS, context=1 << 20), asking(20), LONG, "sampler_refused"),
        (TELLS, replace(asking(), texts=(3,)), (5, 6, 7), "task_refused"),
    ],
)
def test_what_cannot_be_told_is_refused(
    served: Served, sampler: Sampler, prompt: tuple[int, ...], code: str
) -> None:
    bench = make_bench(served=(served,))
    with pytest.raises(RemoteError) as caught:
        bench.start(1, make_ticket(1, prompt, sampler=sampler), prompt)
    assert caught.value.code == code


def test_an_offer_says_whether_prompts_are_told_of() -> None:
    assert make_offer(TELLS).prompt_logprobs is True
    assert make_offer(SERVED).prompt_logprobs is None
