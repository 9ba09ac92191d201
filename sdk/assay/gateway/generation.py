"""What a request draws: one answer for each choice, whatever API asked; and what came of it.

`Asked` is a request in the network's own terms, made by each API's module. `run` streams its
choices and tells each piece as it comes. Whatever ends it (the end, a failure, a client that left)
every receipt that came is here, to be kept and settled by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from assay.gateway.choice import Choice, OnFresh, read_choice
from assay.gateway.choice_runs import run_choices
from assay.gateway.pricing import answers_most, paid
from assay.gateway.receipt_names import receipt_id
from assay.gateway.refusal import Refusal
from assay.gateway.thinking import Thinking
from assay.gateway.tool_calls import ChosenReader, DemandedReader, PlainReader, Reader, Tool
from assay_protocol.limits import OUTPUT_TOKENS_MAX, PROMPT_TOKENS_MAX

if TYPE_CHECKING:
    from assay.answer_stream import AnswerStream
    from assay.answers import Completion
    from assay.catalogue import Model
    from assay.direct import AsyncClient
    from assay.picture_prompt import PromptTokens
    from assay.records import ReceiptRecord

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
        return answers_most(
            self.model.summary,
            zip(map(len, self.prompts), self._rooms, strict=True),
            each=self.asked.choices // len(self.prompts),
            twice=self.asked.options.get("verify") == "quorum",
        )

    @property
    def cost(self) -> int:
        """Micro-credits, by the receipts that came."""
        return paid(self.receipts)

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """Nodes that have a ticket of it, before they drew anything, too."""
        return () if self._stream is None else self._stream.nodes

    def receipt_ids(self) -> list[str]:
        """What the receipts are asked for by."""
        return [receipt_id(record) for record in self.receipts]

    async def run(self, on_fresh: OnFresh) -> tuple[Choice, ...]:
        """All choices. Raises Refusal if one fails; what came is paid and its receipts are here."""
        return await run_choices(self.asked.choices, lambda index: self._one(index, on_fresh))

    async def _one(self, index: int, on_fresh: OnFresh) -> Choice:
        place = self.place_of(index)
        self._stream = stream = self._client.draw(
            self.model,
            self.prompts[place],
            max_tokens=self._rooms[place],
            images=self._images[place],
            reasoning=self.asked.messages is not None,
            **self.asked.options,
        )
        shown = self.asked.thinking.shown
        try:
            return await read_choice(stream, index, self.asked.reader(), on_fresh, shown=shown)
        finally:
            if stream.text is not None:
                self._count(stream.result)

    def _count(self, came: Completion) -> None:
        self.receipts += [*came.receipts, *came.twins]
        self.completion_tokens += len(came.tokens)
        self.reasoning_tokens += came.usage.reasoning_tokens


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
