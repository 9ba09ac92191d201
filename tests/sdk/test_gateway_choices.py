"""The parts of a generation, each alone: many choices run, one read, priced, its receipt named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
import trio

from assay.answer_stream import AnswerStream
from assay.answers import Completion, Delta, JobFailed, Usage
from assay.events import PromptTold
from assay.gateway.choice import Choice, Fresh, read_choice
from assay.gateway.choice_runs import AT_ONCE_MAX, run_choices
from assay.gateway.pricing import answers_most, paid, vectors_most
from assay.gateway.receipt_names import receipt_id
from assay.gateway.refusal import Refusal
from assay.gateway.tool_calls import ChosenReader, PlainReader, Text, Thought
from assay.records import ReceiptRecord
from assay_protocol.errors import AssayError
from assay_protocol.logprobs import TokenLogprobs
from assay_protocol.messages import ModelSummary
from sdk.routing.kept_records import made_record

SUMMARY = cast(ModelSummary, SimpleNamespace(price_in=7, price_out=130))
NODE = b"n" * 32
RECORD = made_record(n_in=3, n_out=2, price_in=7, price_out=130)


# ---- many at once ----


async def test_choices_keep_their_order_and_no_more_run_than_may(autojump_clock: object) -> None:
    running, seen = 0, 0

    async def draw(index: int) -> int:
        nonlocal running, seen
        running += 1
        seen = max(seen, running)
        await trio.sleep(20 - index)
        running -= 1
        return index * index

    assert await run_choices(20, draw) == tuple(index * index for index in range(20))
    assert seen == AT_ONCE_MAX


async def test_the_first_refusal_ends_the_others(autojump_clock: object) -> None:
    ended = []

    async def draw(index: int) -> int:
        try:
            await trio.sleep(index)
            if index % 3 == 2:
                raise Refusal(503, f"no_{index}", "none")
            await trio.sleep_forever()
        finally:
            ended.append(index)
        raise AssertionError("nobody comes here")

    with pytest.raises(Refusal) as refused:
        await run_choices(6, draw)
    assert refused.value.code == "no_2"
    assert sorted(ended) == list(range(6))


async def test_of_refusals_at_one_moment_one_is_told() -> None:
    async def draw(index: int) -> int:
        raise Refusal(503, "no_capacity", "none")

    with pytest.raises(Refusal):
        await run_choices(3, draw)


async def test_a_fault_of_ours_is_not_told_as_a_refusal() -> None:
    async def draw(index: int) -> int:
        raise KeyError(index) if index else Refusal(503, "no_capacity", "none")

    with pytest.raises(BaseExceptionGroup) as group:
        await run_choices(2, draw)
    assert group.value.subgroup(KeyError) is not None


# ---- one, read from its stream ----


class Stream:
    """As far as a choice is read from one: `events`, then `failure` if there is any."""

    def __init__(self, events: Sequence[Any], failure: Exception | None = None, **told: Any):
        self._events, self._failure = events, failure
        known: dict[str, Any] = {
            "text": "", "tokens": (), "finish_reason": "stop", "usage": Usage(3, 0, 0),
            "receipts": (), "nodes": (NODE,),
        }  # fmt: skip
        self.result = Completion(**(known | told))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *ended: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[Any]:
        for event in self._events:
            yield event
        if self._failure is not None:
            raise self._failure


def delta(text: str, *tokens: int, reasoning: str = "", thought: int = 0) -> Delta:
    logprobs = tuple(TokenLogprobs(token, -1.0, ()) for token in tokens)
    return Delta(text, tokens, NODE, logprobs, reasoning, thought)


async def read(stream: Stream, reader: Any = None, *, shown: bool = True) -> Any:
    heard: list[Fresh] = []

    async def on_fresh(fresh: Fresh) -> None:
        heard.append(fresh)

    given = cast(AnswerStream, stream)
    choice = await read_choice(given, 4, reader or PlainReader(), on_fresh, shown=shown)
    assert all(fresh.choice == 4 for fresh in heard)
    return choice, heard


async def test_each_frame_is_told_and_the_text_is_theirs() -> None:
    told = PromptTold((TokenLogprobs(8, -2.0, ()),), NODE)
    choice, heard = await read(Stream([told, delta("Hel", 1, 2), delta("lo", 3)]))
    assert choice.text == "Hello"
    assert choice.finish == "stop"
    assert heard[0] == Fresh(4, (), (), (), NODE, (None, told.entries[0]))
    assert [fresh.tokens for fresh in heard[1:]] == [(1, 2), (3,)]
    assert [fresh.node for fresh in heard] == [NODE] * 3


@pytest.mark.parametrize("shown", [True, False])
async def test_reasoning_is_told_where_it_is_shown_and_its_logprobs_never(shown: bool) -> None:
    stream = Stream(
        [delta("Yes", 1, 2, 3, reasoning="Hm. ", thought=2)],
        reasoning="Hm. ",
        usage=Usage(3, 3, 2),
        logprobs=tuple(TokenLogprobs(token, -1.0, ()) for token in (1, 2, 3)),
    )
    choice, (fresh,) = await read(stream, shown=shown)
    assert choice.reasoning == ("Hm. " if shown else "")
    assert list(fresh.pieces) == [*([Thought("Hm. ")] if shown else []), Text("Yes")]
    assert [one.token for one in fresh.logprobs] == [3]
    assert [one.token for one in choice.logprobs] == [3]


async def test_an_answer_that_calls_a_tool_ends_for_that() -> None:
    call = '<tool_call>\n{"name": "paint", "arguments": {}}\n</tool_call>'
    reader = ChosenReader(frozenset({"paint"}))
    choice, _ = await read(Stream([delta(call, 1)]), reader)
    assert isinstance(choice, Choice)
    assert (choice.finish, [one.name for one in choice.calls]) == ("tool_calls", ["paint"])
    cut, _ = await read(Stream([delta("<tool", 1)], finish_reason="length"), reader)
    assert (cut.finish, cut.text) == ("length", "<tool")


async def test_each_failure_is_a_refusal_that_says_whether_it_was_paid() -> None:
    broke = AssayError("timeout")
    for receipts, charged in (((), False), ((RECORD,), True)):
        partial = Stream([], receipts=receipts).result
        with pytest.raises(Refusal) as refused:
            await read(Stream([delta("a", 1)], JobFailed(broke, partial)))
        assert refused.value.charged is charged
    with pytest.raises(Refusal) as refused:
        await read(Stream([], AssayError("insufficient_credit")))
    assert (refused.value.status, refused.value.charged) == (402, False)
    with pytest.raises(Refusal) as refused:
        await read(Stream([], ValueError("top_k is at most 9")))
    assert (refused.value.status, refused.value.message) == (400, "top_k is at most 9")


# ---- prices ----


def test_the_most_is_rounded_up_job_by_job() -> None:
    # 10 * 7 + 1 * 130 = 200 and 1 * 7 + 9 * 130 = 1,177 thousandths: 1 and 2 micro-credits.
    jobs = [(10, 1), (1, 9)]
    assert answers_most(SUMMARY, jobs, each=1, twice=False) == 3
    assert answers_most(SUMMARY, jobs, each=4, twice=True) == 24
    assert vectors_most(SUMMARY, [(1,) * 100, (1,) * 43]) == 2 + 2


def test_what_was_paid_is_what_receipts_say() -> None:
    assert paid([]) == 0
    assert paid([RECORD, RECORD]) == 2 * RECORD.credit == 2


# ---- names of receipts ----


def test_a_receipts_name_holds_its_ticket_and_what_nobody_can_compute() -> None:
    name = receipt_id(RECORD)
    ticket, secret = name.split("-")
    assert name == receipt_id(ReceiptRecord.decode(RECORD.encode()))
    assert len(bytes.fromhex(ticket)) == 16
    assert len(bytes.fromhex(secret)) == 12
    program = (
        "from assay.gateway.receipt_names import receipt_id\n"
        "from assay.records import ReceiptRecord\n"
        f"print(receipt_id(ReceiptRecord.decode(bytes.fromhex('{RECORD.encode().hex()}'))))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()
    assert other.split("-")[0] == ticket
    assert other != name, "another process gives another name"
