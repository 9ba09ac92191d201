"""What a request draws: one answer for each choice, whatever API asked; and what it cost.

`Asked` is a request in the network's own terms, made by each API's module. `run` streams its
choices, AT_ONCE_MAX at a time, and tells each piece as it comes. Whatever ends it (the end, a
failure, a client that left) every receipt that came is kept and its price is settled against the
caller's key.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import trio

from assay.answers import Completion, Delta, JobFailed
from assay.events import PromptTold
from assay.gateway.refusal import Refusal, refusal_of
from assay.gateway.thinking import Thinking
from assay.gateway.tool_calls import (
    Call,
    ChosenReader,
    DemandedReader,
    Piece,
    PlainReader,
    Reader,
    Text,
    Thought,
    Tool,
)
from assay_network.scopes import single_errors
from assay_protocol.errors import AssayError
from assay_protocol.limits import OUTPUT_TOKENS_MAX, PROMPT_TOKENS_MAX
from assay_protocol.messages import Ticket
from assay_protocol.signing import peek

if TYPE_CHECKING:
    from assay.answer_stream import AnswerStream
    from assay.catalogue import Model
    from assay.direct import AsyncClient
    from assay.picture_prompt import PromptTokens
    from assay.records import ReceiptRecord
    from assay_protocol.logprobs import TokenLogprobs

_NAMING: Final = secrets.token_bytes(32)  # of receipts, which a gateway forgets when it ends


AT_ONCE_MAX: Final = 8  # answers of one request that are drawn at the same time
Prompt = str | tuple[int, ...]  # a text, or the model's own tokens


@dataclass(frozen=True, slots=True)
class Asked:
    """`options` are what `assay.job_options.make_job` takes, without max_tokens.

    `choices` answers in all, as many to each of `prompts`: those to the first come first.
    """

    model: str
    max_tokens: int
    choices: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    messages: Sequence[dict[str, Any]] | None = None  # a chat, or else a prompt
    prompts: Sequence[Prompt] = ("",)
    tools: tuple[Tool, ...] = ()
    tools_demanded: bool = False
    ignored: tuple[str, ...] = ()  # fields that have no effect, told in a header
    license: str | None = None
    thinking: Thinking = field(default_factory=Thinking)

    @property
    def bound(self) -> bool:
        """Whether a grammar says which answers there may be."""
        return not self.options.keys().isdisjoint(("grammar", "response_format"))

    @property
    def bound_at_once(self) -> bool:
        """Whether that grammar has no place for reasoning before the answer: it is the caller's
        own, and no JSON schema (reasoning_grammar.py)."""
        return "json_schema" not in self.options.get("grammar", {"json_schema": ""})

    def reader(self) -> Reader:
        if not self.tools:
            return PlainReader()
        if self.tools_demanded:
            return DemandedReader()
        return ChosenReader(frozenset(tool.name for tool in self.tools))


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


class Generation:
    """One request under way: `run` it once."""

    def __init__(
        self, client: AsyncClient, asked: Asked, model: Model, prompts: Sequence[PromptTokens]
    ) -> None:
        assert asked.choices % len(prompts) == 0
        self.model, self.asked = model, asked
        self.prompts = [prompt.tokens for prompt in prompts]
        self._images = [prompt.images for prompt in prompts]
        self._rooms = [_room(model, prompt, asked) for prompt in self.prompts]
        self.receipts: list[ReceiptRecord] = []
        self.completion_tokens = self.reasoning_tokens = 0
        self.ignored: tuple[str, ...] = asked.ignored  # fields without effect, for this model
        self.route: dict[str, Any] = {}  # how it came to be this one that answers; told with it
        self._client = client
        self._stream: AnswerStream | None = None  # the newest
        self._places = trio.Semaphore(AT_ONCE_MAX)

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts together, each counted once."""
        return sum(map(len, self.prompts))

    def place_of(self, choice: int) -> int:
        """Which of the prompts `choice` is an answer to."""
        return choice * len(self.prompts) // self.asked.choices

    @property
    def most(self) -> int:
        """Micro-credits all choices can cost together."""
        summary = self.model.summary
        doubled = 2 if self.asked.options.get("verify") == "quorum" else 1
        thousandths = (
            len(prompt) * summary.price_in + room * summary.price_out
            for prompt, room in zip(self.prompts, self._rooms, strict=True)
        )
        once = sum(-(-one // 1000) for one in thousandths)
        return self.asked.choices // len(self.prompts) * doubled * once

    @property
    def cost(self) -> int:
        """Micro-credits, by the receipts that came."""
        return sum(record.credit for record in self.receipts)

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """Nodes that have a ticket of it, before they drew anything, too."""
        return () if self._stream is None else self._stream.nodes

    def receipt_ids(self) -> list[str]:
        """What the receipts are asked for by, at GET /v1/receipts/{id}."""
        return [receipt_id(record) for record in self.receipts]

    async def run(self, on_fresh: OnFresh) -> tuple[Choice, ...]:
        """All choices. Raises Refusal if one fails; what came is paid and its receipts are here."""
        if self.asked.choices == 1:
            return (await self._one(0, on_fresh),)
        found: dict[int, Choice] = {}

        async def one(index: int) -> None:
            async with self._places:
                found[index] = await self._one(index, on_fresh)

        try:
            with single_errors():
                async with trio.open_nursery() as nursery:
                    for index in range(self.asked.choices):
                        nursery.start_soon(one, index)
        except BaseExceptionGroup as several:  # one reason is enough
            refusals, others = several.split(Refusal)
            if refusals is None or others is not None:
                raise
            raise _first(refusals) from several
        return tuple(found[index] for index in range(self.asked.choices))

    async def _one(self, index: int, on_fresh: OnFresh) -> Choice:
        reader, said, shown = self.asked.reader(), [""], self.asked.thinking.shown
        place = self.place_of(index)
        self._stream = stream = self._client.draw(
            self.model,
            self.prompts[place],
            max_tokens=self._rooms[place],
            images=self._images[place],
            reasoning=self.asked.messages is not None,
            **self.asked.options,
        )
        node = b""

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
        finally:
            if stream.text is not None:
                self.receipts += [*stream.result.receipts, *stream.result.twins]
                self.completion_tokens += len(stream.result.tokens)
                self.reasoning_tokens += stream.result.usage.reasoning_tokens
        finish = stream.result.finish_reason
        if finish == "stop" and reader.calls:
            finish = "tool_calls"
        thought = stream.result.reasoning if shown else ""
        return Choice("".join(said), tuple(reader.calls), finish, stream.result, thought)


def receipt_id(record: ReceiptRecord) -> str:
    """What a receipt is asked for by: its ticket in hex, and a name that follows from it here only.

    Rounds publish tickets, a record holds prompt and answer, and where no key is asked for nothing
    else tells one caller from another.
    """
    ticket = peek(Ticket, record.ticket).ticket
    return f"{ticket.hex()}-{blake2b(ticket, key=_NAMING, digest_size=12).hexdigest()}"


def _room(model: Model, prompt: tuple[int, ...], asked: Asked) -> int:
    """Tokens the answer may have: what was asked, cut to what one job and the context hold."""
    context = min(model.card.context, model.summary.context)
    left = min(context, PROMPT_TOKENS_MAX) - len(prompt)
    if left < 1:
        raise Refusal(
            400,
            "context_length_exceeded",
            # It begins as OpenAI's does: clients (litellm) know this error by its first words.
            f"This model's maximum context length is {context} tokens. "
            f"However, the prompt has {len(prompt)}.",
            param="prompt" if asked.messages is None else "messages",
        )
    return min(asked.max_tokens, OUTPUT_TOKENS_MAX, left)


def _first(group: BaseExceptionGroup[Refusal]) -> Refusal:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Refusal)
    return error
