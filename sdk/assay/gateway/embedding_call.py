"""A request to embed under way: its texts read, its jobs run, its receipts and its price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from assay.embedding import Embeddings, EmbeddingsFailed, Text, tokens_of
from assay.gateway.pricing import paid, vectors_most
from assay.gateway.refusal import Refusal, invalid, refusal_of, unsupported
from assay_protocol.errors import AssayError

if TYPE_CHECKING:
    from assay.catalogue import Model
    from assay.direct import AsyncClient
    from assay.records import ReceiptRecord

TOKENS_MAX: Final = 300_000  # of one request, as many as OpenAI takes


@dataclass(frozen=True, slots=True)
class TextsAsked:
    """`options` are what `embedding.make_jobs` takes."""

    model: str
    texts: Sequence[Text]
    base64: bool
    dimensions: int | None
    options: dict[str, Any]
    license: str | None


@dataclass(slots=True)
class Embedding:
    """One request under way: `run` it once."""

    client: AsyncClient
    asked: TextsAsked
    model: Model
    texts: list[tuple[int, ...]]
    receipts: list[ReceiptRecord] = field(default_factory=list)

    @property
    def most(self) -> int:
        """Micro-credits it can cost."""
        return vectors_most(self.model.summary, self.texts)

    @property
    def cost(self) -> int:
        """Micro-credits, by the receipts that came."""
        return paid(self.receipts)

    async def run(self) -> Embeddings:
        """Raises Refusal; what came is paid and its receipts are here."""
        try:
            return await self.client.embed_tokens(
                self.model, self.texts, keep=self.receipts.extend, **self.asked.options
            )
        except EmbeddingsFailed as failure:
            raise refusal_of(failure, charged=bool(failure.receipts)) from failure
        except AssayError as error:
            raise refusal_of(error) from error


async def read_texts(asked: TextsAsked, model: Model) -> list[tuple[int, ...]]:
    """The texts as the model reads them. Refusal: a model or a text that cannot be embedded."""
    name, dims = model.summary.name, model.summary.dims
    if dims is None:
        said = f"{name!r} writes answers and does not embed; see dimensions in /v1/models"
        raise Refusal(400, "task_refused", said, param="model")
    if asked.dimensions not in (None, dims):
        said = f"vectors of {name!r} have {dims} numbers, and shorter ones are not its"
        raise unsupported("dimensions", said)
    try:
        texts = await tokens_of(model, asked.texts)
    except AssayError as error:
        raise refusal_of(error) from error
    if sum(map(len, texts)) > TOKENS_MAX:
        raise invalid("input", f"all texts together have at most {TOKENS_MAX} tokens")
    return texts
