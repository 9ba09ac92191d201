"""What travels in the frames between supervisor and worker, and its shape.

parent -> child: open, generate, replay, cancel. child -> parent: ready, refused (at opening),
alive (at least every ALIVE_SECONDS, from the decode loop itself), events (one frame a step).
A child that embeds is opened and asked by other frames (embedding_wire.py).
Malformed frames raise AssayError("engine_failed").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np

from assay_node.engine.embedding import Embedded
from assay_node.engine.frames import frame
from assay_node.engine.interface import Chunk, EngineInfo, Generate, Replay, Replayed
from assay_node.engine.profiles import FLASH, Profile, unpack
from assay_protocol.errors import CODES, AssayError
from assay_protocol.hashing import pack_tokens, unpack_tokens
from assay_protocol.messages import Image, Sampler, TokenBias
from assay_protocol.samplers import SamplerLike

ALIVE_SECONDS: Final = 1.0
_PLAIN_SETTINGS: Final = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "repetition_window",
    "presence_penalty",
    "frequency_penalty",
    "logprobs",
    "prompt_logprobs",
)

Event = tuple[int, Chunk | Replayed | Embedded | AssayError]


@dataclass(frozen=True, slots=True)
class Opening:
    """What the child needs to load the model; the caller has checked the file's digest."""

    path: str
    digest: bytes
    slots: int
    context: int
    threads: int
    profile: Profile = FLASH
    gpu_layers: int = -1  # on the GPU, if the library has one; below 0: its own default
    adapters: tuple[tuple[str, bytes], ...] = ()  # path and digest, checked as well
    drafts: bool = True  # whether several tokens a step may be tried
    projector: str = ""  # its path, checked as well; empty: no images are read

    def frame(self) -> bytes:
        return frame(
            "open",
            self.path,
            self.digest,
            self.slots,
            self.context,
            self.threads,
            self.profile.packed(),
            self.gpu_layers,
            self.adapters,
            self.drafts,
            self.projector,
        )

    def read_ready(self, fields: Sequence[Any]) -> EngineInfo:
        return read_ready(fields)


def read_opening(fields: Sequence[Any]) -> Opening:
    _, path, digest, slots, context, threads, profile, gpu_layers, adapters, *rest = fields
    kept = tuple((name, adapter) for name, adapter in adapters)
    road = unpack(profile)
    return Opening(path, digest, slots, context, threads, road, gpu_layers, kept, *rest)


def generate_frame(job: int, request: Generate) -> bytes:
    return frame(
        "generate",
        job,
        pack_tokens(request.prompt),
        request.start,
        request.max_tokens,
        _settings(request.sampler),
        request.seed,
        request.tenant,
        request.shared,
        request.priority,
        request.grammar,
        request.adapter,
        _pack_images(request.images),
    )


def replay_frame(job: int, request: Replay) -> bytes:
    return frame(
        "replay",
        job,
        pack_tokens(request.prompt),
        pack_tokens(request.output),
        request.start,
        _settings(request.sampler),
        request.seed,
        request.normalized,
        request.grammar,
        request.adapter,
        _pack_images(request.images),
    )


def read_generate(fields: Sequence[Any]) -> tuple[int, Generate]:
    _, job, prompt, start, max_tokens, sampler, seed, *options = fields
    tenant, shared, priority, grammar, adapter, images = options
    return job, Generate(
        prompt=unpack_tokens(prompt),
        start=start,
        max_tokens=max_tokens,
        sampler=_sampler(sampler),
        seed=seed,
        tenant=tenant,
        shared=shared,
        priority=priority,
        grammar=grammar,
        adapter=adapter,
        images=_images(images),
    )


def read_replay(fields: Sequence[Any]) -> tuple[int, Replay]:
    _, job, prompt, output, start, sampler, seed, normalized, grammar, adapter, images = fields
    return job, Replay(
        unpack_tokens(prompt),
        unpack_tokens(output),
        start,
        _sampler(sampler),
        seed,
        normalized,
        grammar,
        adapter,
        _images(images),
    )


def ready_frame(info: EngineInfo) -> bytes:
    eog = sorted(info.eog)
    return frame(
        "ready",
        info.model,
        info.n_vocab,
        info.context,
        info.slots,
        info.class_id,
        eog,
        info.device,
        info.grammar,
        info.adapters,
        info.tells_prompts,
        info.image_tokens,
    )


def read_ready(fields: Sequence[Any]) -> EngineInfo:
    _, model, n_vocab, context, slots, class_id, eog, device, grammar, adapters, *rest = fields
    tells, image_tokens = rest
    ends, loaded = frozenset(eog), tuple(adapters)
    return EngineInfo(
        model,
        n_vocab,
        context,
        slots,
        class_id,
        ends,
        device,
        grammar,
        loaded,
        tells_prompts=tells,
        image_tokens=image_tokens,
    )


def events_frame(events: Sequence[Event]) -> bytes:
    return frame("events", [_pack_event(job, event) for job, event in events])


def read_events(fields: Sequence[object]) -> list[Event]:
    """The events of one frame; raises AssayError("engine_failed") if they have another shape."""
    try:
        return [_read_event(entry) for entry in cast(list[Any], fields[1])]
    except (TypeError, ValueError, IndexError, AssayError) as broken:
        raise AssayError("engine_failed", "the engine's pipe is garbled") from broken


def _pack_event(job: int, event: Chunk | Replayed | Embedded | AssayError) -> list[object]:
    match event:
        case Chunk():
            return ["chunk", job, *_pack_chunk(event)]
        case Replayed():
            return ["replayed", job, *_pack_replayed(event)]
        case Embedded(vector):
            return ["embedded", job, vector]
        case AssayError():
            return ["failed", job, event.code, event.message]


def _read_event(entry: list[Any]) -> Event:
    kind, job, *rest = entry
    match kind, rest:
        case "chunk", [tokens, logits, "stop" | "length" | None as finish, *told]:
            logprobs, sketches, prompt = map(bytes, told)
            drawn = unpack_tokens(tokens)
            chunk = Chunk(drawn, bytes(logits), finish, logprobs, sketches, prompt_logprobs=prompt)
            return job, chunk
        case "replayed", [drawn, logits, margins, gaps, sketches]:
            floats = (_floats(margins), _floats(gaps))
            return job, Replayed(unpack_tokens(drawn), bytes(logits), *floats, bytes(sketches))
        case "embedded", [bytes() as vector]:
            return job, Embedded(vector)
        case "failed", [str() as code, str() as message] if code in CODES:
            return job, AssayError(code, message)
        case _:
            raise ValueError(kind)


def _pack_chunk(chunk: Chunk) -> list[object]:
    tokens = pack_tokens(chunk.tokens)
    told = [chunk.logprobs, chunk.sketches, chunk.prompt_logprobs]
    return [tokens, chunk.logits, chunk.finish, *told]


def _pack_replayed(replayed: Replayed) -> list[object]:
    floats = [np.array(row, "<f8").tobytes() for row in (replayed.margins, replayed.gaps)]
    return [pack_tokens(replayed.drawn), replayed.logits, *floats, replayed.sketches]


def _floats(packed: bytes) -> tuple[float, ...]:
    return tuple(np.frombuffer(packed, "<f8").tolist())


def _pack_images(images: Sequence[Image]) -> list[tuple[int, int, bytes]]:
    return [(image.width, image.height, image.pixels) for image in images]


def _images(packed: Sequence[Any]) -> tuple[Image, ...]:
    return tuple(Image(width=width, height=height, pixels=data) for width, height, data in packed)


def _settings(sampler: SamplerLike) -> list[object]:
    """All fields; the biases as pairs."""
    bias, stops = sampler.logit_bias, sampler.stop_tokens
    return [
        *(getattr(sampler, name) for name in _PLAIN_SETTINGS),
        None if bias is None else [(entry.token, entry.bias) for entry in bias],
        None if stops is None else list(stops),
    ]


def _sampler(settings: Sequence[Any]) -> Sampler:
    *plain, bias, stops = settings
    return Sampler(
        **dict(zip(_PLAIN_SETTINGS, plain, strict=True)),
        logit_bias=(None if bias is None else tuple(TokenBias(token=t, bias=by) for t, by in bias)),
        stop_tokens=None if stops is None else tuple(stops),
    )
