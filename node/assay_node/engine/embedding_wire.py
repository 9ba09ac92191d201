"""The frames of a child that embeds: how it is opened and asked, and what it says of itself.

parent -> child: open_embedding, embed, cancel. The rest is as in wire.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from assay_node.engine.embedding import POOLINGS, Embed, EmbeddingInfo, Pooling
from assay_node.engine.frames import frame
from assay_node.engine.profiles import Profile, unpack
from assay_protocol.hashing import pack_tokens, unpack_tokens


@dataclass(frozen=True, slots=True)
class Opening:
    """What the child needs to load the model; the caller has checked the file's digest."""

    path: str
    digest: bytes
    context: int
    threads: int
    profile: Profile
    gpu_layers: int
    pooling: Pooling | None  # None: as the file says

    def frame(self) -> bytes:
        settings = [self.context, self.threads, self.profile.packed(), self.gpu_layers]
        return frame("open_embedding", self.path, self.digest, *settings, self.pooling)

    def read_ready(self, fields: Sequence[Any]) -> EmbeddingInfo:
        """Raises ValueError for what cannot be."""
        _, model, n_vocab, dims, context, pooling, class_id, device = fields
        if pooling not in POOLINGS or min(n_vocab, dims, context) < 1:
            raise ValueError(fields)
        return EmbeddingInfo(model, n_vocab, dims, context, pooling, class_id, device)


def read_opening(fields: Sequence[Any]) -> Opening:
    _, path, digest, context, threads, profile, gpu_layers, pooling = fields
    return Opening(path, digest, context, threads, unpack(profile), gpu_layers, pooling)


def ready_frame(info: EmbeddingInfo) -> bytes:
    shape = (info.n_vocab, info.dims, info.context)
    return frame("ready", info.model, *shape, info.pooling, info.class_id, info.device)


def embed_frame(job: int, request: Embed) -> bytes:
    return frame("embed", job, pack_tokens(request.tokens), request.tenant)


def read_embed(fields: Sequence[Any]) -> tuple[int, Embed]:
    _, job, tokens, tenant = fields
    return job, Embed(unpack_tokens(tokens), tenant)
