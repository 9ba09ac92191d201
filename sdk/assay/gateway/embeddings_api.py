"""POST /v1/embeddings: texts, or lists of the model's own tokens, to vectors of the network.

A list of tokens is embedded as it is: who sends tokens puts the model's marks around them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

from assay.embedding import TEXTS_MAX, Embeddings, Text
from assay.gateway.chat_request import MODEL_CHARACTERS_MAX
from assay.gateway.embedding_call import TextsAsked
from assay.gateway.event_stream import until_gone
from assay.gateway.exchange import Exchange
from assay.gateway.fields import Fields
from assay.gateway.receipt_names import receipt_id
from assay.gateway.refusal import invalid, missing
from assay.gateway.sampling_fields import NETWORK, network_options
from assay.gateway.settings import Settings
from assay_protocol.limits import DIMS_MAX, PROMPT_TOKENS_MAX

_KNOWN: Final = NETWORK | {"model", "input", "encoding_format", "dimensions", "user"}


async def embeddings(exchange: Exchange) -> None:
    """Answer one request, whole."""
    asked = read_request(await exchange.body(), exchange.service.settings)
    body = await until_gone(exchange.receive, lambda: _whole(exchange, asked))
    if body is not None:  # else nobody is there to read it
        await exchange.reply(body)


def read_request(body: dict[str, Any], settings: Settings) -> TextsAsked:
    """What is to be embedded, and how it is told."""
    fields = Fields(body)
    fields.only(_KNOWN)
    return TextsAsked(
        model=fields.required_text("model", MODEL_CHARACTERS_MAX),
        texts=_texts(fields),
        base64=fields.choice("encoding_format", ("float", "base64"), "float") == "base64",
        dimensions=fields.integer("dimensions", 1, DIMS_MAX),
        options=network_options(fields, settings),
        license=fields.text("license"),
    )


async def _whole(exchange: Exchange, asked: TextsAsked) -> dict[str, Any]:
    async with exchange.service.embedding(asked, exchange.caller) as made:
        found = await made.run()
    receipts = [receipt_id(record) for record in made.receipts]
    nodes = [node.hex() for node in found.nodes]
    exchange.headers |= {
        "x-assay-node": ", ".join(nodes),
        "x-assay-receipt": ", ".join(receipts),
        "x-assay-credit": str(made.cost),
    }
    verdicts = [verdict.outcome for verdict in found.verdicts]
    return {
        "object": "list",
        "model": found.model,
        "data": _told(found, asked),
        "usage": {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens},
        "assay": {
            "nodes": nodes,
            "receipts": receipts,
            "credit": made.cost,
            "verdict": verdicts[0] if verdicts else None,
            "final": True,
        },
    }


def _told(found: Embeddings, asked: TextsAsked) -> list[dict[str, Any]]:
    told: Sequence[Any] = found.vectors
    if asked.base64:
        told = [base64.b64encode(vector).decode() for vector in found.packed]
    return [
        {"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(told)
    ]


def _texts(fields: Fields) -> Sequence[Text]:
    """One text or list of tokens, or a list of either."""
    given = fields.raw("input")
    if given is None:
        raise missing("input")
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list) and given and all(type(one) is int for one in given):
        given = [given]
    if not isinstance(given, list):
        raise invalid("input", "input must be texts or lists of tokens", "invalid_type")
    if not 0 < len(given) <= TEXTS_MAX:
        raise invalid("input", f"input has 1 to {TEXTS_MAX} texts")
    for one in given:
        if isinstance(one, str):
            if not one:
                raise invalid("input", "a text of input is empty")
        elif not (isinstance(one, list) and 0 < len(one) <= PROMPT_TOKENS_MAX):
            raise invalid("input", "input must be texts or lists of tokens", "invalid_type")
        elif not all(type(token) is int and 0 <= token < 1 << 32 for token in one):
            raise invalid("input", "tokens are integers, not negative", "invalid_type")
    return given
