"""What all of the gateway's APIs share: one SDK client, the callers' accounts, what is kept.

A request is made ready here (its model found, its prompt tokenized, the most it can cost set
aside), then drawn, and settled whatever became of it. Models are remembered for a moment, so a
request costs one question to the coordinator: that for its ticket.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from assay.gateway.admission import Admission
from assay.gateway.api_keys import ApiKey
from assay.gateway.content_parts import told_details
from assay.gateway.embedding_call import Embedding, TextsAsked, read_texts
from assay.gateway.generation import Asked, Generation, Prompt
from assay.gateway.kept_responses import KeptResponses
from assay.gateway.receipt_names import receipt_id
from assay.gateway.refusal import Refusal, refusal_of
from assay.gateway.router import Router
from assay.gateway.settings import Settings
from assay.gateway.tool_calls import spoken, told
from assay.picture_prompt import PromptTokens
from assay.pictures import has_pictures
from assay.reasoning_marks import CHANNELS
from assay_network.logs import get_logger
from assay_protocol.errors import AssayError
from assay_protocol.messages import ModelSummary

if TYPE_CHECKING:
    from assay.catalogue import Model
    from assay.direct import AsyncClient
    from assay.records import ReceiptRecord

MODELS_SECONDS: Final = 2.0  # how old what the coordinator said of models may be
MODELS_MAX: Final = 1_024
READY_SECONDS: Final = 2.0
RECEIPTS_BYTES_MAX: Final = 256 << 20
_log = get_logger("gateway")


_Priced = TypeVar("_Priced", Generation, Embedding)


@dataclass(frozen=True, slots=True)
class _KeptReceipt:
    caller: str
    record: ReceiptRecord


class Service:
    """One gateway's inside; `drain` makes it say that it is leaving."""

    def __init__(
        self,
        client: AsyncClient,
        settings: Settings,
        admission: Admission,
        tasks: trio.Nursery,
        router: Router | None = None,
    ) -> None:
        self.settings, self.admission, self.tasks = settings, admission, tasks
        self.router = router or Router()
        self.started = int(time.time())
        self.draining = False
        self._client = client
        self._models: dict[str, tuple[float, Model]] = {}
        self._summaries: tuple[float, tuple[ModelSummary, ...]] = (float("-inf"), ())
        self._receipts: OrderedDict[str, _KeptReceipt] = OrderedDict()
        self._receipt_bytes = 0
        self.responses = KeptResponses(settings.responses)

    # ---- models ----

    async def summaries(self) -> tuple[ModelSummary, ...]:
        """What the network serves; Refusal if the coordinator does not answer."""
        at, known = self._summaries
        if trio.current_time() - at > MODELS_SECONDS:
            known = await _told(self._client.models())
            self._summaries = trio.current_time(), known
        return known

    async def offered(self, name: str) -> Model:
        """The model a caller means by `name`, which may have a plan; Refusal as `model`."""
        return await self.model(self.router.stands_for(name))

    async def model(self, name: str) -> Model:
        """The model of that name or digest; Refusal 404, or 503 where no node serves it now."""
        known = self._models.get(name)
        if known is not None and trio.current_time() - known[0] <= MODELS_SECONDS:
            return known[1]
        try:
            model = await self._client.model(name)
        except AssayError as error:
            if error.code == "model_unknown":
                raise _no_model(name) from error
            raise refusal_of(error) from error
        if len(self._models) >= MODELS_MAX:
            self._models.clear()
        self._models[name] = trio.current_time(), model
        return model

    async def ready(self) -> str | None:
        """None if a request could be served now, else the reason why not."""
        if self.draining:
            return "draining"
        reason: str | None = "timeout"
        with trio.move_on_after(READY_SECONDS):
            try:
                models = await self._client.models()
                reason = None if any(model.nodes for model in models) else "no_capacity"
            except AssayError as error:
                reason = error.code
        return reason

    # ---- answers ----

    @asynccontextmanager
    async def generation(self, asked: Asked, caller: ApiKey) -> AsyncIterator[Generation]:
        """A request ready to be drawn; settled, and its receipts kept, when this is left."""
        model = await self.model(asked.model)
        self._check_offer(model, asked)
        if model.summary.dims is not None:
            said = f"{model.summary.name!r} embeds texts and writes no answers"
            raise Refusal(400, "task_refused", said, param="model")
        prompts, ignored = await self.read_prompts(model, asked)
        if not all(prompts):
            raise Refusal(400, "invalid_value", "the prompt is empty", param="prompt")
        generation = Generation(self._client, asked, model, prompts)
        generation.ignored += ignored
        async with self._settled(caller, generation) as made:
            yield made

    @asynccontextmanager
    async def embedding(self, asked: TextsAsked, caller: ApiKey) -> AsyncIterator[Embedding]:
        """The same for texts to be embedded."""
        model = await self.model(asked.model)
        self._check_offer(model, asked)
        texts = await read_texts(asked, model)
        async with self._settled(caller, Embedding(self._client, asked, model, texts)) as made:
            yield made

    @asynccontextmanager
    async def _settled(self, caller: ApiKey, made: _Priced) -> AsyncIterator[_Priced]:
        """Its most set aside while this lasts, then what it cost; and its receipts kept."""
        reserved = made.most
        self.admission.reserve(caller, reserved)
        try:
            with trio.fail_after(self.settings.answer_seconds):
                yield made
        except trio.TooSlowError:
            charged = bool(made.receipts)
            raise Refusal(504, "timeout", "the answer took too long", charged=charged) from None
        finally:
            self._keep(caller, made.receipts)
            with trio.CancelScope(shield=True):
                await self.admission.settle(caller, reserved, made.cost)

    async def read_prompts(
        self, model: Model, asked: Asked
    ) -> tuple[list[PromptTokens], tuple[str, ...]]:
        """The prompts as the model reads them, of a chat one, and the fields that have no effect on
        it; Refusal if its template or tokenizer refuses, or its pictures cannot be read."""
        if has_pictures(asked.messages or ()) and not model.image_tokens:
            said = f"{model.summary.name!r} reads no pictures; see input_modalities in /v1/models"
            raise Refusal(400, "image_refused", said, param="messages")
        try:
            if asked.messages is None:
                return [PromptTokens(await _tokens_of(model, one)) for one in asked.prompts], ()
            known = await model.template_variables()
            variables, ignored = asked.thinking.in_template(
                known, bound=asked.bound, at_once=asked.bound_at_once
            )
            ignored += told_details(asked.messages)
            messages, tools = list(asked.messages), [tool.as_told() for tool in asked.tools]
            if model.marks is CHANNELS:
                messages = [_thought(message) for message in messages]
            if "tools" in model.card.chat_template:
                return [await model.prompt_of_chat(messages, tools or None, variables)], ignored
            chat = _without_tools(messages, asked)
            return [await model.prompt_of_chat(chat, variables=variables)], ignored
        except AssayError as error:
            raise refusal_of(error) from error

    def receipt(self, caller: ApiKey, name: str) -> ReceiptRecord:
        """A receipt of the caller's own; Refusal 404."""
        kept = self._receipts.get(name)
        if kept is None or kept.caller != caller.name:
            raise Refusal(404, "receipt_not_found", "no such receipt of yours is kept here")
        return kept.record

    async def credit_bundle(self, account: bytes, bytes_max: int) -> bytes | None:
        """The newest proof of an account's credit, unchecked; None while it has none on the
        chain."""
        try:
            return await self._client.credit_bundle(account, bytes_max=bytes_max)
        except AssayError as error:
            if error.code == "proof_invalid":
                return None
            if error.code == "oversized":
                said = f"the proof is larger than {bytes_max} bytes; use assay credit verify"
                raise Refusal(502, "proof_too_large", said) from error
            raise refusal_of(error) from error

    def _check_offer(self, model: Model, asked: Asked | TextsAsked) -> None:
        if asked.license is not None and model.card.license != asked.license:
            said = f"the model's license is {model.card.license}"
            raise Refusal(400, "license_mismatch", said, param="license")
        if not model.summary.nodes:
            raise Refusal(503, "no_capacity", "no node serves the model now", param="model")

    def _keep(self, caller: ApiKey, records: list[ReceiptRecord]) -> None:
        for record in records:
            self._receipts[receipt_id(record)] = _KeptReceipt(caller.name, record)
            self._receipt_bytes += _size(record)
        while self._receipts and (
            len(self._receipts) > self.settings.receipts or self._receipt_bytes > RECEIPTS_BYTES_MAX
        ):
            _, oldest = self._receipts.popitem(last=False)
            self._receipt_bytes -= _size(oldest.record)


async def _told(question: Any) -> Any:
    try:
        return await question
    except AssayError as error:
        raise refusal_of(error) from error


def _no_model(name: str) -> Refusal:
    said = f"the model {name[:128]!r} is not offered; see /v1/models"
    return Refusal(404, "model_not_found", said, param="model")


async def _tokens_of(model: Model, prompt: Prompt) -> tuple[int, ...]:
    if isinstance(prompt, str):
        return await model.tokens_of_text(prompt)
    n_vocab = model.card.n_vocab
    if not all(0 <= token < n_vocab for token in prompt):
        raise Refusal(
            400, "invalid_value", f"tokens of this model are 0 to {n_vocab - 1}", param="prompt"
        )
    return prompt


def _size(record: ReceiptRecord) -> int:
    texts = (record.prompt, record.output, record.grammar or b"", record.prompt_logprobs)
    return sum(map(len, texts)) + len(record.images) + 2_048


def _thought(message: dict[str, Any]) -> dict[str, Any]:
    """Earlier reasoning under gpt-oss's name for it, whose template takes it beside a call only,
    and not if there is text, too."""
    reasoning = message.get("reasoning_content")
    if not reasoning or (message.get("tool_calls") and message["content"]):
        return message
    return {**message, "thinking": reasoning}


def _without_tools(messages: list[dict[str, Any]], asked: Asked) -> list[dict[str, Any]]:
    """The chat for a template that knows no tools: calls and their results are said in words."""
    chat = [spoken(message) for message in messages]
    if not asked.tools:
        return chat
    if chat[0]["role"] == "system":
        first = {**chat[0], "content": chat[0]["content"] + "\n\n" + told(asked.tools)}
        return [first, *chat[1:]]
    return [{"role": "system", "content": told(asked.tools)}, *chat]
