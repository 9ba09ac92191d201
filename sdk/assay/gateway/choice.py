"""One answer of a request: read from its stream, told piece by piece as it comes, then whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assay.answers import Completion, Delta, JobFailed
from assay.events import PromptTold
from assay.gateway.refusal import Refusal, refusal_of
from assay.gateway.tool_calls import Call, Piece, Reader, Text, Thought
from assay_protocol.errors import AssayError

if TYPE_CHECKING:
    from assay.answer_stream import AnswerStream
    from assay_protocol.logprobs import TokenLogprobs


@dataclass(frozen=True, slots=True)
class Choice:
    """One whole answer. `finish` is "stop", "length" or "tool_calls"; `reasoning` is "" where it is
    not to be told, and `logprobs` are of the tokens after it."""

    text: str
    calls: Sequence[Call]
    finish: str
    completion: Completion
    reasoning: str = ""

    @property
    def logprobs(self) -> tuple[TokenLogprobs, ...]:
        return self.completion.logprobs[self.completion.usage.reasoning_tokens :]


@dataclass(frozen=True, slots=True)
class Fresh:
    """What one frame of an answer brought: pieces of it, its tokens, logprobs of those that are not
    reasoning, and who drew it.

    `prompt_logprobs` come once, before the first token and alone: an entry for each token of the
    choice's prompt, None for the first.
    """

    choice: int
    pieces: Sequence[Piece]
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    node: bytes
    prompt_logprobs: tuple[TokenLogprobs | None, ...] = ()


OnFresh = Callable[[Fresh], Awaitable[None]]


async def read_choice(
    stream: AnswerStream, index: int, reader: Reader, on_fresh: OnFresh, *, shown: bool
) -> Choice:
    """The answer that is choice `index`; `shown`: with its reasoning. Raises Refusal if it fails,
    and what came before is in the stream's result."""
    said, node = [""], b""

    async def tell(pieces: Sequence[Piece], event: Delta | None) -> None:
        said.extend(piece.text for piece in pieces if isinstance(piece, Text))
        tokens, logprobs = ((), ()) if event is None else (event.tokens, event.logprobs)
        if event is not None and event.reasoning_tokens:
            logprobs = logprobs[event.reasoning_tokens :]
        await on_fresh(Fresh(index, pieces, tokens, logprobs, node))

    try:
        async with stream:
            async for event in stream:
                if isinstance(event, PromptTold):
                    entries = (None, *event.entries)
                    await on_fresh(Fresh(index, (), (), (), event.node, entries))
                elif isinstance(event, Delta):
                    node = event.node
                    told = (Thought(event.reasoning),) if event.reasoning and shown else ()
                    await tell((*told, *reader.push(event.text)), event)
        if rest := tuple(reader.flush()):
            await tell(rest, None)
    except JobFailed as failure:
        raise refusal_of(failure, charged=bool(failure.partial.receipts)) from failure
    except AssayError as error:
        raise refusal_of(error) from error
    except ValueError as error:  # an option out of range, in make_job's words
        raise Refusal(400, "invalid_value", str(error)) from error
    finish = stream.result.finish_reason
    if finish == "stop" and reader.calls:
        finish = "tool_calls"
    thought = stream.result.reasoning if shown else ""
    return Choice("".join(said), tuple(reader.calls), finish, stream.result, thought)
