"""The loop of an embedding model: one batch of waiting texts at a time.

Owned by one thread, used by the child process and by tests. What is computed for a text does not
depend on the texts beside it, nor does what becomes of it: where a batch holds something that is
not finite, its texts are computed again one by one, and only those fail that still do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from assay_node.engine import llama
from assay_node.engine.embedding import POOLINGS, Embed, Embedded, EmbeddingInfo, Pooling
from assay_node.engine.encoder import Encoder, Rows
from assay_node.engine.packing import Packer
from assay_node.engine.pooling import pooled
from assay_node.engine.profiles import FLASH, Profile
from assay_protocol.errors import AssayError

WAITING_MAX: Final = 1024
_POOLING_NUMBERS: Final = {"1": "mean", "2": "cls", "3": "last"}  # llama_pooling_type of llama.h

Event = tuple[int, Embedded | AssayError]


class EmbeddingLoop:
    """A model for texts of `context` tokens, or of as many as it was trained for.

    `pooling`: what to do where the file names none. Raises AssayError on opening: "engine_failed",
    "pooling_missing" (the file names none, or one that gives no embedding, as rerankers do),
    "config_invalid" (it names another one).
    """

    def __init__(
        self,
        path: Path,
        digest: bytes,
        *,
        context: int,
        threads: int,
        profile: Profile = FLASH,
        gpu_layers: int = -1,
        pooling: Pooling | None = None,
    ) -> None:
        self._model = llama.Model(path, profile, gpu_layers)
        self._pooling = _choose(self._model, pooling)
        self._encoder = Encoder(self._model, context=context, threads=threads, profile=profile)
        self._packer = Packer(
            longest=self._encoder.context,
            together=self._encoder.together,
            waiting_max=WAITING_MAX,
        )
        self._requests: dict[int, Embed] = {}
        named = profile.named(
            commit=llama.commit(), device=llama.arithmetic(), quant=self._model.quant
        )
        self.info = EmbeddingInfo(
            model=digest,
            n_vocab=self._model.n_vocab,
            dims=self._encoder.dims,
            context=self._encoder.context,
            pooling=self._pooling,
            class_id=named.replace(f"/kv-{profile.kv}/", f"/pool-{self._pooling}/"),
            device=llama.device(),
        )

    @property
    def idle(self) -> bool:
        return not self._requests

    def embed(self, job: int, request: Embed) -> None:
        """Queue a text that check_embed lets pass. Raises AssayError("busy")."""
        self._packer.submit(job, request.tenant, len(request.tokens))
        self._requests[job] = request

    def cancel(self, job: int) -> None:
        """Forget a text; nothing happens if it is done."""
        self._packer.cancel(job)
        self._requests.pop(job, None)

    def step(self) -> list[Event]:
        """Compute the next batch."""
        jobs = self._packer.plan()
        texts = [self._requests.pop(job).tokens for job in jobs]
        if not jobs:
            return []
        rows = self._encoder.rows(texts)
        vectors = [self._pooled(one) for one in rows]
        if len(jobs) > 1 and any(isinstance(vector, AssayError) for vector in vectors):
            vectors = [self._pooled(self._encoder.rows([text])[0]) for text in texts]
        return list(zip(jobs, vectors, strict=True))

    def close(self) -> None:
        self._encoder.close()
        self._model.close()

    def _pooled(self, rows: Rows) -> Embedded | AssayError:
        try:
            return Embedded(pooled(rows, self._pooling))
        except AssayError as refusal:
            return refusal


def _choose(model: llama.Model, asked: Pooling | None) -> Pooling:
    number = model.value(f"{model.value('general.architecture')}.pooling_type")
    named = _POOLING_NUMBERS.get(number)
    if named is None and number not in ("", "0"):
        raise AssayError("pooling_missing", f"pooling {number} gives no embedding of a text")
    if named is not None and asked not in (None, named):
        raise AssayError("config_invalid", f"the model's pooling is {named}, not {asked}")
    for pooling in POOLINGS:
        if pooling == (named or asked):
            return pooling
    raise AssayError("pooling_missing")
