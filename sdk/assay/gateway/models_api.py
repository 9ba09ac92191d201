"""What the gateway tells beside answers: models, tokens, receipts, health."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

from assay.gateway.chat_request import MODEL_CHARACTERS_MAX, read_messages
from assay.gateway.exchange import Exchange
from assay.gateway.fields import Fields
from assay.gateway.generation import Asked
from assay.gateway.refusal import invalid, refusal_of
from assay.gateway.tool_fields import openai_tools
from assay_protocol.detokenizer import Detokenizer
from assay_protocol.errors import AssayError
from assay_protocol.limits import PROMPT_TOKENS_MAX
from assay_protocol.messages import ModelSummary, Receipt, Ticket
from assay_protocol.signing import peek

_TOKENIZE: Final = frozenset({"model", "prompt", "messages", "tools"})


async def models(exchange: Exchange) -> None:
    """GET /v1/models."""
    found = await exchange.service.summaries()
    listed = [_model(one, exchange.service.started) for one in found]
    await exchange.reply({"object": "list", "data": [*listed, *_planned(exchange, found)]})


async def model(exchange: Exchange) -> None:
    """GET /v1/models/{id}: with the license, which only the model's card tells."""
    name = exchange.parameter("model")
    found = await exchange.service.offered(name)
    told = _model(found.summary, exchange.service.started)
    if name in exchange.service.router.names():
        told["id"] = name
    await exchange.reply({**told, "license": found.card.license})


def _planned(exchange: Exchange, found: Sequence[ModelSummary]) -> list[dict[str, Any]]:
    """The names that the owner gave plans, as the network's model or the upstream they begin with;
    those that nobody could answer are left out."""
    router, created = exchange.service.router, exchange.service.started
    offered = {one.name: one for one in found}
    listed = []
    for name in router.names():
        first = offered.get(router.stands_for(name))
        if name in offered:
            continue
        if first is not None:
            listed.append({**_model(first, created), "id": name})
        elif upstream := router.routes.plan(name).upstream:
            listed.append({"id": name, "object": "model", "created": created, "owned_by": upstream})
    return listed


async def tokenize(exchange: Exchange) -> None:
    """POST /tokenize: the tokens of a text, or of a chat under the model's template."""
    fields = Fields(await exchange.body())
    fields.only(_TOKENIZE)
    name = fields.required_text("model", MODEL_CHARACTERS_MAX)
    if fields.has("messages"):
        tools = openai_tools(fields, flat=False)
        asked = Asked(name, 1, messages=read_messages(fields), tools=tools)
    else:
        asked = Asked(name, 1, prompts=(fields.required_text("prompt"),))
    found = await exchange.service.offered(name)
    (prompt,), _ = await exchange.service.read_prompts(found, asked)
    tokens = prompt.tokens
    context = min(found.card.context, found.summary.context)
    await exchange.reply({"count": len(tokens), "max_model_len": context, "tokens": tokens})


async def detokenize(exchange: Exchange) -> None:
    """POST /detokenize: the text tokens add to an answer; those that steer the model add none."""
    fields = Fields(await exchange.body())
    fields.only(frozenset({"model", "tokens"}))
    found = await exchange.service.offered(fields.required_text("model", MODEL_CHARACTERS_MAX))
    tokens = fields.items("tokens", PROMPT_TOKENS_MAX)
    if not all(type(one) is int for one in tokens):
        raise invalid("tokens", "tokens must be a list of integers", "invalid_type")
    text = Detokenizer(found.card.pieces)
    try:
        await exchange.reply({"prompt": text.push(tokens) + text.flush()})
    except AssayError as error:
        raise refusal_of(error) from error


async def receipt(exchange: Exchange) -> None:
    """GET /v1/receipts/{id}: what the node signed, and all it takes to check it alone."""
    name = exchange.parameter("receipt")
    record = exchange.service.receipt(exchange.caller, name)
    ticket, signed = peek(Ticket, record.ticket), peek(Receipt, record.receipt)
    await exchange.reply(
        {
            "id": name,
            "object": "receipt",
            "node": ticket.node.hex(),
            "model": ticket.model.hex(),
            "coordinator": record.coordinator.hex(),
            "class": signed.class_id,
            "finish": signed.finish,
            "prompt_tokens": signed.n_in,
            "completion_tokens": signed.n_out,
            "credit": record.credit,
            "root": signed.root.hex(),
            # One record of the file that `assay verify` reads, without the length in front.
            "record": base64.b64encode(record.encode()).decode(),
        }
    )


async def healthz(exchange: Exchange) -> None:
    """The process is there."""
    await exchange.reply({"status": "ok"})


async def readyz(exchange: Exchange) -> None:
    """A request could be answered now, or why not."""
    reason = await exchange.service.ready()
    if reason is None:
        await exchange.reply({"status": "ready"})
    else:
        await exchange.reply({"status": "not ready", "reason": reason}, 503)


def _model(summary: ModelSummary, created: int) -> dict[str, Any]:
    """`pricing` in micro-credits for 1000 tokens; `dimensions` of a model that embeds. An image
    is as many tokens of the prompt as the model makes of any."""
    return {
        "id": summary.name,
        "object": "model",
        "created": created,
        "owned_by": "assay",
        "max_model_len": summary.context,
        "digest": summary.model.hex(),
        "nodes": summary.nodes,
        "free_slots": summary.free_slots,
        "pricing": {"prompt": summary.price_in, "completion": summary.price_out},
        "dimensions": summary.dims,
        "input_modalities": ["text", "image"] if summary.image_tokens else ["text"],
    }
